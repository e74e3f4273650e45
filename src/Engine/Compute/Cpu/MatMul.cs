using System.Runtime.InteropServices;

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
/// so the FMA units bound it. A panel of 16 columns of the right factor, 384 deep, is packed into 24 KiB and stays in L1 while a task's
/// rows go by; packing costs as much as three or four rows.
/// </para>
/// </summary>
internal static unsafe class MatMul
{
    private const int TaskColumns = 64;
    private const int MostDepths = 384;

    // A task's rows, 384 deep, stay in L2 while the panels go by.
    private const int MostRows = 240;
    private const int FewestRows = 48;

    /// <summary>Floats of scratch memory that a worker needs.</summary>
    public const int ScratchFloats = (MatMulTile.MostColumns * MostDepths) + (MatMulTile.Rows * MatMulTile.MostColumns);

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
        public int TaskRows;
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

        // Enough tasks for all threads to end at about the same time, but none so low that packing weighs.
        var wanted = threads.Count == 1 ? 1 : 4 * threads.Count;
        var rowTasks = Math.Max(Tasks(m, MostRows), Math.Min(Tasks(wanted, Tasks(n, TaskColumns)), Tasks(m, FewestRows)));
        var taskRows = Tasks(Tasks(m, rowTasks), MatMulTile.Rows) * MatMulTile.Rows;
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
            TaskRows = taskRows,
            Scratch = scratch,
        };
        threads.Run(Tasks(m, taskRows) * Tasks(n, TaskColumns), &RunTask, &job);
    }

    private static int Tasks(int all, int most) => (all + most - 1) / most;

    private static void RunTask(void* state, int task, int worker)
    {
        ref var job = ref *(Job*)state;
        var (rows, columns) = Math.DivRem(task, Tasks(job.N, TaskColumns));
        var (row, column) = (rows * job.TaskRows, columns * TaskColumns);
        Group(
            job.Scratch[worker], job.A, job.B, job.Start, job.C, job.Stride,
            row, Math.Min(job.TaskRows, job.M - row), column, Math.Min(TaskColumns, job.N - column), job.K);
    }

    /// <summary>c[M, N] = start + a·b on the calling thread.</summary>
    public static void Block(float* scratch, Left a, Right b, Start start, float* c, long stride, int m, int n, int k)
    {
        for (var row = 0; row < m; row += MostRows)
        {
            for (var column = 0; column < n; column += TaskColumns)
            {
                Group(scratch, a, b, start, c, stride, row, Math.Min(MostRows, m - row), column, Math.Min(TaskColumns, n - column), k);
            }
        }
    }

    // Panel by panel: pack it, then go down the rows.
    private static void Group(float* scratch, Left a, Right b, Start start, float* c, long stride, int row, int rows, int column, int columns, int k)
    {
        var width = MatMulTile.Columns;
        // Parts of equal depth; over no depth at all the sums are still to be started.
        var parts = Math.Max(1, Tasks(k, MostDepths));
        var step = Math.Max(1, Tasks(Tasks(k, parts), 16)) * 16;
        for (var depth = 0; depth < Math.Max(1, k); depth += step)
        {
            var depths = Math.Min(step, k - depth);
            for (var panel = 0; panel < columns; panel += width)
            {
                var tileColumns = Math.Min(width, columns - panel);
                MatMulPacking.Pack(b, depth, depths, column + panel, tileColumns, width, scratch);
                for (int r = 0, tileRows; r < rows; r += tileRows)
                {
                    var height = MatMulTile.Height(rows - r);
                    tileRows = Math.Min(height, rows - r);
                    Tile(scratch, a, start, c, stride, height, row + r, tileRows, column + panel, tileColumns, depth, depths);
                }
            }
        }
    }

    private static void Tile(
        float* scratch, Left a, Start start, float* c, long stride, int height, int row, int rows, int column, int columns, int depth, int depths)
    {
        // A tile that sticks out over the edge is computed whole in a buffer of its own, the last row standing in for missing ones.
        var buffer = scratch + (MatMulTile.MostColumns * MostDepths);
        var target = c + (row * stride) + column;
        var whole = rows == height && columns == MatMulTile.Columns;
        var sums = whole ? target : buffer;
        var sumsStride = whole ? stride : MatMulTile.Columns;
        var fresh = depth == 0 && start.Bias is null && start.Residual is null;
        if (depth == 0 && !fresh && !(whole && start.Bias is null && start.Residual == c && start.ResidualStride == stride))
        {
            Begin(start, sums, sumsStride, row, rows, column, columns);
        }
        else if (!whole && !fresh)
        {
            Copy(target, stride, sums, sumsStride, rows, columns);
        }

        MatMulTile.Add(height, a.Data + (row * a.RowStride) + (depth * a.ColumnStride), a.RowStride, rows - 1, a.ColumnStride, scratch, sums, sumsStride, depths, fresh);
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
            else
            {
                (bias.IsEmpty ? residual : bias).CopyTo(sum);
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
}
