using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace LrIad.Engine.Compute.Cpu;

/// <summary>The left factor [M, K], read where it lies: element (m, k) is Data[m · RowStride + k · ColumnStride].</summary>
internal readonly unsafe struct Left(float* data, long rowStride, long columnStride = 1)
{
    public readonly float* Data = data;
    public readonly long RowStride = rowStride;
    public readonly long ColumnStride = columnStride;
}

/// <summary>The right factor [K, N], float32 or bfloat16, stored row-major as [K, N], or transposed as [N, K] (a linear layer's weight).</summary>
internal readonly unsafe struct Right(void* data, long stride, bool transposed, bool isBFloat16)
{
    public readonly void* Data = data;
    public readonly long Stride = stride;
    public readonly bool Transposed = transposed;
    public readonly bool IsBFloat16 = isBFloat16;
}

/// <summary>What a product's sums start from.</summary>
internal readonly unsafe struct Start
{
    /// <summary>[N] added to every row, or null.</summary>
    public readonly float* Bias;

    /// <summary>[M, N] added, or null; may be the result itself.</summary>
    public readonly float* Residual;
    public readonly long ResidualStride;

    public Start(float* bias, float* residual = null, long residualStride = 0)
    {
        Bias = bias;
        Residual = residual;
        ResidualStride = residualStride;
    }
}

/// <summary>
/// c = start + a·b in float32. Every element is one chain of fused multiply-adds over k = 0, 1, 2 …, whatever the number of rows, the tile, the thread or
/// the width of a vector: a row's result never depends on its neighbours, and is the same on every machine.
/// <para>
/// Arithmetic: two 8-wide FMAs a cycle are 112 GFLOP/s a core at 3.5 GHz (AVX2). A 6 × 16 tile keeps 12 sums in registers and takes 8 loads for 12 FMAs,
/// so the FMA units bound it. The right factor is converted and packed 64 columns at a time into L2, which costs about 6 / M of the product.
/// </para>
/// </summary>
internal static unsafe class MatMul
{
    private const int TileRows = 6;
    private const int GroupColumns = 64;
    private const int DepthBlock = 512;
    private const int TaskRows = 510;

    /// <summary>Columns of a register tile: two vectors.</summary>
    private static int TileColumns => Vector512.IsHardwareAccelerated ? 32 : 16;

    /// <summary>Floats of scratch memory that a worker needs.</summary>
    public const int ScratchFloats = (GroupColumns * DepthBlock) + (TileRows * 32);

    [StructLayout(LayoutKind.Auto)]
    private struct Job
    {
        public Left A;
        public Right B;
        public Start Start;
        public float* C;
        public long Stride;
        public int M;
        public int N;
        public int K;
        public int ColumnGroups;
        public float** Scratch;
    }

    /// <summary>c[M, N] = start + a·b, over all threads.</summary>
    /// <param name="threads">Who does it.</param>
    /// <param name="scratch">A pointer a worker to <see cref="ScratchFloats"/> floats.</param>
    /// <param name="a">Left factor.</param>
    /// <param name="b">Right factor.</param>
    /// <param name="start">What the sums start from.</param>
    /// <param name="c">Result.</param>
    /// <param name="stride">Floats from one row of c to the next.</param>
    /// <param name="m">Rows.</param>
    /// <param name="n">Columns.</param>
    /// <param name="k">Depth.</param>
    public static void Run(CpuThreads threads, float** scratch, Left a, Right b, Start start, float* c, long stride, int m, int n, int k)
    {
        if (m == 0 || n == 0)
        {
            return;
        }

        var job = new Job
        {
            A = a,
            B = b,
            Start = start,
            C = c,
            Stride = stride,
            M = m,
            N = n,
            K = k,
            ColumnGroups = (n + GroupColumns - 1) / GroupColumns,
            Scratch = scratch,
        };
        var rowGroups = (m + TaskRows - 1) / TaskRows;
        threads.Run(rowGroups * job.ColumnGroups, &RunTask, &job);
    }

    private static void RunTask(void* state, int task, int worker)
    {
        ref var job = ref *(Job*)state;
        var row = task / job.ColumnGroups * TaskRows;
        var column = task % job.ColumnGroups * GroupColumns;
        Group(job.Scratch[worker], job.A, job.B, job.Start, job.C, job.Stride, row, Math.Min(TaskRows, job.M - row), column, Math.Min(GroupColumns, job.N - column), job.K);
    }

    /// <summary>c[M, N] = start + a·b on the calling thread.</summary>
    public static void Block(float* scratch, Left a, Right b, Start start, float* c, long stride, int m, int n, int k)
    {
        for (var column = 0; column < n; column += GroupColumns)
        {
            Group(scratch, a, b, start, c, stride, 0, m, column, Math.Min(GroupColumns, n - column), k);
        }
    }

