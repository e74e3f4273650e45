using System.Text.Json.Nodes;
using LrIad.Engine.Config;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;

namespace LrIad.Engine.Learn;

/// <summary>What is logged of a step, under TRL's names.</summary>
internal static class StepMetrics
{
    public static JsonObject Of(
        TrainerState state, TrainConfig config, IReadOnlyList<string> rewardNames, IReadOnlyList<Group> groups, RewardTable rewards, AdvantageResult advantages, StepRecord step,
        double learningRate, double epoch)
    {
        var completions = groups.SelectMany(group => group.Completions).ToArray();
        var lengths = completions.Select(completion => completion.Tokens.Length).ToArray();
        var tokens = (double)Math.Max(1, lengths.Sum()) * config.NumIterations;
        var json = new JsonObject
        {
            ["step"] = state.Step,
            ["loss"] = step.Loss,
            ["reward"] = advantages.RewardMean,
            ["reward_std"] = advantages.RewardStd,
            ["frac_reward_zero_std"] = advantages.ZeroSpread,
        };
        for (var r = 0; r < rewardNames.Count; r++)
        {
            var values = rewards.Parts.SelectMany(group => group.Select(parts => parts[r])).ToArray();
            var mean = values.Average();
            json[$"rewards/{rewardNames[r]}/mean"] = mean;
            json[$"rewards/{rewardNames[r]}/std"] = Math.Sqrt(values.Average(value => (value - mean) * (value - mean)));
        }

        json["completions/mean_length"] = lengths.Average();
        json["completions/min_length"] = lengths.Min();
        json["completions/max_length"] = lengths.Max();
        json["completions/clipped_ratio"] = completions.Average(completion => completion.Ended ? 0.0 : 1.0);
        json["kl"] = config.Objective.Beta > 0 ? step.KlSum / tokens : null;
        json["entropy"] = completions.SelectMany(completion => completion.Entropies).Average(entropy => (double)entropy);
        json["clip_ratio/region_mean"] = step.ClippedTokens / tokens;
        json["grad_norm"] = step.GradNorm;
        json["learning_rate"] = learningRate;
        json["num_tokens"] = state.NumTokens;
        json["epoch"] = epoch;
        json["step_time"] = step.TotalSeconds;
        foreach (var (phase, seconds) in step.Seconds)
        {
            json[$"time/{phase}"] = seconds;
        }

        return json;
    }

    /// <summary>A line a completion.</summary>
    public static IEnumerable<JsonObject> Completions(
        int step, TrainingBatch batch, IReadOnlyList<Group> groups, RewardTable rewards, AdvantageResult advantages, Tokenizer tokenizer)
    {
        for (var g = 0; g < groups.Count; g++)
        {
            for (var i = 0; i < groups[g].Completions.Count; i++)
            {
                yield return new JsonObject
                {
                    ["step"] = step,
                    ["image_path"] = batch.Samples[g].ImagePath,
                    ["object"] = batch.Samples[g].Object,
                    ["gt_label"] = batch.Samples[g].Defect ? 1 : 0,
                    ["completion"] = tokenizer.Decode(groups[g].Completions[i].Tokens),
                    ["valid"] = rewards.Answers[g][i].IsValid,
                    ["reward"] = rewards.Totals[g][i],
                    ["advantage"] = advantages.Values[g][i],
                };
            }
        }
    }
}
