namespace LrIad.Engine.Compute.Cuda;

internal sealed unsafe partial class CudaBackend
{
    /// <summary>Rows of a feed-forward block computed side by side, of the decoder's and of other ones: more make the products slower or no faster, and their scratch would grow without bound.</summary>
    private const int GatedRows = 2560;
    private const int FeedForwardRows = 4096;

    // As in native/kernels/qkv.cuh.
    private const int QkvAdapterThreads = 128;
    private const int QkvRoom = 2048;

    /// <summary>Rows that a block adds the adapter's part to; half as many where there are fewer rows than the second number.</summary>
    private const int QkvStrip = 32;
    private const int QkvManyRows = 1024;

    /// <inheritdoc/>
    protected override void EmbedCore(View<int> ids, Tensor table, Tensor features, Tensor x)
    {
        Activation(x, nameof(x));
        var args = new EmbedArgs(ids.Address, table.Address, Address(features), x.Address, x.Columns);
        if (_program.Takes(ids.Length))
        {
            _program.Begin(ids.Length);
            _program.Add(StepKind.Embed).Embed = new EmbedOp(args, ids.Length);
            return;
        }

        _kernels.Embed.Launch(Stream, args, ids.Length, 1, 128);
    }

    /// <inheritdoc/>
    protected override void LookUpPixelsCore(View<byte> levels, View<float> values, Tensor pixels)
    {
        var (frames, area) = ((int)(pixels.Length / levels.Length), (int)(levels.Length / (3 * pixels.Rows)));
        _kernels.Pixels.Launch(Stream, new PixelsArgs(levels.Address, values.Address, pixels.Address, pixels.Rows, area, frames), pixels.Rows, 1, 128);
    }

    /// <inheritdoc/>
    protected override void PatchEmbedCore(Tensor pixels, Tensor weight, Tensor x)
    {
        Activation(x, nameof(x));
        Multiply(new Linear(weight, default), pixels.Address, x.Rows, x.Address, weight.Rows);
    }

    /// <inheritdoc/>
    protected override void ProjectQkvCore(Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows, Tensor q, KvLayer kv, Tensor lowRank, View<uint> mask)
    {
        Activation(x, nameof(x));
        var count = x.Rows;
        var rank = adapter?.Rank ?? 0;
        var normed = Borrow(Scratch.Normed, x.Length * sizeof(ushort));
        var (queries, keys) = (weights.Query.Outputs, weights.Key.Outputs);
        var (tables, perHead) = (Tables(rotary), queries / keys);
        var (queryA, valueA, queryB, valueB) = (Address(adapter?.Query.A ?? default), Address(adapter?.Value.A ?? default), Address(adapter?.Query.B ?? default), Address(adapter?.Value.B ?? default));
        if (kv.HeadDim == 128 && lowRank.IsEmpty && dropout.Probability == 0 && IsPlain(weights.Norm) && _program.Takes(count, x.Columns))
        {
            _program.Begin(count);
            _program.Bring(rows.Address);
            var norm = _program.Normalize(x.Address, x.Columns, weights.Norm, normed, count, new ResidualOp { Rows = rows.Address, QueryA = queryA, ValueA = valueA, Rank = rank });
            var sums = _program.Multiply(normed, count, x.Columns, norm, weights.Query.Weight, weights.Key.Weight, weights.Value.Weight);
            _program.Add(StepKind.Rotate).Rotate = new RotateOp(
                sums, Address(weights.Query.Bias), Address(weights.Key.Bias), Address(weights.Value.Bias), q.Address, kv.Data.Address, rows.Address, tables.Axis.Address, tables.Frequency.Address,
                queryB, valueB, count, kv.Heads, perHead, rank);
            return;
        }

        var low = rank == 0 ? 0 : lowRank.IsEmpty ? Borrow(Scratch.LowRank, (long)count * 2 * rank * sizeof(float)) : lowRank.Address;
        Normalize(x, weights.Norm, normed, default, count);
        if (adapter is not null)
        {
            LowRankOf(adapter, dropout, rows, normed, x.Columns, low, mask);
        }

        var width = queries + (2 * keys);
        var qkv = Borrow(Scratch.Qkv, (long)count * width * sizeof(ushort));
        if (Joined(weights.Query, weights.Key, weights.Value) is { } all)
        {
            Multiply(all, normed, count, qkv, width);
        }
        else
        {
            Multiply(weights.Query, normed, count, qkv, width);
            Multiply(weights.Key, normed, count, qkv + (queries * sizeof(ushort)), width);
            Multiply(weights.Value, normed, count, qkv + ((queries + keys) * sizeof(ushort)), width);
        }

        var args = new QkvArgs(qkv, q.Address, kv.Data.Address, rows.Address, tables.Axis.Address, tables.Frequency.Address, low, queryB, valueB, kv.Heads, perHead, kv.HeadDim, rank);
        if (rank == 0)
        {
            _kernels.Qkv.Launch(Stream, args, count, 1, QkvThreads(kv, perHead));
            return;
        }

        // As many rows a block as their angles and low-rank values have room for, and as leave all multiprocessors some.
        var strip = Math.Max(1, Math.Min(count < QkvManyRows ? QkvStrip / 2 : QkvStrip, QkvRoom / Math.Max(kv.HeadDim / 2, 2 * rank)));
        _kernels.QkvAdapter.Launch(Stream, new QkvAdapterArgs(args, count, strip), Pieces(count, strip), Pieces(width, 16 * 32), QkvAdapterThreads);
    }

