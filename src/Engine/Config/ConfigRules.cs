using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Config;

/// <summary>What a configuration must fulfil before a run starts.</summary>
internal static class ConfigRules
{
    /// <summary>How configurations are saved.</summary>
    public static JsonSerializerOptions Json { get; } = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Checks numbers and words that no later stage would catch in time.</summary>
    /// <exception cref="InputException">Names the option and what it may be.</exception>
    public static void Check(TrainConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        Require(config.Steps >= 0 && config.Epochs > 0, "--steps must not be negative and --epochs must be positive");
        Require(config.PromptsPerStep >= 1, "--prompts-per-step must be at least 1");
        Require(config.NumGenerations >= 2, "--num-generations must be at least 2: a group of one has no advantage");
        Require(config.NumIterations >= 1, "--num-iterations must be at least 1");
        Require(config.Sampling.MaxCompletionLength >= 1, "--max-completion-length must be at least 1");
        Require(config.Sampling.Temperature > 0 && float.IsFinite(config.Sampling.Temperature), "--temperature must be positive in training: without chance all completions of a group are the same");
        Require(config.Sampling.TopP is > 0 and <= 1, "--top-p must be above 0 and at most 1");
        Require(config.Sampling.TopK >= 0, "--top-k must not be negative");
        Require(config.MaxPixels >= 28 * 28, "--max-pixels must be at least 784");
        Require(config.Lora.Rank is >= 1 and <= 1024, "--lora-rank must be from 1 to 1024");
        Require(config.Lora.Dropout is >= 0 and < 1, "--lora-dropout must be at least 0 and below 1");
        Require(config.Optimizer.LearningRate > 0 && double.IsFinite(config.Optimizer.LearningRate), "--learning-rate must be positive");
        Require(config.Optimizer.WarmupSteps >= 0 && config.Optimizer.MaxGradNorm >= 0, "--warmup-steps and --max-grad-norm must not be negative");
        Require(config.Objective.Beta >= 0, "--beta must not be negative");
        Require(config.Objective.EpsilonLow >= 0 && config.Objective.EpsilonHigh >= 0, "--epsilon-low and --epsilon-high must not be negative");
        OneOf("--loss-type", config.Objective.LossType, "grpo", "dr_grpo", "dapo", "gspo");
        OneOf("--scale-rewards", config.Objective.ScaleRewards, "batch", "group", "none");
        OneOf("--kl-to", config.Objective.KlTo, "reference", "old");
        OneOf("--recompute", config.Recompute, "auto", "always", "never");
        OneOf("--lr-schedule", config.Optimizer.Schedule, "constant", "cosine");
    }

    /// <summary>A run goes on under the configuration it started with; only its length, saving and evaluating may change, and what changes no result.</summary>
    /// <exception cref="InputException">Something else differs.</exception>
    public static void RequireSameRun(string checkpoint, TrainConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var file = Path.Combine(checkpoint, "config.json");
        TrainConfig saved;
        try
        {
            saved = JsonSerializer.Deserialize<TrainConfig>(File.ReadAllBytes(file), Json)!;
        }
        catch (Exception e) when (e is JsonException or IOException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }

        TrainConfig Comparable(TrainConfig c) => c with { Out = "", Model = "", Data = [], EvalData = null, AllowOverlap = false, EvalSteps = 0, Steps = 0, Epochs = 1, SaveSteps = 0, SaveOnlyModel = false, Strict = false, Recompute = "auto" };
        var changed = Changed(JsonSerializer.SerializeToNode(Comparable(saved), Json)!, JsonSerializer.SerializeToNode(Comparable(config), Json)!);
        Require(changed.Length == 0, $"the run in {checkpoint} was started with another {string.Join(", ", changed)}; give the same options to go on with it");
    }

    /// <summary>The settings that differ, by name.</summary>
    internal static string[] Changed(JsonNode before, JsonNode now) =>
        [.. now.AsObject().Where(field => field.Value?.ToJsonString() != before[field.Key]?.ToJsonString()).Select(field => field.Key)];

    private static void OneOf(string option, string value, params string[] allowed) => Require(allowed.Contains(value), $"{option} is '{value}'; it is {string.Join(", ", allowed[..^1])} or {allowed[^1]}");

    private static void Require(bool holds, string otherwise)
    {
        if (!holds)
        {
            throw new InputException(char.ToUpperInvariant(otherwise[0]) + otherwise[1..] + ".");
        }
    }
}
