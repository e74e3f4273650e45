using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>What Hopper's copy engine has to know of a bfloat16 matrix to fetch tiles of it: CUtensorMap.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct TensorMap
{
    private const int Bytes = 128;
    private const int BFloat16 = 9;
    private const int Promotion256 = 3;

    private fixed ulong _opaque[Bytes / sizeof(ulong)];

    /// <summary>A map for tiles of a matrix, stored with the swizzle of their width; what lies outside the matrix is zero.</summary>
    /// <param name="address">First element; divisible by 16.</param>
    /// <param name="rows">Rows of the matrix.</param>
    /// <param name="columns">Columns, which follow each other without gaps; divisible by 8.</param>
    /// <param name="boxRows">Rows of a tile, 256 at most.</param>
    /// <param name="boxColumns">Columns of a tile: 64 or 16.</param>
    public static TensorMap Tiles(nint address, int rows, int columns, int boxRows, int boxColumns = 64) =>
        Encode(address, [columns, rows], [boxColumns, boxRows]);

    /// <summary>A map for tiles of queries: some rows of all query heads that share a key-value head.</summary>
    /// <param name="address">First element; divisible by 16.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="heads">Key-value heads.</param>
    /// <param name="perHead">Query heads of each.</param>
    /// <param name="columns">Columns of a head.</param>
    /// <param name="boxRows">Rows of a tile.</param>
    /// <param name="boxColumns">Columns of a tile: 64 or 16.</param>
    public static TensorMap Queries(nint address, int rows, int heads, int perHead, int columns, int boxRows, int boxColumns) =>
        Encode(address, [columns, perHead, heads, rows], [boxColumns, perHead, 1, boxRows]);

    /// <summary>A map for tiles of the left operand's partner in large products: of 32 rows each, row 8 j + t of the tile is row 4 t + j of the matrix (see native/kernels/product.cuh).</summary>
    /// <param name="address">First element; divisible by 16.</param>
    /// <param name="rows">Rows of the matrix; divisible by 32.</param>
    /// <param name="columns">Columns, which follow each other without gaps; divisible by 8.</param>
    /// <param name="boxRows">Rows of a tile; divisible by 32.</param>
    public static TensorMap Weights(nint address, int rows, int columns, int boxRows)
    {
        var row = (ulong)columns * sizeof(ushort);
        return Encode(address, [columns, 8, 4, rows / 32], [64, 8, 4, boxRows / 32], [4 * row, row, 32 * row]);
    }

    private static TensorMap Encode(nint address, ReadOnlySpan<int> sizes, ReadOnlySpan<int> box)
    {
        Span<ulong> strides = stackalloc ulong[sizes.Length - 1];
        var stride = (ulong)sizeof(ushort);
        for (var i = 0; i < strides.Length; i++)
        {
            stride *= (ulong)sizes[i];
            strides[i] = stride;
        }

        return Encode(address, sizes, box, strides);
    }

    // Sizes and box from the direction that is contiguous on; strides in bytes, of all others.
    private static TensorMap Encode(nint address, ReadOnlySpan<int> sizes, ReadOnlySpan<int> box, ReadOnlySpan<ulong> strides)
    {
        // The driver wants the map itself on 64 bytes.
        var room = stackalloc byte[Bytes + 64];
        var map = (void*)(((nint)room + 63) & ~63);
        var extents = stackalloc ulong[4];
        uint* boxes = stackalloc uint[4], ones = stackalloc uint[4];
        for (var i = 0; i < sizes.Length; i++)
        {
            (extents[i], boxes[i], ones[i]) = ((ulong)sizes[i], (uint)box[i], 1);
        }

        // The driver's numbers for swizzles of 128 and of 32 bytes.
        var swizzle = box[0] switch { 64 => 3, 16 => 1, _ => throw new ArgumentOutOfRangeException(nameof(box)) };
        fixed (ulong* steps = strides)
        {
            Check(
                Driver.cuTensorMapEncodeTiled(map, BFloat16, (uint)sizes.Length, address, extents, steps, boxes, ones, 0, swizzle, Promotion256, 0),
                $"cuTensorMapEncodeTiled([{string.Join(", ", sizes.ToArray())}], tiles of [{string.Join(", ", box.ToArray())}])");
        }

        return Unsafe.Read<TensorMap>(map);
    }
}