    // Several matrices as the one they lie in, if they do.
    private static Linear? Joined(params ReadOnlySpan<Linear> products)
    {
        static bool Follows(Tensor first, Tensor second) =>
            first.IsEmpty == second.IsEmpty && (first.IsEmpty || second.Address == first.Address + (first.Length * first.ElementBytes));
        var rows = products[0].Outputs;
        for (var i = 1; i < products.Length; i++)
        {
            if (!Follows(products[i - 1].Weight, products[i].Weight) || !Follows(products[i - 1].Bias, products[i].Bias))
            {
                return null;
            }

            rows += products[i].Outputs;
        }

        var (weight, bias) = (products[0].Weight with { Rows = rows }, products[0].Bias);
        return new Linear(weight, bias.IsEmpty ? bias : bias with { Columns = rows });
    }

    /// <inheritdoc/>
    protected override void ProjectOutCore(Tensor o, Linear weights, Tensor x, Tensor y)
    {
        Activation(x, nameof(x));
        if (weights.Bias.IsEmpty && y.Columns % 4 == 0 && _program.Takes(o.Rows, o.Columns))
        {
            _program.Begin(o.Rows);
            _program.AddTo(x.Address, _program.Multiply(o.Address, o.Rows, o.Columns, default, weights.Weight), y.Address, y.Rows, y.Columns);
            return;
        }

        Multiply(weights, o.Address, o.Rows, y.Address, y.Columns, residual: x.Address);
    }

    /// <inheritdoc/>
    protected override void FeedForwardCore(Tensor x, FeedForwardWeights weights, Tensor y, Tensor saved)
    {
        Activation(x, nameof(x));
        var (inner, kept) = (weights.Up.Outputs, weights.SavedColumns);
        if (saved.IsEmpty && weights.Gate is { } gate && IsPlain(weights.Norm) && _program.Takes(x.Rows, x.Columns, inner))
        {
            var (normed, h) = (Borrow(Scratch.Normed, x.Length * sizeof(ushort)), Borrow(Scratch.Activated, (long)x.Rows * inner * sizeof(ushort)));
            _program.Begin(x.Rows);
            var norm = _program.Normalize(x.Address, x.Columns, weights.Norm, normed, x.Rows, default);
            _program.Multiply(normed, x.Rows, x.Columns, norm, ProductFinish.Gated, h, gate.Weight, weights.Up.Weight);
            _program.AddTo(x.Address, _program.Multiply(h, x.Rows, inner, default, weights.Down.Weight), y.Address, y.Rows, y.Columns);
            return;
        }

        var piece = FeedForwardPiece(x.Rows, weights);
        for (var first = 0; first < x.Rows; first += piece)
        {
            var rows = Math.Min(piece, x.Rows - first);
            var (from, to) = (x.Slice(first, rows), y.Slice(first, rows));
            var normed = Borrow(Scratch.Normed, from.Length * sizeof(ushort));
            Normalize(from, weights.Norm, normed, default, rows);
            var hidden = saved.IsEmpty ? Borrow(Scratch.Hidden, (long)rows * kept * sizeof(ushort)) : saved.Slice(first, rows).Address;
            var activated = Borrow(Scratch.Activated, (long)rows * inner * sizeof(ushort));
            var both = weights.Gate is null ? null : Joined(weights.Gate, weights.Up);
            if (weights.Gate is null)
            {
                if (!saved.IsEmpty || !TryActivate(weights.Up, normed, rows, activated, ProductActivation.QuickGelu))
                {
                    Multiply(weights.Up, normed, rows, hidden, kept);
                    _kernels.Gelu.Launch(Stream, new GeluArgs(hidden, activated, (long)rows * inner, 1), Blocks((long)rows * inner / 32, 256), 1, 256);
                }
            }
            else if (both is null || !TryActivate(both, normed, rows, activated, ProductActivation.GatedSilu, saved.IsEmpty ? 0 : hidden))
            {
                if (both is not null)
                {
                    Multiply(both, normed, rows, hidden, kept);
                }
                else
                {
                    Multiply(weights.Gate, normed, rows, hidden, kept);
                    Multiply(weights.Up, normed, rows, hidden + (inner * sizeof(ushort)), kept);
                }

                _kernels.GatedSilu.Launch(Stream, new GatedSiluArgs(hidden, activated, rows, inner), Blocks((long)rows * inner / 32, 256), 1, 256);
            }

            Multiply(weights.Down, activated, rows, to.Address, to.Columns, residual: from.Address);
        }
    }

