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

    public string? ThresholdData { get; init; }

    public string ThresholdSplit { get; init; } = "all";

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
        Many("categories", "NAMES", DataOptions.CategoriesHelp, Config((c, v) => c with { Data = c.Data with { Categories = DataOptions.Categories(v) } })),
        Many("without-categories", "NAMES", DataOptions.WithoutCategoriesHelp, Config((c, v) => c with { Data = c.Data with { WithoutCategories = DataOptions.Categories(v) } })),
        One("out", "DIR", "output folder: metrics.json, predictions.jsonl, report.html", Config((c, v) => c with { Out = v.Text })),
        One("limit", "N", "at most so many images (0: all)", Config((c, v) => c with { Limit = v.Count })),
        One("invalid", "NAME", "how invalid answers count: wrong (default), normal, defect or drop", Config((c, v) => c with { Invalid = v.OneOf("wrong", "normal", "defect", "drop") })),
        One("votes", "K", "the score is the share of K sampled answers (0: the probe)", Config((c, v) => c with { Votes = v.Count })),
        One("reference", "auto|IMAGE", "a faultless part shown first: auto for a normal image of each category, which is then not judged, or an image of the one category", Config((c, v) => c with { Reference = v.Text })),
        One("threshold", "RULE", "also judge by the score, with a threshold chosen on --threshold-data: f1, balanced, or recall=0.95 for the highest with that recall", Config((c, v) => c with { Threshold = v.Text })),
        One("threshold-data", "DIR", "the images to choose it on, none of which may be in the test", (o, v) => o with { ThresholdData = v.Text }),
        One("threshold-split", "NAME", "which part of them: all (default), train or test", (o, v) => o with { ThresholdSplit = DataOptions.Split(v) }),
        One("max-pixels", "N", "images are scaled down to this many pixels (the adapter's own, else 401408)", Config((c, v) => c with { MaxPixels = DataOptions.MaxPixels(v) })),
        One("batch-size", "N", "images judged side by side (32); more take more memory and less time on a GPU", Config((c, v) => c with { BatchSize = DataOptions.Positive(v) })),
        One("max-completion-length", "N", "tokens a completion may have (256)", Config((c, v) => c with { MaxCompletionLength = DataOptions.Positive(v) })),
        One("prompt-template", "FILE", "another question; {object} stands for the category", Config((c, v) => c with { PromptTemplate = v.Text })),
        Flag("strict", "a bad image stops the evaluation instead of being passed over", Config((c, v) => c with { Strict = v.Flag })),
        One("seed", "N", "of votes, references and intervals (0)", Config((c, v) => c with { Seed = v.Seed })),
        One("device", "NAME", Devices.Help, (o, v) => o with { Device = Devices.Parse(v) }),
    ];

    public static Command Create(Host host) => Verb.Create(host, "eval", "Judges labelled images and says how well.", new EvalOptions(), Settings, Run, hasConfigFile: true);

    private static Func<EvalOptions, Values, EvalOptions> Config(Func<EvalConfig, Values, EvalConfig> apply) => (o, v) => o with { Config = apply(o.Config, v) };

    private static int Run(EvalOptions options, Session session)
    {
        var config = options.Config with { ThresholdData = options.ThresholdData is null ? null : new DataSource(options.ThresholdData, Split: options.ThresholdSplit) };
        DataOptions.Require(config.Model, "--model DIR");
        DataOptions.Require(config.Data.Path, "--data DIR");
        DataOptions.Require(config.Out, "--out DIR");
        using var backend = Devices.Open(options.Device);
        var result = Watch.Run<EvalProgress, EvalResult>(
            session.Screen, new EvalView(TimeProvider.System), progress => Evaluation.Run(config, backend, progress, session.Cancellation));

        foreach (var line in Lines(config, result))
        {
            session.Screen.Result(line);
        }

        return 0;
    }

    private static IEnumerable<string> Lines(EvalConfig config, EvalResult result)
    {
        yield return $"{config.Data.Path} by {config.Model}{(config.Adapter is null ? "" : $" with {config.Adapter}")}{(config.Reference is null ? "" : $", a faultless part shown first ({config.Reference})")}";
        yield return result.Headline;
        yield return Row("category", "images", "balanced", "recall", "specificity", "accuracy", "F1", "AUROC", "AP", "invalid");
        foreach (var (name, figures) in result.Classes)
        {
            yield return Row(name, figures);
        }

        yield return Row("all", result.Pooled);
        if (result.Intervals?.Pooled is { } intervals)
        {
            yield return Row("  from", "", intervals, 0);
            yield return Row("  to (95%)", "", intervals, 1);
        }

        foreach (var (name, figures) in result.Baselines)
        {
            yield return Row(name.Replace('_', ' '), figures);
        }

        if (result.Thresholded is { } thresholded)
        {
            yield return Row("score by threshold", thresholded.Pooled);
            yield return Row("  from", "", thresholded.Intervals.Pooled, 0);
            yield return Row("  to (95%)", "", thresholded.Intervals.Pooled, 1);
            yield return string.Create(CultureInfo.InvariantCulture, $"the threshold is {thresholded.Threshold:R}, by {thresholded.Rule} on {thresholded.ChosenOn.Figures.N} images of {thresholded.ChosenOn.Data} ({thresholded.ChosenOn.Split})");
        }

        yield return $"{result.Contradictions} answers contradict their own reasoning; {result.Skipped.Count} images were passed over";
        if (result.InvalidKinds.Count > 0)
        {
            yield return $"invalid answers: {string.Join(", ", result.InvalidKinds.Select(kind => $"{kind.Value} {kind.Key}"))}";
        }

        if (Naming("kind", result.NamedDefects?.Kind) is { } kinds)
        {
            yield return kinds;
        }

        if (Naming("place", result.NamedDefects?.Place) is { } places)
        {
            yield return places;
        }

        if (result.TrainingOverlap is { } overlap)
        {
            yield return overlap.Checked ? $"{overlap.Images} of the images were trained on" : $"whether images were trained on is unknown: {overlap.Reason}";
        }

        yield return $"written to {config.Out}";
    }

    private static string? Naming(string what, Naming? naming) => naming is null ? null
        : $"{naming.Named} of {naming.Images} defects found are given their right {what} by the reasoning (other names of the data: {Show(naming.ShareOfOthers)})";

    private static string Row(string name, string images, FigureIntervals intervals, int end)
    {
        string Of(double[]? interval) => Show(interval?[end]);
        return Row(name, images, Of(intervals.BalancedAccuracy), Of(intervals.Recall), Of(intervals.Specificity), "", Of(intervals.F1Macro), Of(intervals.Auroc), Of(intervals.AveragePrecision), "");
    }

    private static string Row(string name, Figures f) => Row(
        name, f.N.ToString(CultureInfo.InvariantCulture), Show(f.BalancedAccuracy), Show(f.Recall), Show(f.Specificity), Show(f.Accuracy), Show(f.F1Macro), Show(f.Auroc), Show(f.AveragePrecision), f.Invalid.ToString(CultureInfo.InvariantCulture));

    private static string Row(string name, params string[] cells) => $"  {name,-20}{string.Concat(cells.Select(cell => cell.PadLeft(12)))}".TrimEnd();

    private static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";
}
