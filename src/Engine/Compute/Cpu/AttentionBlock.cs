using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace LrIad.Engine.Compute.Cpu;

/// <summary>
/// What attention does with one block of 64 keys and a tile of query rows: scores, soft-max, weighted sum of values. A few rows, as a decode step has them for a
/// completion's own keys, would spend their time packing the block for <see cref="MatMul"/>; they read it in place. Both ways every element is the same
/// chain of fused multiply-adds, so they agree to the last bit.
/// </summary>
internal static unsafe class AttentionBlock
{
    private const int Keys = KvLayer.BlockSize;
    private const int FewRows = 8;

    /// <summary>scores[rows, 64] = q · kᵀ for the first <paramref name="keys"/> keys; what stands beyond them is undefined.</summary>
    public static void Scores(float* scratch, float* q, float* k, float* scores, int rows, int keys, int dim)
    {
        if (rows > FewRows || dim % 8 != 0 || !Avx2.IsSupported)
        {
            MatMul.Block(scratch, new Left(q, dim), new Right(k, dim, true, false), default, scores, Keys, rows, keys, dim);
            return;
        }

        // Slots beyond the last key exist: whole vectors of keys may be computed.
        for (var key = 0; key < keys; key += 8)
        {
            for (var row = 0; row < rows; row += 4)
            {
                var last = Math.Min(3, rows - 1 - row);
                Scores4(q + ((long)row * dim), Math.Min(1, last) * dim, Math.Min(2, last) * dim, last * dim, k + ((long)key * dim), scores + ((long)row * Keys) + key, last, dim);
            }
        }
    }

    /// <summary>o[rows, dim] += p[rows, 64] · v.</summary>
    public static void AddValues(float* scratch, float* p, float* v, float* o, int rows, int keys, int dim)
    {
        if (rows > FewRows || dim % 8 != 0)
        {
            MatMul.Block(scratch, new Left(p, Keys), new Right(v, dim, false, false), new Start(null, o, dim), o, dim, rows, dim, keys);
            return;
        }

        for (var row = 0; row < rows; row += 4)
        {
            for (var i = 0; i < dim; i += 8)
            {
                AddValues4(p + ((long)row * Keys), v + i, o + ((long)row * dim) + i, Math.Min(3, rows - 1 - row), keys, dim);
            }
        }
    }

    /// <summary>Scores become probabilities relative to the new maximum; what was summed before is scaled to it. Keys from <paramref name="visible"/> on count nothing.</summary>
    public static void OnlineSoftMax(float* scores, int visible, ref float max, ref float sum, float* o, int dim)
    {
        for (var j = visible; j < Keys; j++)
        {
            scores[j] = float.NegativeInfinity;
        }

        var lanes = Vector256.Load(scores);
        for (var j = 8; j < Keys; j += 8)
        {
            lanes = Vector256.MaxNative(lanes, Vector256.Load(scores + j));
        }

        var halves = Vector128.MaxNative(lanes.GetLower(), lanes.GetUpper());
        halves = Vector128.MaxNative(halves, Vector128.Shuffle(halves, Vector128.Create(2, 3, 0, 1)));
        halves = Vector128.MaxNative(halves, Vector128.Shuffle(halves, Vector128.Create(1, 0, 3, 2)));
        if (halves.ToScalar() > max)
        {
            var rescale = VectorMath.Exp(max - halves.ToScalar());
            sum *= rescale;
            Scale(o, rescale, o, dim);
            max = halves.ToScalar();
        }

        var (largest, total) = (Vector256.Create(max), Vector256<float>.Zero);
        for (var j = 0; j < Keys; j += 8)
        {
            var p = VectorMath.Exp(Vector256.Load(scores + j) - largest);
            p.Store(scores + j);
            total += p;
        }

        sum += Vector256.Sum(total);
    }

    /// <summary>to = from · by; the two may be the same.</summary>
    public static void Scale(float* from, float by, float* to, int count)
    {
        var i = 0;
        for (; i + 8 <= count; i += 8)
        {
            (Vector256.Load(from + i) * by).Store(to + i);
        }

        for (; i < count; i++)
        {
            to[i] = from[i] * by;
        }
    }

