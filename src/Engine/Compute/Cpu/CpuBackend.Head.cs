using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    // Rows whose logits exist at a time: bounded scratch, and enough rows for the product to run at speed.
    private const int HeadRows = 96;

    /// <inheritdoc/>
    protected override void LogProbCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<int> options, HeadResult result)
    {
        foreach (var option in new ReadOnlySpan<int>((int*)options.Address, options.Length))
        {
            CheckToken(option, head.Weight.Rows);
        }

        var job = new HeadJob
        {
            Targets = (LogProbRow*)rows.Address,
            OptionIds = (int*)options.Address,
            OptionCount = options.Length,
            Options = options.IsEmpty ? null : (float*)result.Options.Address,
        };
        RunHead(x, head, rows.Length, sizeof(LogProbRow), (byte*)rows.Address, result, &LogProbTask, ref job);
    }

    /// <inheritdoc/>
    protected override void SampleCore(Tensor x, HeadWeights head, View<SampleRow> rows, View<uint> masks, HeadResult result)
    {
        var words = (head.Weight.Rows + 31) / 32;
        var job = new HeadJob { Samples = (SampleRow*)rows.Address, Tokens = (int*)result.Token.Address, Masks = (uint*)masks.Address, MaskCount = masks.Length / words };
        RunHead(x, head, rows.Length, sizeof(SampleRow), (byte*)rows.Address, result, &SampleTask, ref job);
    }

    /// <inheritdoc/>
    protected override void LogProbBackwardCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<float> logSumExp, View<float> dLogProb, Tensor dx)
    {
        var (hidden, vocabulary) = (x.Columns, head.Weight.Rows);
        var row = (LogProbRow*)rows.Address;
        var dNormed = Borrow(Scratch.Gradient2, x.Length);
        new Span<float>(dNormed, checked((int)x.Length)).Clear();
        var gathered = Borrow(Scratch.Gather, (long)HeadRows * hidden);
        var logits = Borrow(Scratch.Logits, (long)HeadRows * vocabulary);
        for (var first = 0; first < rows.Length; first += HeadRows)
        {
            var count = Math.Min(HeadRows, rows.Length - first);
            GatherNormed(x, head.Norm, (byte*)(row + first), sizeof(LogProbRow), count, gathered);
            Multiply(new Left(gathered, hidden), TransposedWeight(head.Weight), default, logits, vocabulary, count, vocabulary, hidden);
            var job = new HeadJob
            {
                Logits = logits,
                Vocabulary = vocabulary,
                Targets = row + first,
                LogSumExp = (float*)logSumExp.Address + first,
                DLogProb = (float*)dLogProb.Address + first,
            };
            _threads.Run(count, &HeadBackwardTask, &job);
            Multiply(new Left(logits, vocabulary), Weight(head.Weight), default, gathered, hidden, count, hidden, vocabulary);

            // Several completions may start from the same row: their gradients add up, in the order of the list.
            for (var r = 0; r < count; r++)
            {
                float* to = dNormed + ((long)row[first + r].Row * hidden), from = gathered + ((long)r * hidden);
                for (var i = 0; i < hidden; i++)
                {
                    to[i] += from[i];
                }
            }
        }

        Clear(dx);
        NormalizeBackward(x, head.Norm, dNormed, (float*)dx.Address, (float*)dx.Address);
    }

    private struct HeadJob
    {
        public float* Logits;
        public int Vocabulary;
        public LogProbRow* Targets;
        public SampleRow* Samples;
        public int* Tokens;
        public float* LogProb;
        public float* Entropy;
        public float* LogSumExp;
        public float* DLogProb;
        public int* OptionIds;
        public int OptionCount;
        public float* Options;
        public uint* Masks;
        public int MaskCount;
        public int TopCount;
        public int* TopTokens;
        public float* TopLogProbs;
        public float* Noise;
    }

    // Both row types begin with the row's number.
    private void GatherNormed(Tensor x, Norm norm, byte* rows, int rowBytes, int count, float* gathered)
    {
        var hidden = x.Columns;
        var weight = Floats(norm.Weight, Scratch.Weights);
        var bias = Floats(norm.Bias, Scratch.Weights2);
        for (var r = 0; r < count; r++)
        {
            var row = *(int*)(rows + ((long)r * rowBytes));
            if ((uint)row >= (uint)x.Rows)
            {
                throw new ArgumentOutOfRangeException(nameof(rows), $"Head: row {row} of {x.Rows} was asked for.");
            }

            NormRow(norm.Kind, norm.Epsilon, weight, bias, (float*)x.Address + ((long)row * hidden), gathered + ((long)r * hidden), hidden);
        }
    }

    private void RunHead(Tensor x, HeadWeights head, int rows, int rowBytes, byte* row, HeadResult result, delegate*<void*, int, int, void> task, ref HeadJob job)
    {
        var (hidden, vocabulary) = (x.Columns, head.Weight.Rows);
        var gathered = Borrow(Scratch.Gather, (long)HeadRows * hidden);
        job.Logits = Borrow(Scratch.Logits, (long)HeadRows * vocabulary);
        job.Vocabulary = vocabulary;
        job.Noise = Borrow(Scratch.HeadRows, (long)_threads.Count * (vocabulary + Philox.WordsAtATime));
        job.LogProb = (float*)result.LogProb.Address;
        job.Entropy = (float*)result.Entropy.Address;
        job.LogSumExp = (float*)result.LogSumExp.Address;
        job.TopCount = result.TopToken.Length / Math.Max(1, rows);
        job.TopTokens = (int*)result.TopToken.Address;
        job.TopLogProbs = (float*)result.TopLogProb.Address;
        for (var first = 0; first < rows; first += HeadRows)
        {
            var count = Math.Min(HeadRows, rows - first);
            GatherNormed(x, head.Norm, row + ((long)first * rowBytes), rowBytes, count, gathered);
            Multiply(new Left(gathered, hidden), TransposedWeight(head.Weight), default, job.Logits, vocabulary, count, vocabulary, hidden);
            fixed (HeadJob* state = &job)
            {
                _threads.Run(count, task, state);
            }

            job.Targets += count;
            job.Samples += count;
            job.Tokens += count;
            job.LogProb += count;
            job.Entropy += count;
            job.LogSumExp = job.LogSumExp is null ? null : job.LogSumExp + count;
            job.Options = job.Options is null ? null : job.Options + ((long)count * job.OptionCount);
            job.TopTokens += (long)count * job.TopCount;
            job.TopLogProbs += (long)count * job.TopCount;
        }
    }

    private static void LogProbTask(void* state, int r, int worker)
    {
        ref var job = ref *(HeadJob*)state;
        var logits = job.Logits + ((long)r * job.Vocabulary);
        var target = job.Targets[r].Target;
        CheckToken(target, job.Vocabulary);
        var (logSumExp, entropy) = SoftMax(logits, job.Vocabulary, job.Targets[r].Temperature);
        job.LogProb[r] = logits[target] - logSumExp;
        job.Entropy[r] = entropy;
        job.LogSumExp[r] = logSumExp;
        for (var i = 0; i < job.OptionCount; i++)
        {
            job.Options[(r * job.OptionCount) + i] = logits[job.OptionIds[i]] - logSumExp;
        }

        Top(job, r, job.Targets[r].Top, logits, logSumExp);
    }

    private static void CheckToken(int token, int vocabulary)
    {
        if ((uint)token >= (uint)vocabulary)
        {
            throw new ArgumentOutOfRangeException(nameof(token), $"LogProb: token {token} of {vocabulary} was asked for.");
        }
    }

    // The soft-max's gradient, in place of the logits: (1[token = target] − p) · dlogp / temperature.
    private static void HeadBackwardTask(void* state, int r, int worker)
    {
        ref var job = ref *(HeadJob*)state;
        var logits = job.Logits + ((long)r * job.Vocabulary);
        var (target, temperature) = (job.Targets[r].Target, job.Targets[r].Temperature);
        var scale = job.DLogProb[r] / temperature;
        var inverse = Vector256.Create(1f / temperature);
        for (var i = 0; i < job.Vocabulary; i += Eight(job.Vocabulary, i))
        {
            var z = LoadUpTo8(logits + i, job.Vocabulary - i) * inverse;
            StoreUpTo8(VectorMath.Exp(z - Vector256.Create(job.LogSumExp[r])) * -scale, logits + i, job.Vocabulary - i);
        }

        logits[target] += scale;
    }

    /// <summary>Divides the logits by the temperature in place; returns log Σ exp and the entropy, summed in an order that depends on the vocabulary alone.</summary>
    private static (float LogSumExp, float Entropy) SoftMax(float* logits, int vocabulary, float temperature)
    {
        var inverse = Vector256.Create(1f / temperature);
        var largest = Vector256.Create(float.NegativeInfinity);
        var i = 0;
        for (; i + 8 <= vocabulary; i += 8)
        {
            var z = Vector256.Load(logits + i) * inverse;
            z.Store(logits + i);
            largest = Vector256.Max(largest, z);
        }

        var max = float.NegativeInfinity;
        for (var lane = 0; lane < 8; lane++)
        {
            max = MathF.Max(max, largest[lane]);
        }

        for (var j = i; j < vocabulary; j++)
        {
            logits[j] *= inverse[0];
            max = MathF.Max(max, logits[j]);
        }

        // Σ e and Σ e·(z − max): the entropy is log Σ e − Σ e·(z − max) / Σ e.
        var (sums, weighted) = (Vector256<float>.Zero, Vector256<float>.Zero);
        for (i = 0; i + 8 <= vocabulary; i += 8)
        {
            var z = Vector256.Load(logits + i) - Vector256.Create(max);
            var e = VectorMath.Exp(z);
            sums += e;
            weighted = Vector256.FusedMultiplyAdd(e, z, weighted);
        }

        var (sum, weight) = (Vector256.Sum(sums), Vector256.Sum(weighted));
        for (; i < vocabulary; i++)
        {
            var e = VectorMath.Exp(logits[i] - max);
            sum += e;
            weight = MathF.FusedMultiplyAdd(e, logits[i] - max, weight);
        }

        var log = MathF.Log(sum);
        if (!float.IsFinite(max + log))
        {
            throw Numbers.NotFinite();
        }

        return (max + log, log - (weight / sum));
    }
}
