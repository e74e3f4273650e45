using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace LrIad.Engine.Compute.Cpu;

/// <summary>Brings a panel of the right factor into the order in which a tile reads it, as float32.</summary>
internal static unsafe class MatMulPacking
{
    /// <summary>packed[k, width] = b[depth + k, column + j], zeros beyond the edge.</summary>
    public static void Pack(Right b, int depth, int depths, int column, int columns, int width, float* packed)
    {
        var j = 0;
        if (!b.Transposed)
        {
            for (; j + 8 <= columns; j += 8)
            {
                PackRows8(b, depth, depths, column + j, width, packed + j);
            }
        }
        else if (Avx2.IsSupported)
        {
            for (; j + 8 <= columns; j += 8)
            {
                PackTransposed8(b, depth, depths, column + j, width, packed + j);
            }
        }

        for (; j < width; j++)
        {
            for (var k = 0; k < depths; k++)
            {
                var index = b.Transposed ? ((column + j) * b.Stride) + depth + k : ((depth + k) * b.Stride) + column + j;
                packed[((long)k * width) + j] = j < columns ? Element(b, index) : 0f;
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void PackRows8(Right b, int depth, int depths, int column, int width, float* packed)
    {
        var at = (depth * b.Stride) + column;
        for (var k = 0; k < depths; k++, at += b.Stride, packed += width)
        {
            Load8(b, at).Store(packed);
        }
    }

    // Eight rows of the stored matrix become eight columns.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void PackTransposed8(Right b, int depth, int depths, int row, int width, float* packed)
    {
        var at = (row * b.Stride) + depth;
        var k = 0;
        if (b.IsBFloat16)
        {
            // Sixteen bfloat16 are turned over as eight pairs: the lower half of a pair is the even one, the upper half the odd one.
            for (; k + 16 <= depths; k += 16)
            {
                var target = packed + ((long)k * width);
                Transpose((byte*)((ushort*)b.Data + at + k), b.Stride * sizeof(ushort), out var x0, out var x1, out var x2, out var x3, out var x4, out var x5, out var x6, out var x7);
                Widen(x0, target, width);
                Widen(x1, target + (2 * width), width);
                Widen(x2, target + (4 * width), width);
                Widen(x3, target + (6 * width), width);
                Widen(x4, target + (8 * width), width);
                Widen(x5, target + (10 * width), width);
                Widen(x6, target + (12 * width), width);
                Widen(x7, target + (14 * width), width);
            }
        }
        else
        {
            for (; k + 8 <= depths; k += 8)
            {
                var target = packed + ((long)k * width);
                Transpose((byte*)((float*)b.Data + at + k), b.Stride * sizeof(float), out var x0, out var x1, out var x2, out var x3, out var x4, out var x5, out var x6, out var x7);
                x0.Store(target);
                x1.Store(target + width);
                x2.Store(target + (2 * width));
                x3.Store(target + (3 * width));
                x4.Store(target + (4 * width));
                x5.Store(target + (5 * width));
                x6.Store(target + (6 * width));
                x7.Store(target + (7 * width));
            }
        }

        for (; k < depths; k++)
        {
            for (var j = 0; j < 8; j++)
            {
                packed[((long)k * width) + j] = Element(b, at + (j * b.Stride) + k);
            }
        }
    }

    // Column i of eight rows of eight floats each.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose(
        byte* row, long stride, out Vector256<float> x0, out Vector256<float> x1, out Vector256<float> x2, out Vector256<float> x3,
        out Vector256<float> x4, out Vector256<float> x5, out Vector256<float> x6, out Vector256<float> x7)
    {
        Transpose4(row, stride, out var low0, out var low1, out var low2, out var low3);
        Transpose4(row + (4 * stride), stride, out var high0, out var high1, out var high2, out var high3);
        x0 = Avx.Permute2x128(low0, high0, 0x20);
        x1 = Avx.Permute2x128(low1, high1, 0x20);
        x2 = Avx.Permute2x128(low2, high2, 0x20);
        x3 = Avx.Permute2x128(low3, high3, 0x20);
        x4 = Avx.Permute2x128(low0, high0, 0x31);
        x5 = Avx.Permute2x128(low1, high1, 0x31);
        x6 = Avx.Permute2x128(low2, high2, 0x31);
        x7 = Avx.Permute2x128(low3, high3, 0x31);
    }

    // Columns i and i + 4 of four rows, in the two halves of a vector.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose4(byte* row, long stride, out Vector256<float> x0, out Vector256<float> x1, out Vector256<float> x2, out Vector256<float> x3)
    {
        var (a, b) = (Vector256.Load((float*)row), Vector256.Load((float*)(row + stride)));
        var (c, d) = (Vector256.Load((float*)(row + (2 * stride))), Vector256.Load((float*)(row + (3 * stride))));
        var (low, high) = (Avx.UnpackLow(a, b), Avx.UnpackLow(c, d));
        x0 = Avx.Shuffle(low, high, 0x44);
        x1 = Avx.Shuffle(low, high, 0xEE);
        (low, high) = (Avx.UnpackHigh(a, b), Avx.UnpackHigh(c, d));
        x2 = Avx.Shuffle(low, high, 0x44);
        x3 = Avx.Shuffle(low, high, 0xEE);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Widen(Vector256<float> pairs, float* to, int width)
    {
        Vector256.ShiftLeft(pairs.AsUInt32(), 16).AsSingle().Store(to);
        (pairs.AsUInt32() & Vector256.Create(0xFFFF0000)).AsSingle().Store(to + width);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Load8(Right b, long index) =>
        b.IsBFloat16
            ? Vector256.ShiftLeft(Vector256.WidenLower(Vector128.Load((ushort*)b.Data + index).ToVector256Unsafe()), 16).AsSingle()
            : Vector256.Load((float*)b.Data + index);

    private static float Element(Right b, long index) =>
        b.IsBFloat16 ? BitConverter.UInt32BitsToSingle((uint)((ushort*)b.Data)[index] << 16) : ((float*)b.Data)[index];
}
