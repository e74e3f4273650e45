using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    private struct NormJob
    {
        public NormKind Kind;
        public float Epsilon;
        public float* Weight;
        public float* Bias;
        public float* X;
        public float* Y;
        public float* Dy;
        public float* Residual;
        public int Rows;
        public int Columns;
    }

    /// <summary>y = norm(x), rows side by side.</summary>
    private void Normalize(Tensor x, Norm norm, float* y)
    {
        var job = NewNormJob(x, norm);
        job.Y = y;
        ForRows(x.Rows, &NormTask, &job);
    }

    /// <summary>dx = residual + ∂norm/∂xᵀ · dy. May work in place on either.</summary>
    private void NormalizeBackward(Tensor x, Norm norm, float* dy, float* residual, float* dx)
    {
        var job = NewNormJob(x, norm);
        job.Dy = dy;
        job.Residual = residual;
        job.Y = dx;
        ForRows(x.Rows, &NormBackwardTask, &job);
    }

    private NormJob NewNormJob(Tensor x, Norm norm) => new()
    {
        Kind = norm.Kind,
        Epsilon = norm.Epsilon,
        Weight = Floats(norm.Weight, Scratch.Weights),
        Bias = Floats(norm.Bias, Scratch.Weights2),
        X = (float*)x.Address,
        Rows = x.Rows,
        Columns = x.Columns,
    };

    private static void NormTask(void* state, int task, int worker)
    {
        ref var job = ref *(NormJob*)state;
        var columns = job.Columns;
        for (var row = task * RowsPerTask; row < Math.Min(job.Rows, (task + 1) * RowsPerTask); row++)
        {
            NormRow(job.Kind, job.Epsilon, job.Weight, job.Bias, job.X + ((long)row * columns), job.Y + ((long)row * columns), columns);
        }
    }

    private static void NormRow(NormKind kind, float epsilon, float* weight, float* bias, float* x, float* y, int columns)
    {
        var (mean, scale) = Moments(kind, epsilon, x, columns);
        for (var i = 0; i < columns; i++)
        {
            y[i] = MathF.FusedMultiplyAdd((x[i] - mean) * scale, weight[i], bias is null ? 0f : bias[i]);
        }
    }

    private static (float Mean, float Scale) Moments(NormKind kind, float epsilon, float* x, int columns)
    {
        var mean = kind == NormKind.Layer ? Sum(x, columns) / columns : 0f;
        var squares = Vector256<float>.Zero;
        var i = 0;
        for (; i + 8 <= columns; i += 8)
        {
            var d = Vector256.Load(x + i) - Vector256.Create(mean);
            squares = Vector256.FusedMultiplyAdd(d, d, squares);
        }

        var sum = Vector256.Sum(squares);
        for (; i < columns; i++)
        {
            sum = MathF.FusedMultiplyAdd(x[i] - mean, x[i] - mean, sum);
        }

        return (mean, 1f / MathF.Sqrt((sum / columns) + epsilon));
    }

    private static float Sum(float* x, int columns)
    {
        var sums = Vector256<float>.Zero;
        var i = 0;
        for (; i + 8 <= columns; i += 8)
        {
            sums += Vector256.Load(x + i);
        }

        var sum = Vector256.Sum(sums);
        for (; i < columns; i++)
        {
            sum += x[i];
        }

        return sum;
    }

    // With n = (x − mean)·s and g = w∘dy: dx = s·(g − mean(g)[layer norm only] − n·mean(g∘n)).
    private static void NormBackwardTask(void* state, int task, int worker)
    {
        ref var job = ref *(NormJob*)state;
        var columns = job.Columns;
        for (var row = task * RowsPerTask; row < Math.Min(job.Rows, (task + 1) * RowsPerTask); row++)
        {
            var at = (long)row * columns;
            float* x = job.X + at, dy = job.Dy + at, residual = job.Residual + at, dx = job.Y + at;
            var (mean, scale) = Moments(job.Kind, job.Epsilon, x, columns);
            float along = 0, level = 0;
            for (var i = 0; i < columns; i++)
            {
                var g = job.Weight[i] * dy[i];
                along = MathF.FusedMultiplyAdd(g, (x[i] - mean) * scale, along);
                level += g;
            }

            along /= columns;
            level = job.Kind == NormKind.Layer ? level / columns : 0f;
            for (var i = 0; i < columns; i++)
            {
                var g = job.Weight[i] * dy[i];
                dx[i] = MathF.FusedMultiplyAdd(scale, g - level - ((x[i] - mean) * scale * along), residual[i]);
            }
        }
    }
}
