using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Evaluate;

/// <summary>What a report shows.</summary>
public sealed record ReportData
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
public static class Report
{
    private static readonly (string Key, string Name)[] Curves =
    [
        ("reward", "reward"), ("frac_reward_zero_std", "groups without spread"), ("completions/mean_length", "tokens a completion"),
        ("entropy", "entropy"), ("kl", "KL to the reference"), ("grad_norm", "gradient norm"),
    ];

    private static readonly Lazy<Html> Style = new(ReadStyle);

    /// <summary>Writes a report.</summary>
    /// <exception cref="InputException">The file cannot be written.</exception>
    public static void Write(string file, ReportData data) => AtomicFile.WriteText(file, Render(data));

    internal static string Render(ReportData data)
    {
        ArgumentNullException.ThrowIfNull(data);
        var name = Path.GetFileName(Path.TrimEndingDirectorySeparator(Setting(data.Result, "data") ?? ""));
        var page = Html.Of($"""
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
            <title>{name} · lriad-fast</title><style>{Style.Value}</style></head><body><main>
            {Header(data, name)}
            {Tiles(data)}
            {Comparison(data)}
            {Verdicts(data)}
            {Categories(data)}
            {TrainingCurves(data)}
            {(data.Predictions.Count > 0 ? Section("Images", $"{Math.Min(ReportGallery.Size, data.Predictions.Count)} of {data.Predictions.Count}, the worst first: wrong verdicts by how sure the score is of them, then right ones, the narrowest first.", ReportGallery.Render(data.Predictions)) : Html.None)}
            {Small(data.Result)}
            </main></body></html>
            """);
        return page.ToString();
    }

    private static Html Header(ReportData data, string name)
    {
        var (figures, result) = (data.Result.Pooled, data.Result);
        var adapter = Setting(result, "adapter");
        return Html.Of($"""
            <header><p class="eyebrow">lriad-fast · defects found, and why</p><h1>{name}</h1>
            <p class="lede">{(figures.Recall is { } recall ? Html.Of($"Finds <b>{recall:0%}</b> of the defects") : Html.Of($"There are no defects to find"))} and
            {(figures.Specificity is { } specificity ? Html.Of($"passes <b>{specificity:0%}</b> of the normal parts") : Html.Of($"no normal parts to pass"))}.</p>
            <p class="meta">{figures.N} images in {result.Classes.Count} categories · {Path.GetFileName(Path.TrimEndingDirectorySeparator(Setting(result, "model") ?? ""))}{(adapter is null ? " without adapter" : $" · adapter {adapter}")}</p></header>
            """);
    }

    private static Html Tiles(ReportData data)
    {
        var (figures, before) = (data.Result.Pooled, data.Before?.Pooled);
        var interval = data.Result.BalancedAccuracyInterval is [var low, var high] ? Html.Of($"95%: {low:F2} to {high:F2}") : Html.None;
        var invalid = data.Result.InvalidKinds.Count == 0 ? "every answer is in the required form" : string.Join(", ", data.Result.InvalidKinds.Select(kind => $"{kind.Value} {Words(kind.Key)}"));
        return Html.Of($"""
            <section class="tiles">
            {Tile("lead", "balanced accuracy", figures.BalancedAccuracy, before?.BalancedAccuracy, interval)}
            {Tile("lead", "defect recall", figures.Recall, before?.Recall, Html.Of($"{figures.TruePositives} of {figures.TruePositives + figures.FalseNegatives} defects found"))}
            {Tile("", "specificity", figures.Specificity, before?.Specificity, Html.Of($"{figures.TrueNegatives} of {figures.TrueNegatives + figures.FalsePositives} normal parts passed"))}
            {Tile("", "AUROC of the score", figures.Auroc, before?.Auroc, Html.Of($"average precision {Show(figures.AveragePrecision)}"))}
            <div class="tile"><h3>invalid answers</h3><p class="number">{figures.Invalid}</p><p class="sub">{invalid}</p></div>
            </section>
            """);
    }

    private static Html Tile(string kind, string name, double? value, double? before, Html sub) => Html.Of($"""
        <div class="tile {kind}"><h3>{name}</h3><p class="number">{Show(value)}{(value - before is { } change ? Html.Of($"""<span class="change {(change < 0 ? "down" : change > 0 ? "up" : "")}">{change:+0.000;−0.000;±0.000}</span>""") : Html.None)}</p><p class="sub">{sub}</p></div>
        """);

