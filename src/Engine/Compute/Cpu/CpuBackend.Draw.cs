using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    private static void SampleTask(void* state, int r, int worker)
    {
        ref var job = ref *(HeadJob*)state;
        var logits = job.Logits + ((long)r * job.Vocabulary);
        var row = job.Samples[r];
        var greedy = row.Temperature == 0;
        var (logSumExp, entropy) = SoftMax(logits, job.Vocabulary, greedy ? 1f : row.Temperature);
        var noise = job.Noise + ((long)worker * (job.Vocabulary + Philox.WordsAtATime));
        Top(job, r, row.Top, logits, logSumExp);
        var drawn = row.Mask < 0 ? logSumExp : Forbid(job, row.Mask, logits);
        var token = greedy ? ArgMax(logits, job.Vocabulary) : Draw(logits, job.Vocabulary, drawn, row, noise);
        job.Tokens[r] = token;
        job.LogProb[r] = logits[token] - logSumExp;
        job.Entropy[r] = entropy;
    }

    /// <summary>The row's likeliest tokens, kept in order while the vocabulary passes by.</summary>
    private static void Top(in HeadJob job, int r, int wanted, float* logits, float logSumExp)
    {
        wanted = Math.Min(wanted, Math.Min(job.TopCount, job.Vocabulary));
        var tokens = job.TopTokens + ((long)r * job.TopCount);
        var logProbs = job.TopLogProbs + ((long)r * job.TopCount);
        for (var (token, count) = (0, 0); wanted > 0 && token < job.Vocabulary; token++)
        {
            if (count == wanted && logits[token] <= logits[tokens[count - 1]])
            {
                continue;
            }

            count = Math.Min(count + 1, wanted);
            var at = count - 1;
            for (; at > 0 && logits[token] > logits[tokens[at - 1]]; at--)
            {
                tokens[at] = tokens[at - 1];
            }

            tokens[at] = token;
        }

        for (var i = 0; i < wanted; i++)
        {
            logProbs[i] = logits[tokens[i]] - logSumExp;
        }
    }

    /// <summary>Takes what a mask does not allow out of the running; returns log Σ exp of the rest, so that its probabilities add up to 1.</summary>
    private static float Forbid(in HeadJob job, int mask, float* logits)
    {
        if (mask >= job.MaskCount)
        {
            throw new ArgumentOutOfRangeException(nameof(mask), $"Sample: mask {mask} of {job.MaskCount} was asked for.");
        }

        var bits = job.Masks + ((long)mask * ((job.Vocabulary + 31) / 32));
        var (max, sum) = (float.NegativeInfinity, 0.0);
        for (var token = 0; token < job.Vocabulary; token++)
        {
            if ((bits[token / 32] >> (token % 32) & 1) == 0)
            {
                logits[token] = float.NegativeInfinity;
            }

            max = MathF.Max(max, logits[token]);
        }

        if (max == float.NegativeInfinity)
        {
            throw new ArgumentException("Sample: a mask allows no token.", nameof(mask));
        }

        for (var token = 0; token < job.Vocabulary; token++)
        {
            sum += logits[token] == float.NegativeInfinity ? 0 : Math.Exp((double)logits[token] - max);
        }

        return max + (float)Math.Log(sum);
    }

    private static int ArgMax(float* values, int count)
    {
        var best = 0;
        for (var i = 1; i < count; i++)
        {
            if (values[i] > values[best])
            {
                best = i;
            }
        }

        return best;
    }

    private static int Draw(float* logits, int vocabulary, float logSumExp, SampleRow row, float* noisy)
    {
        var floor = Truncate(logits, vocabulary, logSumExp, row.TopK, row.TopP, noisy, out var tied);
        var key = row.SeedLow | ((ulong)row.SeedHigh << 32);
        Span<uint> words = stackalloc uint[Philox.WordsAtATime];
        for (var i = 0; i < vocabulary; i += Philox.WordsAtATime)
        {
            Philox.Words32(key, (uint)(i / 4), row.Position, row.Sample, 0, words);
            for (var j = 0; j < Philox.WordsAtATime && i + j < vocabulary; j += 8)
            {
                // The buffer reaches past the vocabulary; what is beyond is not looked at.
                var z = LoadUpTo8(logits + i + j, vocabulary - i - j);
                (z + Philox.Gumbel(Vector256.Create<uint>(words.Slice(j, 8)))).Store(noisy + i + j);
            }
        }

        var (best, key2) = (-1, float.NegativeInfinity);
        for (var i = 0; i < vocabulary; i++)
        {
            var kept = logits[i] > floor || (logits[i] == floor && tied-- > 0);
            if (kept && (noisy[i] > key2 || best < 0))
            {
                (best, key2) = (i, noisy[i]);
            }
        }

        return best;
    }

    /// <summary>
    /// The smallest logit that top-k, then top-p leave; of the tokens that have exactly this logit, the first <paramref name="tied"/> stay.
    /// </summary>
    private static float Truncate(float* logits, int vocabulary, float logSumExp, int topK, float topP, float* buffer, out int tied)
    {
        tied = int.MaxValue;
        if ((topK <= 0 || topK >= vocabulary) && topP >= 1f)
        {
            return float.NegativeInfinity;
        }

        var sorted = MostLikely(logits, vocabulary, logSumExp, topK, topP, buffer);
        var kept = topK > 0 ? Math.Min(topK, sorted.Length) : sorted.Length;
        if (topP < 1f)
        {
            // Probabilities of what top-k left add up to 1 again before top-p looks at them.
            var enough = topP * (topK > 0 ? Mass(sorted[..kept], logSumExp) : 1.0);
            double sum = 0;
            for (var i = 0; i < kept; i++)
            {
                sum += Math.Exp((double)sorted[i] - logSumExp);
                if (sum >= enough)
                {
                    kept = i + 1;
                    break;
                }
            }
        }

        var floor = sorted[kept - 1];
        tied = 0;
        for (var i = kept - 1; i >= 0 && sorted[i] == floor; i--)
        {
            tied++;
        }

        return floor;
    }

    /// <summary>
    /// Logits of the most likely tokens in falling order: at least those that top-k, or else top-p, can leave. Few tokens hold nearly all probability as a
    /// rule, so the bar starts high and is lowered until they are among them; sorting the whole vocabulary would cost more than the product that made it.
    /// </summary>
    private static Span<float> MostLikely(float* logits, int vocabulary, float logSumExp, int topK, float topP, float* buffer)
    {
        var found = default(Span<float>);
        for (var bar = 4f; found.Length < vocabulary; bar += 2)
        {
            found = new Span<float>(buffer, bar > 32 ? All(logits, vocabulary, buffer) : Above(logits, vocabulary, logSumExp - bar, buffer));
            if (topK > 0 ? found.Length >= topK : Mass(found, logSumExp) >= topP)
            {
                break;
            }
        }

        found.Sort();
        found.Reverse();
        return found;
    }

    private static int All(float* logits, int vocabulary, float* buffer)
    {
        new ReadOnlySpan<float>(logits, vocabulary).CopyTo(new Span<float>(buffer, vocabulary));
        return vocabulary;
    }

    private static int Above(float* logits, int vocabulary, float bar, float* buffer)
    {
        var count = 0;
        for (var i = 0; i < vocabulary; i += Eight(vocabulary, i))
        {
            var some = Vector256.GreaterThanOrEqualAny(LoadUpTo8(logits + i, vocabulary - i), Vector256.Create(bar));
            for (var j = i; some && j < Math.Min(i + 8, vocabulary); j++)
            {
                if (logits[j] >= bar)
                {
                    buffer[count++] = logits[j];
                }
            }
        }

        return count;
    }

    private static double Mass(ReadOnlySpan<float> logits, float logSumExp)
    {
        double mass = 0;
        foreach (var logit in logits)
        {
            mass += Math.Exp((double)logit - logSumExp);
        }

        return mass;
    }
}
