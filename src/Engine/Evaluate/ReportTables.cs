using System.Globalization;

namespace LrIad.Engine.Evaluate;

/// <summary>The report's tables of figures.</summary>
internal static class ReportTables
{
    private static readonly (string Name, Func<Figures, double?> Of)[] Columns =
    [
        ("recall", figures => figures.Recall), ("specificity", figures => figures.Specificity), ("precision", figures => figures.Precision),
        ("accuracy", figures => figures.Accuracy), ("macro F1", figures => figures.F1Macro), ("AUROC", figures => figures.Auroc), ("AP", figures => figures.AveragePrecision),
    ];

    /// <summary>The model beside itself before training, the trivial answers and the untrained probe.</summary>
    public static Html Comparison(ReportData data)
    {
        var result = data.Result;
        var rows = new List<(string Name, Figures Figures, string Kind)> { (data.Before is null ? "this model" : "after training", result.Pooled, "own") };
        if (data.Before is { } before)
        {
            rows.Add(("before training", before.Pooled, ""));
        }

        if (result.Thresholded is { } thresholded)
        {
            rows.Add((string.Create(CultureInfo.InvariantCulture, $"score from {thresholded.Threshold:G4} on ({thresholded.Rule})"), thresholded.Pooled, ""));
        }

        rows.AddRange(result.Baselines.Select(baseline => (ReportText.Words(baseline.Key), baseline.Value, "trivial")));
        return ReportText.Section(
            "Beside the trivial answers",
            "Where defects are rare, always saying “normal” is accurate and useless: balanced accuracy and recall tell the two apart." + Change(data),
            Table("beside the trivial answers", "", "answers of", ["invalid"], rows.Select(row => Row(row.Name, row.Kind, row.Figures, null, [row.Figures.Invalid]))));
    }

    /// <summary>A category a row, the weakest first.</summary>
    public static Html Categories(ReportData data)
    {
        if (data.Result.Classes.Count == 0)
        {
            return Html.None;
        }

        var rows = data.Result.Classes.OrderBy(row => row.Value.BalancedAccuracy ?? 2).ThenBy(row => row.Key, StringComparer.Ordinal).Select(row => Row(
            row.Key.Replace('_', ' '),
            "",
            row.Value,
            data.Before?.Classes.GetValueOrDefault(row.Key)?.BalancedAccuracy,
            [row.Value.TruePositives + row.Value.FalseNegatives, row.Value.TrueNegatives + row.Value.FalsePositives, row.Value.Invalid]));
        return ReportText.Section(
            "By category",
            "The weakest first." + (data.Before is null ? "" : " The mark on a bar is where it stood before training."),
            Table("by category", "sortable", "category", ["defects", "normal", "invalid"], rows));
    }

    private static Html Table(string name, string kind, string first, string[] counts, IEnumerable<Html> rows) => ReportText.Wide(name, Html.Of($"""
        <table class="figures {kind}"><thead><tr><th scope="col">{first}</th><th scope="col" class="long">balanced accuracy</th>{Columns.Select(column => column.Name).Concat(counts).Select(column => Html.Of($"""<th scope="col">{column}</th>"""))}</tr></thead><tbody>
        {rows}</tbody></table>
        """));

    private static Html Row(string name, string kind, Figures figures, double? before, int[] counts) => Html.Of($"""
        <tr class="{kind}"><th scope="row">{name}</th><td class="long">{Bar(figures.BalancedAccuracy, before)}<span>{ReportText.Show(figures.BalancedAccuracy)}</span></td>{Columns.Select(column => Html.Of($"<td>{ReportText.Show(column.Of(figures))}</td>"))}{counts.Select(count => Html.Of($"<td>{count}</td>"))}</tr>

        """);

    private static Html Bar(double? value, double? before) => value is not { } share ? Html.None : Html.Of($"""
        <span class="bar" style="--v:{share:F3}">{(before is { } mark ? Html.Of($"""<i style="--v:{mark:F3}" title="before training {mark:F3}"></i>""") : Html.None)}</span>
        """);

    private static string Change(ReportData data) => data.Before is { } before && data.Result.ChangeSince(before) is var (change, low, high)
        ? string.Create(CultureInfo.InvariantCulture, $" Training changed balanced accuracy by {change:+0.000;−0.000;0.000} (95%: {low:+0.000;−0.000;0.000} to {high:+0.000;−0.000;0.000}).")
        : "";
}