    /// <inheritdoc/>
    protected override void MergePatchesCore(Tensor x, MergerWeights weights, Tensor features)
    {
        Activation(x, nameof(x));
        var normed = Borrow(Scratch.Normed, x.Length * sizeof(ushort));
        Normalize(x, weights.Norm, normed, default, x.Rows);
        var count = (long)features.Rows * weights.First.Outputs;
        var (hidden, activated) = (Borrow(Scratch.Hidden, count * sizeof(ushort)), Borrow(Scratch.Activated, count * sizeof(ushort)));
        Multiply(weights.First, normed, features.Rows, hidden, weights.First.Outputs);
        _kernels.Gelu.Launch(Stream, new GeluArgs(hidden, activated, count, 0), Blocks(count / 32, 256), 1, 256);
        Multiply(weights.Second, activated, features.Rows, features.Address, features.Columns);
    }

    // All as large as each other.
    private static int FeedForwardPiece(int rows, FeedForwardWeights weights) => Pieces(rows, Math.Max(1, Pieces(rows, weights.Gate is null ? FeedForwardRows : GatedRows)));

    /// <summary>y = norm(x), of the rows themselves or of those that <paramref name="extra"/> gathers.</summary>
    private void Normalize(Tensor x, Norm norm, nint y, NormArgs extra, int rows) => _kernels.Norm.Launch(
        Stream,
        extra with { X = x.Address, Weight = norm.Weight.Address, Bias = Address(norm.Bias), Y = y, Count = rows, Columns = x.Columns, LayerNorm = norm.Kind == NormKind.Layer ? 1 : 0, Epsilon = norm.Epsilon },
        rows, 1, NormThreads(x.Columns));

    // A thread has 16 columns, where that does not take too many threads.
    private static int NormThreads(int columns) => Math.Clamp(((columns / 16) + 31) / 32 * 32, 32, 256);

    // A thread has 16 columns of a head, where that does not take too many threads.
    private static int QkvThreads(KvLayer kv, int perHead) => Math.Clamp(((kv.Heads * (perHead + 2) * kv.HeadDim / 16) + 31) / 32 * 32, 32, 384);

    // What programs of few rows know of norms.
    private static bool IsPlain(Norm norm) => norm.Kind == NormKind.RootMeanSquare && norm.Bias.IsEmpty && norm.Weight.Columns % 4 == 0;

    private RotaryTables Tables(Rotary rotary)
    {
        if (!_rotary.TryGetValue(rotary, out var tables))
        {
            var storage = CreateStorage(rotary.Axis.Length * 2 * sizeof(int), "rotary tables");
            tables = new RotaryTables(new View<int>(storage, 0, rotary.Axis.Length), new View<float>(storage, rotary.Axis.Length * sizeof(int), rotary.Axis.Length));
            Upload<int>(rotary.Axis, tables.Axis);
            Upload<float>(rotary.InverseFrequency, tables.Frequency);
            _rotary.Add(rotary, tables);
        }

        return tables;
    }

    // Vector loads want rows of whole 16-byte pieces.
    private void Activation(Tensor x, string operand)
    {
        Check.Type(ElementType.BFloat16, x, operand);
        if (x.Columns % 8 != 0)
        {
            throw new ArgumentException($"The CUDA backend needs rows of a multiple of 8 values; {operand} is {x}.");
        }

        _context.MakeCurrent();
    }
}
