using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Backends;

namespace LrIad.Engine.Tests.Oracle;

/// <summary>Final norm, vocabulary product, log-soft-max and truncation from their definitions, in float64.</summary>
internal static class HeadOracle
{
    /// <summary>log softmax(head(norm(x[row])) / temperature).</summary>
    public static double[] LogSoftMax(HeadCase c, double[] x, int row, double temperature, out double logSumExp)
    {
        var values = x.AsSpan(row * c.Hidden, c.Hidden).ToArray();
        var mean = c.Kind == NormKind.Layer ? values.Average() : 0;
        var scale = 1 / Math.Sqrt(values.Sum(value => (value - mean) * (value - mean)) / c.Hidden + c.Epsilon);
        var logits = new double[c.Vocabulary];
        for (var token = 0; token < c.Vocabulary; token++)
        {
            for (var i = 0; i < c.Hidden; i++)
            {
                logits[token] += (((values[i] - mean) * scale * c.NormWeight[i]) + (c.Kind == NormKind.Layer ? c.NormBias[i] : 0)) * c.Weight[(token * c.Hidden) + i];
            }

            logits[token] /= temperature;
        }

        var max = logits.Max();
        var total = max + Math.Log(logits.Sum(logit => Math.Exp(logit - max)));
        logSumExp = total;
        return [.. logits.Select(logit => logit - total)];
    }

    public static double Entropy(double[] logProbs) => -logProbs.Sum(logProb => Math.Exp(logProb) * logProb);

    /// <summary>Probabilities after top-k, then top-p: the smallest set of most likely tokens that holds p of what top-k left; the lowest id first among equals.</summary>
    public static double[] Truncated(double[] logProbs, int topK, double topP)
    {
        var ranked = Enumerable.Range(0, logProbs.Length).OrderByDescending(token => logProbs[token]).ThenBy(token => token).ToArray();
        var kept = topK > 0 ? ranked[..Math.Min(topK, ranked.Length)] : ranked;
        var mass = kept.Sum(token => Math.Exp(logProbs[token]));
        var (count, sum) = (0, 0.0);
        do
        {
            sum += Math.Exp(logProbs[kept[count++]]);
        }
        while (count < kept.Length && sum < topP * mass);

        var result = new double[logProbs.Length];
        foreach (var token in kept[..count])
        {
            result[token] = Math.Exp(logProbs[token]) / sum;
        }

        return result;
    }
}
