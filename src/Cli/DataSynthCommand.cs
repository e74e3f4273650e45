using System.CommandLine;
using System.Globalization;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Synth;
using static LrIad.Cli.Settings<LrIad.Engine.Synth.SynthConfig>;

namespace LrIad.Cli;

/// <summary>Makes a data set with synthetic defects from normal images.</summary>
internal static class DataSynthCommand
{
    private static readonly Setting<SynthConfig>[] Settings =
    [
        One("data", "DIR", "data folder or manifest; its normal images alone are used", (c, v) => c with { Data = c.Data with { Path = v.Text } }),
        One("layout", "NAME", DataOptions.LayoutHelp, (c, v) => c with { Data = c.Data with { Layout = DataOptions.Layout(v) } }),
        One("split", "NAME", DataOptions.SplitHelp, (c, v) => c with { Data = c.Data with { Split = DataOptions.Split(v) } }),
        One("out", "DIR", "output folder: normal images, defects and synth.json", (c, v) => c with { Out = v.Text }),
        One("method", "NAME", "cutpaste (a piece of the image, moved) or nsa (a piece of another image, blended in)", (c, v) => c with { Method = v.OneOf("cutpaste", "nsa") }),
        Many("categories", "NAME…", "the categories (all)", (c, v) => c with { Categories = v.List }),
        One("per-image", "X", "defects for each normal image (0.25: a fifth of the data set)", (c, v) => c with { PerImage = v.Number }),
        One("count", "N", "defects of each category, instead of --per-image", (c, v) => c with { Count = DataOptions.Positive(v) }),
        One("size", "MIN..MAX", "a patch's area as a share of the image's (cutpaste's rectangles: 0.02..0.15; nsa: 0.0036..0.16)", (c, v) => c with { Size = Size(v) }),
        One("on-object", "X", "share of a patch that must lie on the object (0.5)", (c, v) => c with { OnObject = v.Number }),
        One("min-change", "N", "grey levels by which a patch must change the image in the mean (15)", (c, v) => c with { MinChange = v.Number }),
        One("scars", "X", "cutpaste: share of scars, thin turned strips, among the defects (0.5)", (c, v) => c with { Scars = v.Number }),
        One("jitter", "X", "cutpaste: largest change of brightness, contrast, saturation and hue (0.1)", (c, v) => c with { Jitter = v.Number }),
        One("gradients", "NAME", "nsa: mixed (default), the steeper one of source and image, or source", (c, v) => c with { Gradients = v.OneOf("mixed", "source") }),
        One("seed", "N", "of all draws (0)", (c, v) => c with { Seed = v.Seed }),
    ];

    public static Command Create(Host host) =>
        Verb.Create(host, "synth", "Makes a data set with synthetic defects from normal images.", new SynthConfig(), Settings, Run, hasConfigFile: true);

    private static int Run(SynthConfig config, Session session)
    {
        DataOptions.Require(config.Data.Path, "--data DIR");
        DataOptions.Require(config.Out, "--out DIR");
        DataOptions.Require(config.Method, "--method cutpaste or nsa");
        var record = Watch.Run<EvalProgress, SynthRecord>(
            session.Screen, new EvalView(TimeProvider.System), progress => Synthesis.Run(config, progress, session.Cancellation));

        var screen = session.Screen;
        screen.Result($"{config.Data.Path}, read as layout {record.Layout}: {Count(record.DefectsLeftOut)} images of defects are left out");
        screen.Result(Row("category", "normal", config.Method, "not made", "no object"));
        foreach (var category in record.Normal.GroupBy(normal => normal.Category))
        {
            screen.Result(Row(category.Key, category.Count(), record, defect => defect == category.Key));
        }

        screen.Result(Row("all", record.Normal.Count, record, _ => true));
        if (record.Defects.Any(defect => defect.WholeImage))
        {
            screen.Result("no object: it could not be told from a background, so that the patch may lie anywhere in the image");
        }

        foreach (var skipped in record.Skipped)
        {
            screen.Result($"not used: {skipped.ImagePath}: {skipped.Reason}");
        }

        screen.Result($"written to {config.Out}");
        return 0;
    }

    private static SizeRange Size(Values values) =>
        values.Text.Split("..") is [var least, var most] && Share(least) is { } from && Share(most) is { } to ? new SizeRange(from, to) : throw values.Bad($"must be two numbers such as 0.02..0.15, not '{values.Text}'");

    private static double? Share(string text) => double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var value) && double.IsFinite(value) ? value : null;

    private static string Row(string name, int normal, SynthRecord record, Func<string, bool> isIn) => Row(
        name, Count(normal), Count(record.Defects.Count(defect => isIn(defect.Category))), Count(record.NotMade.Count(failure => isIn(failure.Category))),
        Count(record.Defects.Count(defect => isIn(defect.Category) && defect.WholeImage)));

    private static string Row(string name, params string[] cells) => $"{name,-24}{string.Concat(cells.Select(cell => cell.PadLeft(12)))}";

    private static string Count(int count) => count.ToString("N0", CultureInfo.InvariantCulture);
}
