using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void ProjectOutCore(Tensor o, Linear weights, Tensor x, Tensor y) =>
        Apply(weights, Rows(o), o.Rows, (float*)y.Address, y.Columns, (float*)x.Address, x.Columns);

    /// <inheritdoc/>
    protected override void ProjectOutBackwardCore(Tensor dy, Linear weights, Tensor dO, Tensor roundedDy) =>
        Multiply(Rows(dy), Weight(weights.Weight), default, (float*)dO.Address, dO.Columns, dy.Rows, dO.Columns, dy.Columns);

    /// <inheritdoc/>
    protected override void FeedForwardCore(Tensor x, FeedForwardWeights weights, Tensor y, Tensor saved)
    {
        var (t, inputs, inner, columns) = (x.Rows, x.Columns, weights.Up.Outputs, weights.SavedColumns);
        var normed = Borrow(Scratch.Normed, (long)t * inputs);
        var pre = saved.IsEmpty ? Borrow(Scratch.Hidden, (long)t * columns) : (float*)saved.Address;
        var hidden = Borrow(Scratch.Gradient, (long)t * inner);
        Normalize(x, weights.Norm, normed);
        if (weights.Gate is { } gate)
        {
            Apply(gate, new Left(normed, inputs), t, pre, columns);
        }

        Apply(weights.Up, new Left(normed, inputs), t, pre + (columns - inner), columns);
        var job = new ActivationJob { Kind = weights.Kind, Pre = pre, Out = hidden, Rows = t, Inner = inner, Columns = columns };
        ForRows(t, &ActivationTask, &job);
        Apply(weights.Down, new Left(hidden, inner), t, (float*)y.Address, y.Columns, (float*)x.Address, x.Columns);
    }

    /// <inheritdoc/>
    protected override void FeedForwardBackwardCore(Tensor x, FeedForwardWeights weights, Tensor saved, Tensor dy, Tensor dx, Tensor roundedDy, Tensor roundedDx)
    {
        var (t, inputs, inner, columns) = (x.Rows, x.Columns, weights.Up.Outputs, weights.SavedColumns);
        var dHidden = Borrow(Scratch.Gradient, (long)t * inner);
        Multiply(Rows(dy), Weight(weights.Down.Weight), default, dHidden, inner, t, inner, weights.Down.Outputs);

        var dPre = Borrow(Scratch.Hidden, (long)t * columns);
        var job = new ActivationJob { Kind = weights.Kind, Pre = (float*)saved.Address, D = dHidden, Out = dPre, Rows = t, Inner = inner, Columns = columns };
        ForRows(t, &ActivationBackwardTask, &job);

        var dNormed = Borrow(Scratch.Gradient2, (long)t * inputs);
        Multiply(new Left(dPre + (columns - inner), columns), Weight(weights.Up.Weight), default, dNormed, inputs, t, inputs, inner);
        if (weights.Gate is { } gate)
        {
            Multiply(new Left(dPre, columns), Weight(gate.Weight), new Start(null, dNormed, inputs), dNormed, inputs, t, inputs, inner);
        }

        NormalizeBackward(x, weights.Norm, dNormed, (float*)dy.Address, (float*)dx.Address);
    }

    private struct ActivationJob
    {
        public FeedForwardKind Kind;
        public float* Pre;
        public float* D;
        public float* Out;
        public int Rows;
        public int Inner;
        public int Columns;
    }

    private static void ActivationTask(void* state, int task, int worker)
    {
        ref var job = ref *(ActivationJob*)state;
        for (var row = task * RowsPerTask; row < Math.Min(job.Rows, (task + 1) * RowsPerTask); row++)
        {
            float* pre = job.Pre + ((long)row * job.Columns), y = job.Out + ((long)row * job.Inner);
            if (job.Kind == FeedForwardKind.GatedSilu)
            {
                for (var i = 0; i < job.Inner; i += Eight(job.Inner, i))
                {
                    var (z, up) = (LoadUpTo8(pre + i, job.Inner - i), LoadUpTo8(pre + job.Inner + i, job.Inner - i));
                    StoreUpTo8(z * VectorMath.Sigmoid(z) * up, y + i, job.Inner - i);
                }
            }
            else
            {
                for (var i = 0; i < job.Inner; i += Eight(job.Inner, i))
                {
                    var z = LoadUpTo8(pre + i, job.Inner - i);
                    StoreUpTo8(z * VectorMath.Sigmoid(1.702f * z), y + i, job.Inner - i);
                }
            }
        }
    }

    private static void ActivationBackwardTask(void* state, int task, int worker)
    {
        ref var job = ref *(ActivationJob*)state;
        var one = Vector256<float>.One;
        for (var row = task * RowsPerTask; row < Math.Min(job.Rows, (task + 1) * RowsPerTask); row++)
        {
            float* pre = job.Pre + ((long)row * job.Columns), d = job.D + ((long)row * job.Inner), y = job.Out + ((long)row * job.Columns);
            if (job.Kind == FeedForwardKind.GatedSilu)
            {
                for (var i = 0; i < job.Inner; i += Eight(job.Inner, i))
                {
                    var left = job.Inner - i;
                    var (z, up, dh) = (LoadUpTo8(pre + i, left), LoadUpTo8(pre + job.Inner + i, left), LoadUpTo8(d + i, left));
                    var s = VectorMath.Sigmoid(z);
                    StoreUpTo8(dh * up * s * (one + (z * (one - s))), y + i, left);
                    StoreUpTo8(dh * z * s, y + job.Inner + i, left);
                }
            }
            else
            {
                for (var i = 0; i < job.Inner; i += Eight(job.Inner, i))
                {
                    var left = job.Inner - i;
                    var z = LoadUpTo8(pre + i, left);
                    var s = VectorMath.Sigmoid(1.702f * z);
                    StoreUpTo8(LoadUpTo8(d + i, left) * s * (one + (1.702f * z * (one - s))), y + i, left);
                }
            }
        }
    }

    private static int Eight(int columns, int i) => Math.Min(8, columns - i);

    // The last, short vector goes the same way as the others, so that an element's value does not depend on where it stands.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> LoadUpTo8(float* from, int count) => count >= 8 ? Vector256.Load(from) : LoadPart(from, count);

    private static Vector256<float> LoadPart(float* from, int count)
    {
        var buffer = stackalloc float[8];
        Vector256<float>.Zero.Store(buffer);
        new ReadOnlySpan<float>(from, count).CopyTo(new Span<float>(buffer, 8));
        return Vector256.Load(buffer);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreUpTo8(Vector256<float> values, float* to, int count)
    {
        if (count >= 8)
        {
            values.Store(to);
        }
        else
        {
            StorePart(values, to, count);
        }
    }

    private static void StorePart(Vector256<float> values, float* to, int count)
    {
        var buffer = stackalloc float[8];
        values.Store(buffer);
        new ReadOnlySpan<float>(buffer, count).CopyTo(new Span<float>(to, count));
    }
}