    private static Html Comparison(ReportData data)
    {
        var result = data.Result;
        var rows = new List<(string Name, Figures Figures, string Kind)> { (data.Before is null ? "this model" : "after training", result.Pooled, "own") };
        if (data.Before is { } before)
        {
            rows.Add(("before training", before.Pooled, ""));
        }

        rows.AddRange(result.Baselines.Select(baseline => (baseline.Key.Replace('_', ' '), baseline.Value, "trivial")));
        var table = Html.Of($"""
            <table><thead><tr><th></th><th class="wide">balanced accuracy</th><th>recall</th><th>specificity</th><th>precision</th><th>accuracy</th><th>macro F1</th><th>AUROC</th><th>AP</th><th>invalid</th></tr></thead><tbody>
            {rows.Select(row => Html.Of($"""
                <tr class="{row.Kind}"><th>{row.Name}</th><td class="wide">{Bar(row.Figures.BalancedAccuracy, null)}<span>{Show(row.Figures.BalancedAccuracy)}</span></td><td>{Show(row.Figures.Recall)}</td><td>{Show(row.Figures.Specificity)}</td><td>{Show(row.Figures.Precision)}</td><td>{Show(row.Figures.Accuracy)}</td><td>{Show(row.Figures.F1Macro)}</td><td>{Show(row.Figures.Auroc)}</td><td>{Show(row.Figures.AveragePrecision)}</td><td>{row.Figures.Invalid}</td></tr>
                """))}</tbody></table>
            """);
        return Section("Beside the trivial answers", "Where defects are rare, always saying “normal” is accurate and useless: balanced accuracy and recall tell the two apart." + Change(data), table);
    }

    private static string Change(ReportData data) => data.Before is { } before && data.Result.ChangeSince(before) is var (change, low, high)
        ? string.Create(CultureInfo.InvariantCulture, $" Training changed balanced accuracy by {change:+0.000;−0.000;0.000} (95%: {low:+0.000;−0.000;0.000} to {high:+0.000;−0.000;0.000}).")
        : "";

    private static Html Verdicts(ReportData data)
    {
        var predictions = data.Predictions;
        int Count(int label, int? answer) => predictions.Count(prediction => prediction.GtLabel == label && prediction.PredLabel == answer);
        Html Cell(int label, int? answer, string kind)
        {
            var (count, all) = (Count(label, answer), predictions.Count(prediction => prediction.GtLabel == label));
            var share = all == 0 ? 0 : (double)count / all;
            return Html.Of($"""<td class="cell {kind}" style="--v:{share:F3}"><b>{count}</b><span>{(all == 0 ? "" : share.ToString("0%", CultureInfo.InvariantCulture))}</span></td>""");
        }

        var confusion = Html.Of($"""
            <div><h3>What was answered</h3><table class="confusion"><thead><tr><th></th><th>“defect”</th><th>“normal”</th><th>invalid</th></tr></thead><tbody>
            <tr><th>defects</th>{Cell(1, 1, "good")}{Cell(1, 0, "bad")}{Cell(1, null, "void")}</tr>
            <tr><th>normal parts</th>{Cell(0, 1, "alarm")}{Cell(0, 0, "good")}{Cell(0, null, "void")}</tr></tbody></table>
            <p class="sub">{data.Result.Contradictions} valid answers say the opposite of their own reasoning.</p></div>
            """);
        var scored = predictions.Select(prediction => (prediction.PredScore, prediction.GtLabel == 1)).ToArray();
        if (data.Result.Pooled is not { Recall: { } recall, Specificity: { } specificity })
        {
            return Html.Of($"""<section><h2>Verdicts</h2>{confusion}</section>""");
        }

        var verdicts = new List<(string, double, double)> { (data.Before is null ? "verdicts" : "after", 1 - specificity, recall) };
        if (data.Before?.Pooled is { Recall: { } earlier, Specificity: { } earlierSpecificity })
        {
            verdicts.Add(("before", 1 - earlierSpecificity, earlier));
        }

        return Html.Of($"""
            <section><h2>Verdicts and scores</h2><p class="hint">The verdict is what the model answers after reasoning. The score ranks images without it; its curve says what another threshold would give.</p>
            <div class="pair">{confusion}<div><h3>Every threshold of the score</h3>{ReportCharts.Roc(scored, verdicts)}</div></div></section>
            """);
    }

    private static Html Categories(ReportData data)
    {
        if (data.Result.Classes.Count == 0)
        {
            return Html.None;
        }

        var rows = data.Result.Classes.OrderBy(row => row.Value.BalancedAccuracy ?? 2).ThenBy(row => row.Key, StringComparer.Ordinal);
        return Section("By category", "The weakest first." + (data.Before is null ? "" : " The mark on a bar is where it stood before training."), Html.Of($"""
            <table><thead><tr><th></th><th class="wide">balanced accuracy</th><th>recall</th><th>specificity</th><th>accuracy</th><th>AUROC</th><th>defects</th><th>normal</th><th>invalid</th></tr></thead><tbody>
            {rows.Select(row => Html.Of($"""
                <tr><th>{row.Key.Replace('_', ' ')}</th><td class="wide">{Bar(row.Value.BalancedAccuracy, data.Before?.Classes.GetValueOrDefault(row.Key)?.BalancedAccuracy)}<span>{Show(row.Value.BalancedAccuracy)}</span></td><td>{Show(row.Value.Recall)}</td><td>{Show(row.Value.Specificity)}</td><td>{Show(row.Value.Accuracy)}</td><td>{Show(row.Value.Auroc)}</td><td>{row.Value.TruePositives + row.Value.FalseNegatives}</td><td>{row.Value.TrueNegatives + row.Value.FalsePositives}</td><td>{row.Value.Invalid}</td></tr>
                """))}</tbody></table>
            """));
    }

