namespace LrIad.Engine.Compute.Cuda;

// The chain rule, as the decoder needs it; native/kernels/backward.cuh. Weights are frozen: only x and the adapter's factors get gradients.
internal sealed unsafe partial class CudaBackend
{
    /// <inheritdoc/>
    protected override void LogProbBackwardCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<float> logSumExp, View<float> dLogProb, Tensor dx)
    {
        Activation(x, nameof(x));
        var (columns, vocabulary) = (x.Columns, head.Weight.Rows);
        var weight = new Linear(head.Weight, default);
        Clear(dx);
        for (var first = 0; first < rows.Length; first += ScoredRows)
        {
            var chunk = rows.Slice(first, Math.Min(ScoredRows, rows.Length - first));
            var count = chunk.Length;
            var normed = Borrow(Scratch.Normed, (long)count * columns * sizeof(ushort));
            var logits = Borrow(Scratch.Logits, (long)count * vocabulary * sizeof(float));
            var dLogits = Borrow(Scratch.DLogits, (long)count * vocabulary * sizeof(ushort));
            Normalize(x, head.Norm, normed, new NormArgs { Gather = chunk.Address, GatherStride = sizeof(LogProbRow) }, count);
            Multiply(weight, normed, count, logits, vocabulary, float32: true);
            _kernels.HeadBackward.Launch(
                Stream, new HeadBackwardArgs(logits, chunk.Address, logSumExp.Slice(first, count).Address, dLogProb.Slice(first, count).Address, dLogits, vocabulary), count, HeadSplits / 2, 256);

            // The rows of the norm's output are no longer needed: their gradients take their place.
            MultiplyBack(weight, dLogits, count, normed);
            NormalizeBackward(x, head.Norm, normed, dx, dx, new NormBackwardArgs { Gather = chunk.Address, GatherStride = sizeof(LogProbRow) }, count);
        }
    }

    /// <inheritdoc/>
    protected override void FeedForwardBackwardCore(Tensor x, FeedForwardWeights weights, Tensor saved, Tensor dy, Tensor dx, Tensor roundedDy, Tensor roundedDx)
    {
        Activation(x, nameof(x));
        if (weights.Gate is not { } gate)
        {
            throw new NotSupportedException("The CUDA backend trains the decoder's gated feed-forward blocks alone.");
        }

        var (inner, columns) = (weights.Up.Outputs, x.Columns);
        var piece = FeedForwardPiece(x.Rows, weights);
        for (var first = 0; first < x.Rows; first += piece)
        {
            var rows = Math.Min(piece, x.Rows - first);
            var rounded = roundedDy.IsEmpty ? Rounded(dy.Slice(first, rows)) : roundedDy.Slice(first, rows).Address;
            var dh = Borrow(Scratch.Activated, (long)rows * inner * sizeof(ushort));
            MultiplyBack(weights.Down, rounded, rows, dh);
            var dHidden = Borrow(Scratch.Hidden, (long)rows * 2 * inner * sizeof(ushort));
            _kernels.GatedSiluBackward.Launch(
                Stream, new GatedSiluBackwardArgs(saved.Slice(first, rows).Address, dh, dHidden, rows, inner), Blocks((long)rows * inner / 16, 256), 1, 256);
            var dNormed = Borrow(Scratch.Normed, (long)rows * columns * sizeof(ushort));
            MultiplyBack([gate, weights.Up], dHidden, rows, dNormed);
            NormalizeBackward(x.Slice(first, rows), weights.Norm, dNormed, dy.Slice(first, rows), dx.Slice(first, rows), new NormBackwardArgs { Rounded = roundedDx.IsEmpty ? 0 : roundedDx.Slice(first, rows).Address }, rows);
        }
    }

    /// <inheritdoc/>
    protected override void ProjectOutBackwardCore(Tensor dy, Linear weights, Tensor dO, Tensor roundedDy)
    {
        Activation(dO, nameof(dO));
        MultiplyBack(weights, roundedDy.IsEmpty ? Rounded(dy) : roundedDy.Address, dy.Rows, dO.Address);
    }

    /// <inheritdoc/>
    protected override void ProjectQkvBackwardCore(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows,
        Tensor lowRank, Tensor dq, KvLayer dKv, Tensor dy, Tensor dx, AdapterLayer? gradient, Tensor roundedDx, View<uint> mask)
    {
        Activation(x, nameof(x));
        var (count, queries, keys) = (x.Rows, weights.Query.Outputs, weights.Key.Outputs);
        var (tables, perHead, width) = (Tables(rotary), queries / keys, queries + (2 * keys));
        var dQkv = Borrow(Scratch.Qkv, (long)count * width * sizeof(ushort));
        _kernels.QkvBackward.Launch(
            Stream, new QkvBackwardArgs(dq.Address, dKv.Data.Address, dQkv, rows.Address, tables.Axis.Address, tables.Frequency.Address, dKv.Heads, perHead, dKv.HeadDim),
            count, 1, QkvThreads(dKv, perHead));
        var dNormed = Borrow(Scratch.DNormed, x.Length * sizeof(ushort));
        MultiplyBack([weights.Query, weights.Key, weights.Value], dQkv, count, dNormed);
        if (adapter is not null)
        {
            var normed = Borrow(Scratch.Normed, x.Length * sizeof(ushort));
            Normalize(x, weights.Norm, normed, default, count);
            LowRankBackward(adapter, gradient!, dropout, rows, mask, lowRank.Address, normed, x.Columns, dQkv, dNormed);
        }

        NormalizeBackward(x, weights.Norm, dNormed, dy, dx, new NormBackwardArgs { Rounded = Address(roundedDx) }, count);
    }

    /// <summary>dx = residual + ∂norm/∂xᵀ · dy, of the rows themselves or of those that <paramref name="extra"/> gathers.</summary>
    private void NormalizeBackward(Tensor x, Norm norm, nint dy, Tensor residual, Tensor dx, NormBackwardArgs extra, int rows)
    {
        if (norm.Kind != NormKind.RootMeanSquare || !norm.Bias.IsEmpty)
        {
            throw new NotSupportedException("The CUDA backend trains through RMS norms alone, as the decoder has them.");
        }

        _kernels.NormBackward.Launch(
            Stream,
            extra with { X = x.Address, Weight = norm.Weight.Address, Dy = dy, Residual = residual.Address, Dx = dx.Address, Count = rows, Columns = x.Columns, Epsilon = norm.Epsilon },
            rows, 1, NormThreads(x.Columns));
    }

    // A product takes bfloat16.
    private nint Rounded(Tensor gradient)
    {
        var rounded = Borrow(Scratch.Rounded, gradient.Length * sizeof(ushort));
        _kernels.Convert.Launch(Stream, new ConvertArgs(gradient.Address, rounded, gradient.Length), Blocks(gradient.Length, 256), 1, 256);
        return rounded;
    }
}
