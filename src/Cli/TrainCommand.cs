using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using LrIad.Engine;
using LrIad.Engine.Config;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Learn;
using LrIad.Learn;

namespace LrIad.Cli;

/// <summary>GRPO on an adapter.</summary>
internal static class TrainCommand
{
    public static Command Create(Host host) =>
        Verb.Create(host, "train", "Learns to find defects, from labels alone: GRPO on a LoRA adapter.", new TrainOptions(), TrainOptions.All, Run, hasConfigFile: true);

    private static int Run(TrainOptions options, Session session)
    {
        var config = options.Resolve();
        ConfigRules.Check(config);
        using var backend = Devices.Open(options.Device);
        var clock = Stopwatch.StartNew();
        try
        {
            var summary = Watch.Run<TrainingProgress, TrainingSummary>(
                session.Screen, new TrainView(TimeProvider.System), progress => Training.Run(config, backend, PolicyLearner.Create, options.Resume, options.Profile, progress, session.Cancellation));
            foreach (var line in Summary(config, summary, clock.Elapsed))
            {
                session.Screen.Result(line);
            }

            return 0;
        }
        catch (OperationCanceledException)
        {
            session.Screen.Note($"To go on: the same command with --resume (results so far are in {config.Out}).");
            throw;
        }
    }

    private static IEnumerable<string> Summary(TrainConfig config, TrainingSummary summary, TimeSpan time)
    {
        yield return $"trained {config.Model} on {string.Join(", ", config.Data.Select(source => source.Path))}: {summary.Steps} steps of {config.PromptsPerStep} prompts × {config.NumGenerations} completions in {Pace.Clock(time)}, seed {config.Seed}";
        yield return $"rewards {string.Join(" + ", config.Reward.Names)}, learning rate {config.Optimizer.LearningRate.ToString("R", CultureInfo.InvariantCulture)}, beta {config.Objective.Beta.ToString("R", CultureInfo.InvariantCulture)}";
        if (summary.Before is { } before && summary.After is { } after)
        {
            yield return $"evaluated on {config.EvalData!.Path}, {after.Pooled.N} images, greedy answers:";
            if (after.TrainingOverlap is { Images: > 0 } overlap)
            {
                yield return $"  {overlap.Images} of them are training images (--allow-overlap): the figures do not say what it does on images it has never seen";
            }

            yield return $"  before: {before.Headline}";
            yield return $"  after:  {after.Headline}";
            yield return $"  change in balanced accuracy: {Change(before, after)}";
        }

        yield return $"adapter: {summary.Checkpoint}";
        if (File.Exists(Path.Combine(config.Out, "report.html")))
        {
            yield return $"report: {Path.Combine(config.Out, "report.html")}";
        }
    }

    private static string Change(EvalResult before, EvalResult after) => after.ChangeSince(before) is var (change, low, high)
        ? string.Create(CultureInfo.InvariantCulture, $"{change:+0.000;-0.000;0.000} (95%: {low:+0.000;-0.000;0.000} to {high:+0.000;-0.000;0.000})")
        : "unknown, the data have one class alone";
}