    private static Html TrainingCurves(ReportData data)
    {
        var rewards = data.Training.Count == 0 ? [] : data.Training[0].Select(field => field.Key).Where(key => key.StartsWith("rewards/", StringComparison.Ordinal) && key.EndsWith("/mean", StringComparison.Ordinal)).Select(key => (key, key.Split('/')[1] + " reward"));
        var charts = Curves[..1].Concat(rewards).Concat(Curves[1..])
            .Select(curve => new ChartLine(curve.Item2, Points(data.Training, curve.Item1)))
            .Where(line => line.Points.Count > 1)
            .Select(line => Html.Of($"""<div class="chart"><h3>{line.Name}<span>{line.Points[^1].Y:0.###}</span></h3>{ReportCharts.Curve(line)}</div>"""))
            .ToList();
        if (data.Course.Count > 1)
        {
            charts.Insert(0, CourseChart(data.Course));
        }

        return charts.Count == 0 ? Html.None : Section("Training", $"{data.Training.Count} steps; each value is one step's.", Html.Of($"""<div class="charts">{charts}</div>"""));
    }

    private static Html CourseChart(IReadOnlyList<(int Step, Figures Pooled)> course)
    {
        ChartLine Line(string name, Func<Figures, double?> of) => new(name, [.. course.Where(point => of(point.Pooled) is not null).Select(point => ((double)point.Step, of(point.Pooled)!.Value))]);
        var lines = new[] { Line("balanced accuracy", figures => figures.BalancedAccuracy), Line("recall", figures => figures.Recall), Line("specificity", figures => figures.Specificity) };
        var known = lines.All(line => line.Points.Count > 1);
        return !known ? Html.None : Html.Of($"""
            <div class="chart"><h3>on these images</h3>{ReportCharts.Shares(lines)}<p class="legend">{lines.Select((line, i) => Html.Of($"""<span class="s{i}">{line.Name}</span>"""))}</p></div>
            """);
    }

    private static Html Small(EvalResult result) => Html.Of($"""
        <section class="small">
        {(result.Skipped.Count == 0 ? Html.None : Html.Of($"""<details open><summary>{result.Skipped.Count} {(result.Skipped.Count == 1 ? "image was" : "images were")} passed over</summary><ul>{result.Skipped.Select(skipped => Html.Of($"<li><code>{skipped.ImagePath}</code> {skipped.Reason}</li>"))}</ul></details>"""))}
        <details><summary>Settings</summary><table class="settings">{result.Settings.Select(setting => Html.Of($"<tr><th>{setting.Key}</th><td>{Text(setting.Value) ?? "–"}</td></tr>"))}</table></details></section>
        """);

    private static Html Section(string title, string hint, Html content) => Html.Of($"""<section><h2>{title}</h2><p class="hint">{hint}</p>{content}</section>""");

    private static Html Bar(double? value, double? before) => value is not { } share ? Html.None : Html.Of($"""
        <span class="bar" style="--v:{share:F3}">{(before is { } mark ? Html.Of($"""<i style="--v:{mark:F3}"></i>""") : Html.None)}</span>
        """);

    private static IReadOnlyList<(double X, double Y)> Points(IReadOnlyList<JsonObject> lines, string key) =>
        [.. lines.Where(line => line[key]?.GetValueKind() == JsonValueKind.Number).Select(line => (Number(line["step"]!), Number(line[key]!)))];

    private static double Number(JsonNode node) => JsonSerializer.SerializeToElement(node).GetDouble();

    private static string Words(string kind) => string.Concat(kind.Select((letter, i) => char.IsUpper(letter) ? (i == 0 ? "" : " ") + char.ToLowerInvariant(letter) : letter.ToString()));

    private static string? Setting(EvalResult result, string name) => Text(result.Settings.GetValueOrDefault(name));

    private static string? Text(object? value) => value is null ? null : Convert.ToString(value, CultureInfo.InvariantCulture);

    private static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";

    private static Html ReadStyle()
    {
        using var stream = typeof(Report).Assembly.GetManifestResourceStream("LrIad.Engine.Evaluate.Report.css")!;
        using var reader = new StreamReader(stream);
        return Html.Trusted(reader.ReadToEnd());
    }
}