    // Up to 64 columns and any number of rows: pack the columns, then go down the rows.
    private static void Group(float* scratch, Left a, Right b, Start start, float* c, long stride, int row, int rows, int column, int columns, int k)
    {
        var tile = TileColumns;
        for (var depth = 0; depth < k || depth == 0; depth += DepthBlock)
        {
            var depths = Math.Min(DepthBlock, k - depth);
            for (var panel = 0; panel < columns; panel += tile)
            {
                Pack(b, depth, depths, column + panel, Math.Min(tile, columns - panel), tile, scratch + ((long)panel * DepthBlock));
            }

            for (var r = 0; r < rows; r += TileRows)
            {
                var tileRows = Math.Min(TileRows, rows - r);
                for (var panel = 0; panel < columns; panel += tile)
                {
                    Tile(scratch, a, start, c, stride, row + r, tileRows, column, panel, Math.Min(tile, columns - panel), depth, depths);
                }
            }
        }
    }

    private static void Tile(
        float* scratch, Left a, Start start, float* c, long stride, int row, int rows, int column, int panel, int columns, int depth, int depths)
    {
        // A tile that sticks out over the edge is computed whole in a buffer of its own, the last row standing in for missing ones.
        var buffer = scratch + (GroupColumns * DepthBlock);
        var target = c + (row * stride) + column + panel;
        var whole = rows == TileRows && columns == TileColumns;
        var sums = whole ? target : buffer;
        var sumsStride = whole ? stride : TileColumns;
        if (depth == 0 && !(whole && start.Bias is null && start.Residual == c && start.ResidualStride == stride))
        {
            Begin(start, sums, sumsStride, row, rows, column + panel, columns);
        }
        else if (!whole)
        {
            Copy(target, stride, sums, sumsStride, rows, columns);
        }

        var rowStep = a.RowStride;
        var first = a.Data + (row * rowStep) + (depth * a.ColumnStride);
        var packed = scratch + ((long)panel * DepthBlock);
        var last = rows - 1;
        if (Vector512.IsHardwareAccelerated)
        {
            Tile512(first, Math.Min(1, last) * rowStep, Math.Min(2, last) * rowStep, Math.Min(3, last) * rowStep, Math.Min(4, last) * rowStep, Math.Min(5, last) * rowStep, a.ColumnStride, packed, sums, sumsStride, depths);
        }
        else
        {
            Tile256(first, Math.Min(1, last) * rowStep, Math.Min(2, last) * rowStep, Math.Min(3, last) * rowStep, Math.Min(4, last) * rowStep, Math.Min(5, last) * rowStep, a.ColumnStride, packed, sums, sumsStride, depths);
        }

        if (!whole)
        {
            Copy(sums, sumsStride, target, stride, rows, columns);
        }
    }

    private static void Begin(Start start, float* sums, long sumsStride, int row, int rows, int column, int columns)
    {
        for (var r = 0; r < rows; r++)
        {
            var sum = new Span<float>(sums + (r * sumsStride), columns);
            var residual = start.Residual is null ? default : new ReadOnlySpan<float>(start.Residual + ((row + r) * start.ResidualStride) + column, columns);
            var bias = start.Bias is null ? default : new ReadOnlySpan<float>(start.Bias + column, columns);
            if (!bias.IsEmpty && !residual.IsEmpty)
            {
                for (var j = 0; j < columns; j++)
                {
                    sum[j] = residual[j] + bias[j];
                }
            }
            else if (!bias.IsEmpty)
            {
                bias.CopyTo(sum);
            }
            else if (!residual.IsEmpty)
            {
                residual.CopyTo(sum);
            }
            else
            {
                sum.Clear();
            }
        }
    }

    private static void Copy(float* from, long fromStride, float* to, long toStride, int rows, int columns)
    {
        for (var r = 0; r < rows; r++)
        {
            new ReadOnlySpan<float>(from + (r * fromStride), columns).CopyTo(new Span<float>(to + (r * toStride), columns));
        }
    }

