using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Evaluate;

/// <summary>The report's training curves: what TensorBoard shows, and the evaluations in its course.</summary>
internal static class ReportTraining
{
    private static readonly (string Key, string Name)[] Curves =
    [
        ("loss", "loss"), ("frac_reward_zero_std", "groups without spread"), ("completions/mean_length", "tokens a completion"), ("entropy", "entropy"),
        ("kl", "KL to the reference"), ("grad_norm", "gradient norm"),
    ];

    /// <summary>The section; nothing where there was no training.</summary>
    public static Html Section(ReportData data)
    {
        var rewards = data.Training.SelectMany(line => line.Select(field => field.Key)).Distinct().Where(key => key.StartsWith("rewards/", StringComparison.Ordinal) && key.EndsWith("/mean", StringComparison.Ordinal))
            .Select(key => (key, key.Split('/')[1] + " reward"));
        var charts = rewards.Prepend(("reward", "reward")).Concat(Curves)
            .Select(curve => new ChartLine(curve.Item2, Points(data.Training, curve.Item1)))
            .Where(line => line.Points.Count > 1)
            .Select(line => Html.Of($"""<div class="chart"><h3>{line.Name}<span>{line.Points[^1].Y:G3}</span></h3>{ReportCharts.Curve(line)}</div>"""))
            .ToList();
        if (data.Course.Count > 1)
        {
            charts.Insert(0, Course(data.Course));
        }

        return charts.Count == 0 ? Html.None : ReportText.Section(
            "Training",
            $"{data.Training.Count} steps; each value is one step's, the thicker line the mean of those around it. The number beside a name is the last step's.",
            Html.Of($"""<div class="charts">{charts}</div>"""));
    }

    private static Html Course(IReadOnlyList<(int Step, Figures Pooled)> course)
    {
        ChartLine Line(string name, Func<Figures, double?> of) => new(name, [.. course.Where(point => of(point.Pooled) is not null).Select(point => ((double)point.Step, of(point.Pooled)!.Value))]);
        var lines = new[] { Line("balanced accuracy", figures => figures.BalancedAccuracy), Line("recall", figures => figures.Recall), Line("specificity", figures => figures.Specificity) };
        var known = lines.All(line => line.Points.Count > 1);
        return !known ? Html.None : Html.Of($"""
            <div class="chart"><h3>on these images</h3>{ReportCharts.Shares(lines)}<p class="legend">{lines.Select((line, i) => Html.Of($"""<span class="s{i}">{line.Name}</span>"""))}</p></div>
            """);
    }

    private static IReadOnlyList<(double X, double Y)> Points(IReadOnlyList<JsonObject> lines, string key) =>
        [.. lines.Where(line => line[key]?.GetValueKind() == JsonValueKind.Number).Select(line => (Number(line["step"]!), Number(line[key]!)))];

    private static double Number(JsonNode node) => JsonSerializer.SerializeToElement(node).GetDouble();
}
