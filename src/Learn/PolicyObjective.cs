using LrIad.Engine;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using static TorchSharp.torch;

namespace LrIad.Learn;

/// <summary>The losses of the GRPO family as plain tensor code; what is minimised is the negative of method.md's objective.</summary>
internal static class PolicyObjective
{
    /// <summary>A micro-batch's share of the batch's loss.</summary>
    /// <param name="logProb">[T] leaf.</param>
    /// <param name="batch">The rest.</param>
    /// <param name="options">Which objective.</param>
    public static (Tensor Loss, double KlSum, int ClippedTokens) Loss(Tensor logProb, ObjectiveBatch batch, ObjectiveOptions options)
    {
        var completion = CompletionOfToken(batch.Start);
        using var index = tensor(completion);
        var advantage = tensor(batch.Advantage).index_select(0, index);
        var lengths = tensor(batch.Start.Zip(batch.Start.Skip(1), (from, to) => (float)Math.Max(1, to - from)).ToArray());
        var perToken = lengths.index_select(0, index);
        var old = batch.OldLogProb is { } values ? tensor(values) : logProb.detach();

        // The ratio of policies: a token's own, or for gspo that of the whole completion (geometric mean), whose gradient reaches every token of it.
        var logRatio = logProb - old;
        if (options.LossType == "gspo")
        {
            logRatio = zeros(batch.Advantage.Length).index_add(0, index, logRatio, 1).div(lengths).index_select(0, index);
        }

        var ratio = logRatio.exp();
        var clipped = ratio.clamp(1 - options.EpsilonLow, 1 + options.EpsilonHigh);
        var gain = minimum(ratio * advantage, clipped * advantage);
        var clippedTokens = (int)((ratio < 1 - options.EpsilonLow) & (advantage < 0)).logical_or((ratio > 1 + options.EpsilonHigh) & (advantage > 0)).sum().item<long>();

        double klSum = 0;
        if (options.Beta > 0)
        {
            var reference = options.KlTo == "old" ? old : tensor(batch.ReferenceLogProb ?? throw new ArgumentException("The KL term needs the reference policy's log-probs."));
            var difference = reference - logProb;
            var k3 = difference.expm1() - difference;
            klSum = k3.sum().item<float>();
            gain -= k3 * options.Beta;
        }

        var weight = options.LossType switch
        {
            "grpo" or "gspo" => perToken.reciprocal() / batch.BatchCompletions,
            "dr_grpo" => full_like(perToken, 1.0 / ((double)batch.BatchCompletions * batch.MaxCompletionLength)),
            "dapo" => full_like(perToken, 1.0 / Math.Max(1, batch.BatchTokens)),
            _ => throw new InputException($"Unknown loss type '{options.LossType}'; it is grpo, dr_grpo, dapo or gspo."),
        };
        return (-(gain * weight).sum(), klSum, clippedTokens);
    }

    private static long[] CompletionOfToken(int[] start)
    {
        var completion = new long[start[^1]];
        for (var c = 0; c + 1 < start.Length; c++)
        {
            completion.AsSpan(start[c], start[c + 1] - start[c]).Fill(c);
        }

        return completion;
    }
}
