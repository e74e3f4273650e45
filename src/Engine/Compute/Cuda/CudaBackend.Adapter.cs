namespace LrIad.Engine.Compute.Cuda;

// The low-rank half of the adapter over many rows; native/kernels/adapter.cuh.
internal sealed unsafe partial class CudaBackend
{
    /// <summary>Rows that one block goes through.</summary>
    private const int FactorRows = 32;

    /// <summary>Rows whose sums one block makes.</summary>
    private const int LowRankRows = 16;

    /// <summary>Columns that one block of a sum over rows has.</summary>
    private const int GradientColumns = 512;

    /// <summary>Parts that a sum over rows is cut into, at most.</summary>
    private const int GradientSplits = 64;

    /// <summary>t = A·dropout(x̂) of query, then value; 0 for rows without adapter.</summary>
    private void LowRankOf(AdapterLayer adapter, Dropout dropout, View<TokenRow> rows, nint normed, int columns, nint t, View<uint> mask)
    {
        var (query, value) = Masks(dropout, rows, columns, mask, drawn: false);
        LaunchLowRank(
            new LowRankSide(adapter.Query.A.Address, query, 0, columns, columns, 1), new LowRankSide(adapter.Value.A.Address, value, 0, columns, columns, 1),
            normed, columns, rows, t, adapter.Rank, Scale(dropout));
    }

    /// <summary>
    /// The gradients of all four factors, added to <paramref name="gradient"/>, and that of the norm's output, added to <paramref name="dNormed"/>, from rows of
    /// dq | dk | dv with respect to the products.
    /// </summary>
    private void LowRankBackward(AdapterLayer adapter, AdapterLayer gradient, Dropout dropout, View<TokenRow> rows, View<uint> mask, nint t, nint normed, int columns, nint dQkv, nint dNormed)
    {
        var (count, rank, queries, values) = (rows.Length, adapter.Rank, adapter.Query.B.Rows, adapter.Value.B.Rows);
        var width = queries + (2 * values);
        var (query, value) = Masks(dropout, rows, columns, mask, drawn: !mask.IsEmpty);

        // dB = dyᵀ·t and dt = dy·B, a product's columns each; then dA = dtᵀ·dropout(x̂) and dx̂ += dropout(dt·A).
        FactorSide B(Tensor b, int offset) => new(b.Address, 0, 0, offset, b.Rows, 1, rank);
        AddFactorGradient(B(gradient.Query.B, 0), B(gradient.Value.B, queries + values), dQkv, width, count, t, rank, 1);

        var dt = Borrow(Scratch.LowRank, (long)count * 2 * rank * sizeof(float));
        LowRankSide Side(Tensor b, int offset) => new(b.Address, 0, offset, b.Rows, 1, rank);
        LaunchLowRank(Side(adapter.Query.B, 0), Side(adapter.Value.B, queries + values), dQkv, width, rows, dt, rank, 1);

        FactorSide A(Tensor a, nint mask) => new(a.Address, mask, 0, 0, columns, columns, 1);
        AddFactorGradient(A(gradient.Query.A, query), A(gradient.Value.A, value), normed, columns, count, dt, rank, Scale(dropout));
        _kernels.LowRankBackward.Launch(
            Stream, new LowRankBackwardArgs(dNormed, dt, adapter.Query.A.Address, adapter.Value.A.Address, query, value, count, columns, rank, Scale(dropout)),
            Blocks(columns, GradientColumns), Blocks(count, FactorRows), GradientColumns / 8);
    }

    private static float Scale(Dropout dropout) => 1 / (1 - dropout.Probability);

    // A bit a channel that is kept, for query and value; none without dropout.
    private (nint Query, nint Value) Masks(Dropout dropout, View<TokenRow> rows, int columns, View<uint> kept, bool drawn)
    {
        if (dropout.Probability == 0)
        {
            return (0, 0);
        }

        var words = (columns + 31) / 32;
        var bytes = (long)rows.Length * words * sizeof(uint);
        var mask = kept.IsEmpty ? Borrow(Scratch.Mask, 2 * bytes) : kept.Slice(0, 2 * rows.Length * words).Address;
        if (!drawn)
        {
            var (key, counter, threshold) = Philox.DropoutCounters(dropout);
            _kernels.Dropout.Launch(Stream, new DropoutArgs(rows.Address, mask, (uint)key, (uint)(key >> 32), counter, (uint)dropout.Step, threshold, words), rows.Length, 2, 256);
        }

        return (mask, (nint)(mask + bytes));
    }

    private void LaunchLowRank(LowRankSide query, LowRankSide value, nint x, int stride, View<TokenRow> rows, nint result, int rank, float scale) =>
        _kernels.LowRank.Launch(Stream, new LowRankArgs(query, value, x, rows.Address, result, rows.Length, stride, rank, scale), 2 * Blocks(rows.Length, LowRankRows), 1, 256);

    private void AddFactorGradient(FactorSide query, FactorSide value, nint x, int stride, int count, nint s, int rank, float scale)
    {
        // Whole strips of rows, so that the sums depend on the number of rows alone.
        var splitRows = Math.Max(FactorRows, ((count + GradientSplits - 1) / GradientSplits + FactorRows - 1) / FactorRows * FactorRows);
        var splits = (count + splitRows - 1) / splitRows;
        var firstOfValue = (long)splits * rank * query.Columns;
        var partials = Borrow(Scratch.FactorPartials, (firstOfValue + ((long)splits * rank * value.Columns)) * sizeof(float));
        var args = new FactorGradientArgs(query, value with { FirstPartial = firstOfValue }, x, s, partials, count, stride, rank, splitRows, splits, scale);
        var columns = Math.Max(query.Columns, value.Columns);
        _kernels.FactorGradient.Launch(Stream, args, Blocks(columns, GradientColumns), 2 * splits, GradientColumns / 8);
        _kernels.FactorFinish.Launch(Stream, args, Blocks((long)rank * columns, 256), 2, 256);
    }
}
