using LrIad.Engine.Tests.Backends;

namespace LrIad.Engine.Tests.Oracle;

/// <summary>Attention from its definition, in float64: a soft-max over all keys that a row's items let it see.</summary>
internal static class AttentionOracle
{
    public static (double[] O, double[] LogSumExp) Attend(AttentionCase c, double[] q, double[] kv)
    {
        var o = new double[c.Rows * c.Columns];
        var logSumExp = new double[c.Rows * c.Heads * c.PerHead];
        var items = c.Items;
        for (var row = 0; row < c.Rows; row++)
        {
            for (var head = 0; head < c.Heads * c.PerHead; head++)
            {
                var keys = items.Where(item => row >= item.FirstRow && row < item.FirstRow + item.Rows)
                    .SelectMany(item => Enumerable.Range(0, AttentionCase.Visible(item, row)).Select(key => c.KeyAt(item, key, head / c.PerHead))).ToArray();
                var at = (row * c.Columns) + (head * c.HeadDim);
                var scores = keys.Select(key => Dot(q.AsSpan(at, c.HeadDim), kv.AsSpan(key, c.HeadDim)) / Math.Sqrt(c.HeadDim)).ToArray();
                var max = scores.Max();
                var sum = scores.Sum(score => Math.Exp(score - max));
                logSumExp[(row * c.Heads * c.PerHead) + head] = max + Math.Log(sum);
                for (var j = 0; j < keys.Length; j++)
                {
                    var probability = Math.Exp(scores[j] - max) / sum;
                    for (var i = 0; i < c.HeadDim; i++)
                    {
                        o[at + i] += probability * kv[keys[j] + c.ValueOffset + i];
                    }
                }
            }
        }

        return (o, logSumExp);
    }

    private static double Dot(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++)
        {
            sum += a[i] * b[i];
        }

        return sum;
    }
}
