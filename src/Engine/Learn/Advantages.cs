namespace LrIad.Engine.Learn;

/// <summary>Advantages of a batch.</summary>
/// <param name="Values">[group][completion].</param>
/// <param name="RewardMean">Mean reward over all completions.</param>
/// <param name="RewardStd">Mean over the groups of their rewards' standard deviation.</param>
/// <param name="ZeroSpread">Share of groups whose rewards are all the same: they teach nothing.</param>
internal sealed record AdvantageResult(float[][] Values, double RewardMean, double RewardStd, double ZeroSpread);

/// <summary>Rewards to advantages (Eq. 7 and 8).</summary>
internal static class Advantages
{
    private const double Epsilon = 1e-4;

    /// <summary>(r − mean of the group) / (s + 1e-4), s the population standard deviation of the group or of the batch; <c>none</c>: undivided.</summary>
    /// <param name="rewards">[group][completion].</param>
    /// <param name="scale"><c>group</c>, <c>batch</c> or <c>none</c>.</param>
    public static AdvantageResult Normalize(IReadOnlyList<double[]> rewards, string scale)
    {
        ArgumentNullException.ThrowIfNull(rewards);
        var all = rewards.SelectMany(group => group).ToArray();
        var batchStd = Std(all);
        var groupStds = rewards.Select(Std).ToArray();
        var values = rewards.Select((group, g) =>
        {
            var mean = group.Average();
            var divisor = scale switch
            {
                "group" => groupStds[g] + Epsilon,
                "batch" => batchStd + Epsilon,
                "none" => 1,
                _ => throw new InputException($"--scale-rewards is '{scale}'; it is batch, group or none."),
            };
            return group.Select(reward => (float)((reward - mean) / divisor)).ToArray();
        });
        return new AdvantageResult([.. values], all.Average(), groupStds.Average(), groupStds.Count(std => std == 0) / (double)rewards.Count);
    }

    private static double Std(double[] values)
    {
        var mean = values.Average();

        // All equal is exactly zero, whatever the mean's rounding.
        return values.All(value => value == values[0]) ? 0 : Math.Sqrt(values.Average(value => (value - mean) * (value - mean)));
    }
}