    [SkipLocalsInit]
    private static void Tile256(float* a, long r1, long r2, long r3, long r4, long r5, long columnStride, float* b, float* c, long stride, int depths)
    {
        float* c0 = c, c1 = c + stride, c2 = c1 + stride, c3 = c2 + stride, c4 = c3 + stride, c5 = c4 + stride;
        var s00 = Vector256.Load(c0);
        var s01 = Vector256.Load(c0 + 8);
        var s10 = Vector256.Load(c1);
        var s11 = Vector256.Load(c1 + 8);
        var s20 = Vector256.Load(c2);
        var s21 = Vector256.Load(c2 + 8);
        var s30 = Vector256.Load(c3);
        var s31 = Vector256.Load(c3 + 8);
        var s40 = Vector256.Load(c4);
        var s41 = Vector256.Load(c4 + 8);
        var s50 = Vector256.Load(c5);
        var s51 = Vector256.Load(c5 + 8);
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

    [SkipLocalsInit]
    private static void Tile512(float* a, long r1, long r2, long r3, long r4, long r5, long columnStride, float* b, float* c, long stride, int depths)
    {
        float* c0 = c, c1 = c + stride, c2 = c1 + stride, c3 = c2 + stride, c4 = c3 + stride, c5 = c4 + stride;
        var s00 = Vector512.Load(c0);
        var s01 = Vector512.Load(c0 + 16);
        var s10 = Vector512.Load(c1);
        var s11 = Vector512.Load(c1 + 16);
        var s20 = Vector512.Load(c2);
        var s21 = Vector512.Load(c2 + 16);
        var s30 = Vector512.Load(c3);
        var s31 = Vector512.Load(c3 + 16);
        var s40 = Vector512.Load(c4);
        var s41 = Vector512.Load(c4 + 16);
        var s50 = Vector512.Load(c5);
        var s51 = Vector512.Load(c5 + 16);
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

    // packed[k][tile] = b[depth + k, column + j], zeros beyond the edge.
    private static void Pack(Right b, int depth, int depths, int column, int columns, int tile, float* packed)
    {
        if (b.Transposed)
        {
            var j = 0;
            if (Avx2.IsSupported)
            {
                for (; j + 8 <= columns; j += 8)
                {
                    PackTransposed8(b, depth, depths, column + j, tile, packed + j);
                }
            }

            for (; j < tile; j++)
            {
                for (var k = 0; k < depths; k++)
                {
                    packed[((long)k * tile) + j] = j < columns ? Element(b, ((column + j) * b.Stride) + depth + k) : 0f;
                }
            }

            return;
        }

        for (var k = 0; k < depths; k++)
        {
            var row = ((depth + k) * b.Stride) + column;
            var target = packed + ((long)k * tile);
            var j = 0;
            for (; j + 8 <= columns; j += 8)
            {
                Load8(b, row + j).Store(target + j);
            }

            for (; j < tile; j++)
            {
                target[j] = j < columns ? Element(b, row + j) : 0f;
            }
        }
    }

    // Eight rows of the stored matrix become eight columns, 8 × 8 at a time.
    private static void PackTransposed8(Right b, int depth, int depths, int row, int tile, float* packed)
    {
        var k = 0;
        for (; k + 8 <= depths; k += 8)
        {
            var at = (row * b.Stride) + depth + k;
            var x0 = Load8(b, at);
            var x1 = Load8(b, at + b.Stride);
            var x2 = Load8(b, at + (2 * b.Stride));
            var x3 = Load8(b, at + (3 * b.Stride));
            var x4 = Load8(b, at + (4 * b.Stride));
            var x5 = Load8(b, at + (5 * b.Stride));
            var x6 = Load8(b, at + (6 * b.Stride));
            var x7 = Load8(b, at + (7 * b.Stride));
            var y0 = Avx.UnpackLow(x0, x1);
            var y1 = Avx.UnpackHigh(x0, x1);
            var y2 = Avx.UnpackLow(x2, x3);
            var y3 = Avx.UnpackHigh(x2, x3);
            var y4 = Avx.UnpackLow(x4, x5);
            var y5 = Avx.UnpackHigh(x4, x5);
            var y6 = Avx.UnpackLow(x6, x7);
            var y7 = Avx.UnpackHigh(x6, x7);
            x0 = Avx.Shuffle(y0, y2, 0x44);
            x1 = Avx.Shuffle(y0, y2, 0xEE);
            x2 = Avx.Shuffle(y1, y3, 0x44);
            x3 = Avx.Shuffle(y1, y3, 0xEE);
            x4 = Avx.Shuffle(y4, y6, 0x44);
            x5 = Avx.Shuffle(y4, y6, 0xEE);
            x6 = Avx.Shuffle(y5, y7, 0x44);
            x7 = Avx.Shuffle(y5, y7, 0xEE);
            var target = packed + ((long)k * tile);
            Avx.Permute2x128(x0, x4, 0x20).Store(target);
            Avx.Permute2x128(x1, x5, 0x20).Store(target + tile);
            Avx.Permute2x128(x2, x6, 0x20).Store(target + (2 * tile));
            Avx.Permute2x128(x3, x7, 0x20).Store(target + (3 * tile));
            Avx.Permute2x128(x0, x4, 0x31).Store(target + (4 * tile));
            Avx.Permute2x128(x1, x5, 0x31).Store(target + (5 * tile));
            Avx.Permute2x128(x2, x6, 0x31).Store(target + (6 * tile));
            Avx.Permute2x128(x3, x7, 0x31).Store(target + (7 * tile));
        }

        for (; k < depths; k++)
        {
            for (var j = 0; j < 8; j++)
            {
                packed[((long)k * tile) + j] = Element(b, ((row + j) * b.Stride) + depth + k);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Load8(Right b, long index) =>
        b.IsBFloat16
            ? Vector256.ShiftLeft(Vector256.WidenLower(Vector128.Load((ushort*)b.Data + index).ToVector256Unsafe()), 16).AsSingle()
            : Vector256.Load((float*)b.Data + index);

    private static float Element(Right b, long index) =>
        b.IsBFloat16 ? BitConverter.UInt32BitsToSingle((uint)((ushort*)b.Data)[index] << 16) : ((float*)b.Data)[index];
}
