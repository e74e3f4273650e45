namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void EmbedCore(View<int> ids, Tensor table, Tensor features, Tensor x)
    {
        var id = (int*)ids.Address;
        for (var t = 0; t < ids.Length; t++)
        {
            var (from, row) = id[t] >= 0 ? (table, id[t]) : (features, -id[t] - 1);
            if (row >= from.Rows)
            {
                throw new ArgumentOutOfRangeException(nameof(ids), $"Embed: row {t} names {(id[t] >= 0 ? "token" : "image feature")} {row} of {from.Rows}.");
            }

            var target = new Span<float>((float*)x.Address + ((long)t * x.Columns), x.Columns);
            if (from.Type == ElementType.Float32)
            {
                new ReadOnlySpan<float>((float*)from.Address + ((long)row * x.Columns), x.Columns).CopyTo(target);
            }
            else
            {
                Numbers.FromBFloat16((ushort*)from.Address + ((long)row * x.Columns), target);
            }
        }
    }

    /// <inheritdoc/>
    protected override void LookUpPixelsCore(View<byte> levels, View<float> values, Tensor pixels)
    {
        var level = (byte*)levels.Address;
        var (frames, area) = ((int)(pixels.Length / levels.Length), levels.Length / (3 * pixels.Rows));
        for (var plane = 0L; plane < 3L * pixels.Rows; plane++)
        {
            float* of = (float*)values.Address + (plane % 3 * 256), to = (float*)pixels.Address + (plane * frames * area);
            for (var i = 0L; i < frames * area; i++)
            {
                to[i] = of[level[(plane * area) + (i % area)]];
            }
        }
    }

    /// <inheritdoc/>
    protected override void PatchEmbedCore(Tensor pixels, Tensor weight, Tensor x) =>
        Multiply(Rows(pixels), TransposedWeight(weight), default, (float*)x.Address, x.Columns, x.Rows, x.Columns, pixels.Columns);

    /// <inheritdoc/>
    protected override void MergePatchesCore(Tensor x, MergerWeights weights, Tensor features)
    {
        var (rows, inner) = (features.Rows, weights.First.Outputs);
        var normed = Borrow(Scratch.Normed, x.Length);
        var hidden = Borrow(Scratch.Hidden, (long)rows * inner);
        Normalize(x, weights.Norm, normed);
        Apply(weights.First, new Left(normed, weights.First.Inputs), rows, hidden, inner);
        var job = new ActivationJob { Pre = hidden, Out = hidden, Rows = rows, Inner = inner, Columns = inner };
        ForRows(rows, &GeluTask, &job);
        Apply(weights.Second, new Left(hidden, inner), rows, (float*)features.Address, features.Columns);
    }

    private static void GeluTask(void* state, int task, int worker)
    {
        ref var job = ref *(ActivationJob*)state;
        for (var row = task * RowsPerTask; row < Math.Min(job.Rows, (task + 1) * RowsPerTask); row++)
        {
            float* pre = job.Pre + ((long)row * job.Columns), y = job.Out + ((long)row * job.Inner);
            for (var i = 0; i < job.Inner; i += Eight(job.Inner, i))
            {
                StoreUpTo8(VectorMath.Gelu(LoadUpTo8(pre + i, job.Inner - i)), y + i, job.Inner - i);
            }
        }
    }
}
