using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

/// <summary>
/// The innermost loops of <see cref="MatMul"/>: a tile's sums stay in registers while the depth goes by. They are compiled to their best at once: what the
/// compiler makes of them at first is twenty times slower, and a short run would not see much else.
/// </summary>
internal static unsafe class MatMulTile
{
    /// <summary>Most rows of a tile.</summary>
    public const int Rows = 6;

    /// <summary>Columns of a tile on any machine, at most.</summary>
    public const int MostColumns = 32;

    /// <summary>Columns of a tile: two vectors.</summary>
    public static int Columns => Vector512.IsHardwareAccelerated ? 32 : 16;

    /// <summary>How high the next tile is when so many rows are left. Four rows are as fast a row as six with 8-wide vectors, so 7 or 8 are two fours.</summary>
    public static int Height(int left) => !Vector512.IsHardwareAccelerated && left is <= 4 or 7 or 8 ? 4 : Rows;

    /// <summary>c[height, Columns] += a·b; rows of a beyond the last stand for the last.</summary>
    /// <param name="height">From <see cref="Height"/>.</param>
    /// <param name="a">First element of the left factor.</param>
    /// <param name="rowStride">From one of its rows to the next.</param>
    /// <param name="last">Its last row.</param>
    /// <param name="columnStride">From one of its columns to the next.</param>
    /// <param name="b">Packed [depths, Columns].</param>
    /// <param name="c">The sums.</param>
    /// <param name="stride">From one row of sums to the next.</param>
    /// <param name="depths">Length of the chains.</param>
    /// <param name="fresh">The sums start from zero, whatever c has been.</param>
    public static void Add(int height, float* a, long rowStride, int last, long columnStride, float* b, float* c, long stride, int depths, bool fresh)
    {
        var (r1, r2, r3) = (Math.Min(1, last) * rowStride, Math.Min(2, last) * rowStride, Math.Min(3, last) * rowStride);
        if (height == 4)
        {
            Add4x16(a, r1, r2, r3, columnStride, b, c, stride, depths, fresh);
            return;
        }

        var (r4, r5) = (Math.Min(4, last) * rowStride, Math.Min(5, last) * rowStride);
        if (Vector512.IsHardwareAccelerated)
        {
            Add6x32(a, r1, r2, r3, r4, r5, columnStride, b, c, stride, depths, fresh);
        }
        else
        {
            Add6x16(a, r1, r2, r3, r4, r5, columnStride, b, c, stride, depths, fresh);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Add4x16(float* a, long r1, long r2, long r3, long columnStride, float* b, float* c, long stride, int depths, bool fresh)
    {
        float* c0 = c, c1 = c0 + stride, c2 = c1 + stride, c3 = c2 + stride;
        var s00 = fresh ? Vector256<float>.Zero : Vector256.Load(c0);
        var s01 = fresh ? Vector256<float>.Zero : Vector256.Load(c0 + 8);
        var s10 = fresh ? Vector256<float>.Zero : Vector256.Load(c1);
        var s11 = fresh ? Vector256<float>.Zero : Vector256.Load(c1 + 8);
        var s20 = fresh ? Vector256<float>.Zero : Vector256.Load(c2);
        var s21 = fresh ? Vector256<float>.Zero : Vector256.Load(c2 + 8);
        var s30 = fresh ? Vector256<float>.Zero : Vector256.Load(c3);
        var s31 = fresh ? Vector256<float>.Zero : Vector256.Load(c3 + 8);
        for (var k = 0; k < depths; k++)
        {
            var b0 = Vector256.Load(b);
            var b1 = Vector256.Load(b + 8);
            var x = Vector256.Create(*a);
            s00 = Vector256.FusedMultiplyAdd(x, b0, s00);
            s01 = Vector256.FusedMultiplyAdd(x, b1, s01);
            x = Vector256.Create(a[r1]);
            s10 = Vector256.FusedMultiplyAdd(x, b0, s10);
            s11 = Vector256.FusedMultiplyAdd(x, b1, s11);
            x = Vector256.Create(a[r2]);
            s20 = Vector256.FusedMultiplyAdd(x, b0, s20);
            s21 = Vector256.FusedMultiplyAdd(x, b1, s21);
            x = Vector256.Create(a[r3]);
            s30 = Vector256.FusedMultiplyAdd(x, b0, s30);
            s31 = Vector256.FusedMultiplyAdd(x, b1, s31);
            a += columnStride;
            b += 16;
        }

        s00.Store(c0);
        s01.Store(c0 + 8);
        s10.Store(c1);
        s11.Store(c1 + 8);
        s20.Store(c2);
        s21.Store(c2 + 8);
        s30.Store(c3);
        s31.Store(c3 + 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Add6x16(float* a, long r1, long r2, long r3, long r4, long r5, long columnStride, float* b, float* c, long stride, int depths, bool fresh)
    {
        float* c0 = c, c1 = c0 + stride, c2 = c1 + stride, c3 = c2 + stride, c4 = c3 + stride, c5 = c4 + stride;
        var s00 = fresh ? Vector256<float>.Zero : Vector256.Load(c0);
        var s01 = fresh ? Vector256<float>.Zero : Vector256.Load(c0 + 8);
        var s10 = fresh ? Vector256<float>.Zero : Vector256.Load(c1);
        var s11 = fresh ? Vector256<float>.Zero : Vector256.Load(c1 + 8);
        var s20 = fresh ? Vector256<float>.Zero : Vector256.Load(c2);
        var s21 = fresh ? Vector256<float>.Zero : Vector256.Load(c2 + 8);
        var s30 = fresh ? Vector256<float>.Zero : Vector256.Load(c3);
        var s31 = fresh ? Vector256<float>.Zero : Vector256.Load(c3 + 8);
        var s40 = fresh ? Vector256<float>.Zero : Vector256.Load(c4);
        var s41 = fresh ? Vector256<float>.Zero : Vector256.Load(c4 + 8);
        var s50 = fresh ? Vector256<float>.Zero : Vector256.Load(c5);
        var s51 = fresh ? Vector256<float>.Zero : Vector256.Load(c5 + 8);
        for (var k = 0; k < depths; k++)
        {
            var b0 = Vector256.Load(b);
            var b1 = Vector256.Load(b + 8);
            var x = Vector256.Create(*a);
            s00 = Vector256.FusedMultiplyAdd(x, b0, s00);
            s01 = Vector256.FusedMultiplyAdd(x, b1, s01);
            x = Vector256.Create(a[r1]);
            s10 = Vector256.FusedMultiplyAdd(x, b0, s10);
            s11 = Vector256.FusedMultiplyAdd(x, b1, s11);
            x = Vector256.Create(a[r2]);
            s20 = Vector256.FusedMultiplyAdd(x, b0, s20);
            s21 = Vector256.FusedMultiplyAdd(x, b1, s21);
            x = Vector256.Create(a[r3]);
            s30 = Vector256.FusedMultiplyAdd(x, b0, s30);
            s31 = Vector256.FusedMultiplyAdd(x, b1, s31);
            x = Vector256.Create(a[r4]);
            s40 = Vector256.FusedMultiplyAdd(x, b0, s40);
            s41 = Vector256.FusedMultiplyAdd(x, b1, s41);
            x = Vector256.Create(a[r5]);
            s50 = Vector256.FusedMultiplyAdd(x, b0, s50);
            s51 = Vector256.FusedMultiplyAdd(x, b1, s51);
            a += columnStride;
            b += 16;
        }

        s00.Store(c0);
        s01.Store(c0 + 8);
        s10.Store(c1);
        s11.Store(c1 + 8);
        s20.Store(c2);
        s21.Store(c2 + 8);
        s30.Store(c3);
        s31.Store(c3 + 8);
        s40.Store(c4);
        s41.Store(c4 + 8);
        s50.Store(c5);
        s51.Store(c5 + 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Add6x32(float* a, long r1, long r2, long r3, long r4, long r5, long columnStride, float* b, float* c, long stride, int depths, bool fresh)
    {
        float* c0 = c, c1 = c0 + stride, c2 = c1 + stride, c3 = c2 + stride, c4 = c3 + stride, c5 = c4 + stride;
        var s00 = fresh ? Vector512<float>.Zero : Vector512.Load(c0);
        var s01 = fresh ? Vector512<float>.Zero : Vector512.Load(c0 + 16);
        var s10 = fresh ? Vector512<float>.Zero : Vector512.Load(c1);
        var s11 = fresh ? Vector512<float>.Zero : Vector512.Load(c1 + 16);
        var s20 = fresh ? Vector512<float>.Zero : Vector512.Load(c2);
        var s21 = fresh ? Vector512<float>.Zero : Vector512.Load(c2 + 16);
        var s30 = fresh ? Vector512<float>.Zero : Vector512.Load(c3);
        var s31 = fresh ? Vector512<float>.Zero : Vector512.Load(c3 + 16);
        var s40 = fresh ? Vector512<float>.Zero : Vector512.Load(c4);
        var s41 = fresh ? Vector512<float>.Zero : Vector512.Load(c4 + 16);
        var s50 = fresh ? Vector512<float>.Zero : Vector512.Load(c5);
        var s51 = fresh ? Vector512<float>.Zero : Vector512.Load(c5 + 16);
        for (var k = 0; k < depths; k++)
        {
            var b0 = Vector512.Load(b);
            var b1 = Vector512.Load(b + 16);
            var x = Vector512.Create(*a);
            s00 = Vector512.FusedMultiplyAdd(x, b0, s00);
            s01 = Vector512.FusedMultiplyAdd(x, b1, s01);
            x = Vector512.Create(a[r1]);
            s10 = Vector512.FusedMultiplyAdd(x, b0, s10);
            s11 = Vector512.FusedMultiplyAdd(x, b1, s11);
            x = Vector512.Create(a[r2]);
            s20 = Vector512.FusedMultiplyAdd(x, b0, s20);
            s21 = Vector512.FusedMultiplyAdd(x, b1, s21);
            x = Vector512.Create(a[r3]);
            s30 = Vector512.FusedMultiplyAdd(x, b0, s30);
            s31 = Vector512.FusedMultiplyAdd(x, b1, s31);
            x = Vector512.Create(a[r4]);
            s40 = Vector512.FusedMultiplyAdd(x, b0, s40);
            s41 = Vector512.FusedMultiplyAdd(x, b1, s41);
            x = Vector512.Create(a[r5]);
            s50 = Vector512.FusedMultiplyAdd(x, b0, s50);
            s51 = Vector512.FusedMultiplyAdd(x, b1, s51);
            a += columnStride;
            b += 32;
        }

        s00.Store(c0);
        s01.Store(c0 + 16);
        s10.Store(c1);
        s11.Store(c1 + 16);
        s20.Store(c2);
        s21.Store(c2 + 16);
        s30.Store(c3);
        s31.Store(c3 + 16);
        s40.Store(c4);
        s41.Store(c4 + 16);
        s50.Store(c5);
        s51.Store(c5 + 16);
    }
}
