using System.CommandLine;
using System.Globalization;
using LrIad.Engine.Config;
using LrIad.Engine.Evaluate;
using static LrIad.Cli.Settings<LrIad.Cli.EvalOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>eval</c>.</summary>
internal sealed record EvalOptions
{
    public EvalConfig Config { get; init; } = new();

    public string Device { get; init; } = "auto";
}

/// <summary>Verdicts on labelled images, and what they are worth.</summary>
internal static class EvalCommand
{
    private static readonly Setting<EvalOptions>[] Settings =
    [
        One("model", "DIR", "base model folder", Config((c, v) => c with { Model = v.Text })),
        One("adapter", "DIR", "adapter folder, such as a checkpoint of train; left out: the base model", Config((c, v) => c with { Adapter = v.Text })),
        One("data", "DIR", "data folder or manifest", Config((c, v) => c with { Data = c.Data with { Path = v.Text } })),
        One("layout", "NAME", DataOptions.LayoutHelp, Config((c, v) => c with { Data = c.Data with { Layout = DataOptions.Layout(v) } })),
        One("split", "NAME", DataOptions.SplitHelp, Config((c, v) => c with { Data = c.Data with { Split = DataOptions.Split(v) } })),
        One("out", "DIR", "output folder: metrics.json, predictions.jsonl, report.html", Config((c, v) => c with { Out = v.Text })),
        One("limit", "N", "at most so many images (0: all)", Config((c, v) => c with { Limit = v.Count })),
        One("invalid", "NAME", "how invalid answers count: wrong (default), normal, defect or drop", Config((c, v) => c with { Invalid = v.OneOf("wrong", "normal", "defect", "drop") })),
        One("votes", "K", "the score is the share of K sampled answers (0: the probe)", Config((c, v) => c with { Votes = v.Count })),
        One("max-pixels", "N", "images are scaled down to this many pixels (the adapter's own, else 401408)", Config((c, v) => c with { MaxPixels = DataOptions.MaxPixels(v) })),
        One("batch-size", "N", "images judged side by side (32); more take more memory and less time on a GPU", Config((c, v) => c with { BatchSize = DataOptions.Positive(v) })),
        One("max-completion-length", "N", "tokens a completion may have (256)", Config((c, v) => c with { MaxCompletionLength = DataOptions.Positive(v) })),
        One("prompt-template", "FILE", "another question; {object} stands for the category", Config((c, v) => c with { PromptTemplate = v.Text })),
        Flag("strict", "a bad image stops the evaluation instead of being passed over", Config((c, v) => c with { Strict = v.Flag })),
        One("seed", "N", "of the votes (0)", Config((c, v) => c with { Seed = v.Seed })),
        One("device", "NAME", Devices.Help, (o, v) => o with { Device = Devices.Parse(v) }),
    ];

    public static Command Create(Host host) => Verb.Create(host, "eval", "Judges labelled images and says how well.", new EvalOptions(), Settings, Run, hasConfigFile: true);

    private static Func<EvalOptions, Values, EvalOptions> Config(Func<EvalConfig, Values, EvalConfig> apply) => (o, v) => o with { Config = apply(o.Config, v) };

    private static int Run(EvalOptions options, Session session)
    {
        var config = options.Config;
        DataOptions.Require(config.Model, "--model DIR");
        DataOptions.Require(config.Data.Path, "--data DIR");
        DataOptions.Require(config.Out, "--out DIR");
        using var backend = Devices.Open(options.Device);
        var result = Watch.Run<EvalProgress, EvalResult>(
            session.Screen, new EvalView(TimeProvider.System), progress => Evaluation.Run(config, backend, progress, session.Cancellation));

        var screen = session.Screen;
        screen.Result($"{config.Data.Path} by {config.Model}{(config.Adapter is null ? "" : $" with {config.Adapter}")}");
        screen.Result(result.Headline);
        screen.Result(Row("category", "images", "balanced", "recall", "specificity", "accuracy", "AUROC", "invalid"));
        foreach (var (name, figures) in result.Classes)
        {
            screen.Result(Row(name, figures));
        }

        screen.Result(Row("all", result.Pooled));
        foreach (var (name, figures) in result.Baselines)
        {
            screen.Result(Row(name.Replace('_', ' '), figures));
        }

        screen.Result($"{result.Contradictions} answers contradict their own reasoning; {result.Skipped.Count} images were passed over");
        screen.Result($"written to {config.Out}");
        return 0;
    }

    private static string Row(string name, Figures f) => Row(
        name, f.N.ToString(CultureInfo.InvariantCulture), Show(f.BalancedAccuracy), Show(f.Recall), Show(f.Specificity), Show(f.Accuracy), Show(f.Auroc), f.Invalid.ToString(CultureInfo.InvariantCulture));

    private static string Row(string name, params string[] cells) => $"  {name,-20}{string.Concat(cells.Select(cell => cell.PadLeft(12)))}";

    private static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";
}