    // Up to four rows by eight keys: 8 × 8 of the block are turned over in registers, so that a vector holds one column of eight keys.
    // Rows that are not there repeat the last one.
    [SkipLocalsInit]
    private static void Scores4(float* q, int q1, int q2, int q3, float* k, float* scores, int last, int dim)
    {
        var (s0, s1, s2, s3) = (Vector256<float>.Zero, Vector256<float>.Zero, Vector256<float>.Zero, Vector256<float>.Zero);
        var columns = stackalloc float[64];
        for (var i = 0; i < dim; i += 8)
        {
            Transpose(k + i, dim, columns);
            for (var j = 0; j < 8; j++)
            {
                var column = Vector256.Load(columns + (8 * j));
                s0 = Vector256.FusedMultiplyAdd(Vector256.Create(q[i + j]), column, s0);
                s1 = Vector256.FusedMultiplyAdd(Vector256.Create(q[q1 + i + j]), column, s1);
                s2 = Vector256.FusedMultiplyAdd(Vector256.Create(q[q2 + i + j]), column, s2);
                s3 = Vector256.FusedMultiplyAdd(Vector256.Create(q[q3 + i + j]), column, s3);
            }
        }

        StoreRows(s0, s1, s2, s3, scores, Keys, last);
    }

    private static void AddValues4(float* p, float* v, float* o, int last, int keys, int dim)
    {
        float* p1 = p + (Math.Min(1, last) * Keys), p2 = p + (Math.Min(2, last) * Keys), p3 = p + (last * Keys);
        var s0 = Vector256.Load(o);
        var s1 = Vector256.Load(o + ((long)Math.Min(1, last) * dim));
        var s2 = Vector256.Load(o + ((long)Math.Min(2, last) * dim));
        var s3 = Vector256.Load(o + ((long)last * dim));
        for (var key = 0; key < keys; key++)
        {
            var value = Vector256.Load(v + ((long)key * dim));
            s0 = Vector256.FusedMultiplyAdd(Vector256.Create(p[key]), value, s0);
            s1 = Vector256.FusedMultiplyAdd(Vector256.Create(p1[key]), value, s1);
            s2 = Vector256.FusedMultiplyAdd(Vector256.Create(p2[key]), value, s2);
            s3 = Vector256.FusedMultiplyAdd(Vector256.Create(p3[key]), value, s3);
        }

        StoreRows(s0, s1, s2, s3, o, dim, last);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreRows(Vector256<float> s0, Vector256<float> s1, Vector256<float> s2, Vector256<float> s3, float* to, long stride, int last)
    {
        s0.Store(to);
        s1.Store(to + (Math.Min(1, last) * stride));
        s2.Store(to + (Math.Min(2, last) * stride));
        s3.Store(to + (last * stride));
    }

    // columns[j] = (rows[0][j], …, rows[7][j]).
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose(float* rows, long stride, float* columns)
    {
        var (x0, x1, x2, x3) = (Vector256.Load(rows), Vector256.Load(rows + stride), Vector256.Load(rows + (2 * stride)), Vector256.Load(rows + (3 * stride)));
        rows += 4 * stride;
        var (x4, x5, x6, x7) = (Vector256.Load(rows), Vector256.Load(rows + stride), Vector256.Load(rows + (2 * stride)), Vector256.Load(rows + (3 * stride)));
        Transpose4(x0, x1, x2, x3, out var y0, out var y1, out var y2, out var y3);
        Transpose4(x4, x5, x6, x7, out var y4, out var y5, out var y6, out var y7);
        Avx.Permute2x128(y0, y4, 0x20).Store(columns);
        Avx.Permute2x128(y1, y5, 0x20).Store(columns + 8);
        Avx.Permute2x128(y2, y6, 0x20).Store(columns + 16);
        Avx.Permute2x128(y3, y7, 0x20).Store(columns + 24);
        Avx.Permute2x128(y0, y4, 0x31).Store(columns + 32);
        Avx.Permute2x128(y1, y5, 0x31).Store(columns + 40);
        Avx.Permute2x128(y2, y6, 0x31).Store(columns + 48);
        Avx.Permute2x128(y3, y7, 0x31).Store(columns + 56);
    }

    // 4 × 4 in each half of the vectors.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose4(
        Vector256<float> x0, Vector256<float> x1, Vector256<float> x2, Vector256<float> x3,
        out Vector256<float> y0, out Vector256<float> y1, out Vector256<float> y2, out Vector256<float> y3)
    {
        var (low01, high01) = (Avx.UnpackLow(x0, x1), Avx.UnpackHigh(x0, x1));
        var (low23, high23) = (Avx.UnpackLow(x2, x3), Avx.UnpackHigh(x2, x3));
        y0 = Avx.Shuffle(low01, low23, 0x44);
        y1 = Avx.Shuffle(low01, low23, 0xEE);
        y2 = Avx.Shuffle(high01, high23, 0x44);
        y3 = Avx.Shuffle(high01, high23, 0xEE);
    }
}
