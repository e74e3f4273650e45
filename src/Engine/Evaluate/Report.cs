using System.Globalization;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Evaluate;

/// <summary>What a report shows.</summary>
internal sealed record ReportData
{
    /// <summary>The evaluation.</summary>
    public required EvalResult Result { get; init; }

    /// <summary>Its images.</summary>
    public required IReadOnlyList<Prediction> Predictions { get; init; }

    /// <summary>The same images before training, if known.</summary>
    public EvalResult? Before { get; init; }

    /// <summary>The lines of metrics.jsonl, if it is a training run's report.</summary>
    public IReadOnlyList<JsonObject> Training { get; init; } = [];

    /// <summary>Evaluations in the course of training, step by step.</summary>
    public IReadOnlyList<(int Step, Figures Pooled)> Course { get; init; } = [];
}

/// <summary>report.html: one file that needs nothing else to be looked at.</summary>
internal static class Report
{
    private static readonly Lazy<Html> Style = new(() => Html.Trusted(Resource("Theme.css") + Resource("Report.css")));
    private static readonly Lazy<Html> Script = new(() => Html.Trusted(Resource("Theme.js") + Resource("Report.js")));

    /// <summary>Writes a report. Images that are gone meanwhile are shown as gone.</summary>
    /// <param name="file">The file.</param>
    /// <param name="data">What it shows.</param>
    /// <param name="cancellation">Stops it; what was there before stays.</param>
    /// <exception cref="InputException">The file cannot be written.</exception>
    public static void Write(string file, ReportData data, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(data);
        AtomicFile.Write(file, stream =>
        {
            using var writer = new StreamWriter(stream, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false), bufferSize: 1 << 16, leaveOpen: true);
            foreach (var piece in Pieces(data, Path.GetDirectoryName(Path.GetFullPath(file))!))
            {
                cancellation.ThrowIfCancellationRequested();
                writer.Write(piece);
            }
        });
    }

    /// <summary>The page, piece by piece: its images are never all in memory.</summary>
    /// <param name="data">What it shows.</param>
    /// <param name="folder">Where the page will lie: image files are named relative to it.</param>
    internal static IEnumerable<Html> Pieces(ReportData data, string folder)
    {
        var name = ReportText.Name(ReportText.Setting(data.Result, "data"));
        yield return Html.Of($"""
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
            <meta http-equiv="Content-Security-Policy" content="{Policy()}">
            <title>{name} · lriad-fast</title><style>{Style.Value}</style><script>{Script.Value}</script></head><body><main>
            {Header(data, name)}
            {Tiles(data)}
            {ReportTables.Comparison(data)}
            {ReportVerdicts.Section(data)}
            {ReportTables.Categories(data)}
            {ReportTraining.Section(data)}

            """);
        foreach (var piece in ReportGallery.Pieces(data.Predictions, folder))
        {
            yield return piece;
        }

        yield return Html.Of($"""
            {Skipped(data.Result)}
            {Settings(data.Result)}
            </main></body></html>

            """);
    }

    // The page's own script and no other; pictures from the page itself or from where the images lie.
    private static string Policy() =>
        $"default-src 'none'; style-src 'unsafe-inline'; img-src data: file: 'self'; script-src 'sha256-{Convert.ToBase64String(SHA256.HashData(Encoding.UTF8.GetBytes(Script.Value.ToString())))}'";

    private static Html Header(ReportData data, string name)
    {
        var (figures, result) = (data.Result.Pooled, data.Result);
        var (defects, normals) = (figures.TruePositives + figures.FalseNegatives, figures.TrueNegatives + figures.FalsePositives);
        var adapter = ReportText.Setting(result, "adapter");
        return Html.Of($"""
            <header><div class="top"><p class="eyebrow">lriad-fast · defects found, and why</p><button type="button" id="theme" hidden>dark theme</button></div><h1>{name}</h1>
            <p class="lede">{(defects == 0 ? Html.Of($"There are no defects to find") : Html.Of($"Finds <b>{figures.TruePositives} of {defects}</b> defects"))}{(normals == 0 ? Html.Of($"; there are no normal parts to pass") : Html.Of($"{(defects == 0 ? "; it" : " and")} cries wolf on <b>{figures.FalsePositives} of {normals}</b> normal parts"))}.</p>
            <p class="meta">{result.Pooled.N} images in {result.Classes.Count} {(result.Classes.Count == 1 ? "category" : "categories")} · {ReportText.Name(ReportText.Setting(result, "model"))}{(adapter is null ? " without adapter" : $" · adapter {adapter}")}</p></header>
            """);
    }

    private static Html Tiles(ReportData data)
    {
        var (result, figures, before) = (data.Result, data.Result.Pooled, data.Before?.Pooled);
        var invalid = figures.Invalid == 0 ? "every answer is in the required form" : $"of {data.Predictions.Count}; counted as {ReportText.Setting(result, "invalid") ?? "wrong"}";
        var trivial = result.Baselines.Select(baseline => $"{ReportText.Words(baseline.Key)} {ReportText.Show(baseline.Value.BalancedAccuracy)}");
        return Html.Of($"""
            <section class="tiles" aria-label="headline figures">
            {Tile("lead wide", "balanced accuracy", figures.BalancedAccuracy, before?.BalancedAccuracy, Html.Of($"{ReportText.Interval(result.BalancedAccuracyInterval)}<br>beside: {string.Join(", ", trivial)}"))}
            {Tile("lead", "defect recall", figures.Recall, before?.Recall, Html.Of($"{figures.TruePositives} of {figures.TruePositives + figures.FalseNegatives} defects found{Also(ReportText.Interval(result.Intervals?.Pooled.Recall))}"))}
            {Tile("", "false alarms", 1 - figures.Specificity, 1 - before?.Specificity, Html.Of($"{figures.FalsePositives} of {figures.TrueNegatives + figures.FalsePositives} normal parts rejected"), lowerIsBetter: true)}
            {Tile("", "AUROC of the score", figures.Auroc, before?.Auroc, Html.Of($"average precision {ReportText.Show(figures.AveragePrecision)}{Also(ReportText.Interval(result.Intervals?.Pooled.Auroc))}"))}
            <div class="tile"><h2>invalid answers</h2><p class="number">{figures.Invalid}</p><p class="sub">{invalid}</p></div>
            </section>
            """);
    }

    private static Html Also(string text) => text.Length == 0 ? Html.None : Html.Of($"<br>{text}");

    private static Html Tile(string kind, string name, double? value, double? before, Html sub, bool lowerIsBetter = false)
    {
        var direction = lowerIsBetter ? before - value : value - before;
        return Html.Of($"""
            <div class="tile {kind}"><h2>{name}</h2><p class="number">{ReportText.Show(value)}{(value - before is { } change ? Html.Of($"""<span class="change {(direction < 0 ? "down" : direction > 0 ? "up" : "")}">{change:+0.000;−0.000;±0.000}</span>""") : Html.None)}</p><p class="sub">{sub}</p></div>
            """);
    }

    private static Html Skipped(EvalResult result) => result.Skipped.Count == 0 ? Html.None : ReportText.Section(
        "Not judged",
        $"{result.Skipped.Count} {(result.Skipped.Count == 1 ? "image was" : "images were")} passed over: no figure counts them.",
        Html.Of($"""<ul class="skipped">{result.Skipped.Select(skipped => Html.Of($"<li><code>{skipped.ImagePath}</code> {skipped.Reason}</li>"))}</ul>"""));

    private static Html Settings(EvalResult result)
    {
        var version = typeof(Report).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion;
        IEnumerable<(string Name, string? Value)> settings = [("lriad-fast", version), .. result.Settings.Select(setting => (ReportText.Words(setting.Key), ReportText.Of(setting.Value))).Where(setting => setting.Item2 is not null)];
        return ReportText.Section("Settings and versions", "What it takes to make these figures again.", Html.Of($"""
            <table class="settings"><tbody>{settings.Select(setting => Html.Of($"""<tr><th scope="row">{setting.Name}</th><td>{setting.Value}</td></tr>"""))}</tbody></table>
            """));
    }

    private static string Resource(string name)
    {
        using var stream = typeof(Report).Assembly.GetManifestResourceStream("LrIad.Engine.Evaluate." + name)!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().ReplaceLineEndings("\n");
    }
}

