using LrIad.Engine.Config;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn.Torch;

/// <summary>The objective as method.md words it, a completion at a time, in double.</summary>
internal sealed class NaiveObjective(ObjectiveBatch batch, ObjectiveOptions options)
{
    // Where no other log-probs are given the old policy is the policy itself, held fixed while it is differentiated.
    private readonly double[] _old = [.. (batch.OldLogProb ?? batch.LogProb).Select(value => (double)value)];

    public double[] LogProb => [.. batch.LogProb.Select(value => (double)value)];

    public double KlSum => options.Beta > 0 ? Enumerable.Range(0, batch.LogProb.Length).Sum(t => K3(LogProb, t)) : 0;

    public int ClippedTokens => Completions().Sum(c => Tokens(c).Count(t => Clips(Ratio(LogProb, c, t), batch.Advantage[c])));

    public double Loss(double[] logProb)
    {
        var objective = 0.0;
        foreach (var c in Completions())
        {
            foreach (var t in Tokens(c))
            {
                objective += Weight(c) * (Gain(Ratio(logProb, c, t), batch.Advantage[c]) - (options.Beta * K3(logProb, t)));
            }
        }

        return -objective;
    }

    /// <summary>Central differences.</summary>
    public double[] Gradient()
    {
        const double h = 1e-5;
        return [.. Enumerable.Range(0, batch.LogProb.Length).Select(t =>
        {
            var (above, below) = (LogProb, LogProb);
            above[t] += h;
            below[t] -= h;
            return (Loss(above) - Loss(below)) / (2 * h);
        })];
    }

    private IEnumerable<int> Completions() => Enumerable.Range(0, batch.Advantage.Length);

    private IEnumerable<int> Tokens(int c) => Enumerable.Range(batch.Start[c], Length(c));

    private int Length(int c) => batch.Start[c + 1] - batch.Start[c];

    private double Ratio(double[] logProb, int c, int t) => options.LossType == "gspo"
        ? Math.Exp(Tokens(c).Average(u => logProb[u] - _old[u]))
        : Math.Exp(logProb[t] - _old[t]);

    private double Gain(double ratio, double advantage) =>
        Clips(ratio, advantage) ? (advantage > 0 ? 1 + options.EpsilonHigh : 1 - options.EpsilonLow) * advantage : ratio * advantage;

    private bool Clips(double ratio, double advantage) => advantage > 0 ? ratio > 1 + options.EpsilonHigh : advantage < 0 && ratio < 1 - options.EpsilonLow;

    private double K3(double[] logProb, int t)
    {
        if (options.Beta == 0)
        {
            return 0;
        }

        var difference = (options.KlTo == "old" ? _old[t] : batch.ReferenceLogProb![t]) - logProb[t];
        return Math.Exp(difference) - difference - 1;
    }

    private double Weight(int c) => options.LossType switch
    {
        "grpo" or "gspo" => 1.0 / Length(c) / batch.BatchCompletions,
        "dr_grpo" => 1.0 / batch.BatchCompletions / batch.MaxCompletionLength,
        "dapo" => 1.0 / batch.BatchTokens,
        _ => throw new ArgumentException(options.LossType),
    };
}
