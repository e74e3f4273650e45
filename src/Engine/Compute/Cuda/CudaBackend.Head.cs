namespace LrIad.Engine.Compute.Cuda;

internal sealed unsafe partial class CudaBackend
{
    /// <summary>Rows to draw from whose logits are in memory at a time.</summary>
    private const int DrawnRows = 256;

    /// <summary>Rows to score whose logits are in memory at a time: enough for the products to run at speed.</summary>
    private const int ScoredRows = 1024;

    /// <summary>Parts that a row's vocabulary is looked at in: always the same, so that a row's sums do not depend on how many others there are.</summary>
    private const int HeadSplits = 32;

    /// <inheritdoc/>
    protected override void LogProbCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<int> options, HeadResult result)
    {
        for (var first = 0; first < rows.Length; first += ScoredRows)
        {
            var chunk = rows.Slice(first, Math.Min(ScoredRows, rows.Length - first));
            RunHead(x, head, chunk.Address, sizeof(LogProbRow), chunk.Length, Results(result, first, rows.Length) with { Targets = chunk.Address, Options = options.Address, OptionCount = options.Length });
        }
    }

    /// <inheritdoc/>
    protected override void SampleCore(Tensor x, HeadWeights head, View<SampleRow> rows, View<uint> masks, HeadResult result)
    {
        for (var first = 0; first < rows.Length; first += DrawnRows)
        {
            var chunk = rows.Slice(first, Math.Min(DrawnRows, rows.Length - first));
            RunHead(x, head, chunk.Address, sizeof(SampleRow), chunk.Length, Results(result, first, rows.Length) with { Samples = chunk.Address, Masks = masks.IsEmpty ? 0 : masks.Address });
        }
    }

    private static HeadArgs Results(HeadResult result, int first, int rows)
    {
        var top = result.TopToken.Length / Math.Max(1, rows);
        nint From(nint address, int columns = 1) => address == 0 ? 0 : address + ((nint)first * columns * sizeof(float));
        return new HeadArgs
        {
            Token = From(result.Token.Address),
            LogProb = From(result.LogProb.Address),
            Entropy = From(result.Entropy.Address),
            LogSumExp = From(result.LogSumExp.Address),
            OptionLogProb = From(Address(result.Options), result.Options.Columns),
            TopToken = From(result.TopToken.Address, top),
            TopLogProb = From(result.TopLogProb.Address, top),
            TopCount = top,
        };
    }

    // Both row types begin with the row's number.
    private void RunHead(Tensor x, HeadWeights head, nint rows, int rowBytes, int count, HeadArgs args)
    {
        Activation(x, nameof(x));
        var vocabulary = head.Weight.Rows;
        var normed = Borrow(Scratch.Normed, (long)count * x.Columns * sizeof(ushort));
        var logits = Borrow(Scratch.Logits, (long)count * vocabulary * sizeof(float));
        // What is scored may be trained on: the backward pass makes the same logits once more, from the same products.
        if (args.Samples != 0 && IsPlain(head.Norm) && vocabulary % 4 == 0 && _program.Takes(count, x.Columns))
        {
            _program.Begin(count);
            var norm = _program.Normalize(x.Address, x.Columns, head.Norm, normed, count, new ResidualOp { Gather = rows, GatherStride = rowBytes });
            _program.Multiply(normed, count, x.Columns, norm, ProductFinish.Floats, logits, head.Weight);
        }
        else
        {
            Normalize(x, head.Norm, normed, new NormArgs { Gather = rows, GatherStride = rowBytes }, count);
            Multiply(new Linear(head.Weight, default), normed, count, logits, vocabulary, float32: true);
        }

        args = args with
        {
            Logits = logits,
            Vocabulary = vocabulary,
            Splits = HeadSplits,
            Parts = Borrow(Scratch.HeadParts, (long)count * HeadSplits * sizeof(HeadPart)),
            Floor = Borrow(Scratch.HeadFloor, count * sizeof(float)),
            LastTied = Borrow(Scratch.HeadLastTied, count * sizeof(int)),
        };
        if (args.Samples != 0)
        {
            var truncate = args.Masks == 0 ? _kernels.HeadTruncate : _kernels.HeadTruncateMasked;
            truncate.Launch(Stream, args, count, 1, 1024);
        }

        (args.Samples == 0 ? _kernels.HeadScored : _kernels.HeadParts).Launch(Stream, args, count, HeadSplits, 256);
        if (args.TopCount > 0)
        {
            _kernels.HeadTop.Launch(Stream, args, count, 1, 1024);
        }

        _kernels.HeadFinish.Launch(Stream, args, count, 1, 32);
    }
}
