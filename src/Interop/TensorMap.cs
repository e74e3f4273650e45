using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>What Hopper's copy engine has to know of a bfloat16 matrix to fetch tiles of it: CUtensorMap.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct TensorMap
{
    private const int Bytes = 128;
    private const int BFloat16 = 9;
    private const int Swizzle128 = 3;
    private const int Promotion256 = 3;

    private fixed ulong _opaque[Bytes / sizeof(ulong)];

    /// <summary>A map for tiles of <paramref name="boxRows"/> rows of 64 values, stored with the 128-byte swizzle; what lies outside the matrix is zero.</summary>
    /// <param name="address">First element; divisible by 16.</param>
    /// <param name="rows">Rows of the matrix.</param>
    /// <param name="columns">Columns, which follow each other without gaps; divisible by 8.</param>
    /// <param name="boxRows">Rows of a tile, 256 at most.</param>
    public static TensorMap Tiles(nint address, int rows, int columns, int boxRows)
    {
        // The driver wants the map itself on 64 bytes.
        var room = stackalloc byte[Bytes + 64];
        var map = (void*)(((nint)room + 63) & ~63);
        var sizes = stackalloc ulong[] { (ulong)columns, (ulong)rows };
        var stride = (ulong)columns * sizeof(ushort);
        var box = stackalloc uint[] { 64, (uint)boxRows };
        var ones = stackalloc uint[] { 1, 1 };
        Check(Driver.cuTensorMapEncodeTiled(map, BFloat16, 2, address, sizes, &stride, box, ones, 0, Swizzle128, Promotion256, 0), $"cuTensorMapEncodeTiled([{rows}, {columns}], tiles of {boxRows} rows)");
        return Unsafe.Read<TensorMap>(map);
    }
}