/// <summary>How the report's parts word things.</summary>
internal static class ReportText
{
    /// <summary>A figure, or a dash where there is none.</summary>
    public static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";

    /// <summary>A figure's 95% interval in words; empty where it is not known.</summary>
    public static string Interval(double[]? interval) => interval is [var low, var high]
        ? string.Create(CultureInfo.InvariantCulture, $"95%: {low:F3} to {high:F3}")
        : "";

    /// <summary>A name of JSON or of an enum as words: always_normal, MissingTag.</summary>
    public static string Words(string name) => string.Concat(name.Select((letter, i) => letter == '_' ? " " : char.IsUpper(letter) ? (i == 0 ? "" : " ") + char.ToLowerInvariant(letter) : letter.ToString()));

    /// <summary>A setting of an evaluation, or null.</summary>
    public static string? Setting(EvalResult result, string name) => Of(result.Settings.GetValueOrDefault(name));

    /// <summary>A setting's value as a text: lists and the like as JSON, empty ones not at all.</summary>
    public static string? Of(object? value) => value switch
    {
        null or System.Collections.ICollection { Count: 0 } => null,
        IConvertible => Convert.ToString(value, CultureInfo.InvariantCulture),
        _ => JsonSerializer.Serialize(value, Evaluation.Line),
    };

    /// <summary>The last part of a path.</summary>
    public static string Name(string? path) => Path.GetFileName(Path.TrimEndingDirectorySeparator(path ?? ""));

    /// <summary>A part of the page.</summary>
    public static Html Section(string title, string hint, Html content) => Html.Of($"""<section><h2>{title}</h2><p class="hint">{hint}</p>{content}</section>""");

    /// <summary>A wide table: on a narrow screen it scrolls by itself, with the keyboard too.</summary>
    public static Html Wide(string name, Html table) => Html.Of($"""<div class="scroll" role="region" aria-label="{name}" tabindex="0">{table}</div>""");
}
