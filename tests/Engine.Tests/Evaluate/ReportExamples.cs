using System.Text.Json.Nodes;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>Reports to look at.</summary>
internal static class ReportExamples
{
    /// <summary>An image of the sample.</summary>
    public static readonly string Image = Directory.GetFiles(TestFiles.Sample("parts-mvtec"), "*.png", SearchOption.AllDirectories).Order(StringComparer.Ordinal).First();

    public static string Render(ReportData data) => string.Concat(Report.Pieces(data, TestFiles.Root));

    public static ReportData Training()
    {
        Prediction[] before = [Of(1, 0, -1), Of(1, 0, 0.2), Of(0, 0, -2), Of(0, 0, -1)];
        Prediction[] after = [Of(1, 1, 1, "A crack."), Of(1, 0, -0.2), Of(0, 0, -2), Of(0, 0, -1)];
        return new ReportData
        {
            Result = Result(after),
            Predictions = after,
            Before = Result(before),
            Training = [.. Enumerable.Range(1, 30).Select(step => new JsonObject { ["step"] = step, ["reward"] = step / 30.0, ["loss"] = 1e-8 * step, ["rewards/format/mean"] = 1.0, ["kl"] = null, ["grad_norm"] = 0.1 * step })],
            Course = [(0, Result(before).Pooled), (30, Result(after).Pooled)],
        };
    }

    public static Prediction Of(int label, int? verdict, double score, string reasoning = "Regular.") => new()
    {
        ImagePath = Image,
        Object = "metal_nut",
        GtLabel = label,
        PredLabel = verdict,
        PredScore = score,
        Explanation = reasoning,
        Completion = verdict is { } said ? $"<think>{reasoning}</think> <answer>{(said == 1 ? "A" : "B")}</answer>" : reasoning,
        Valid = verdict is not null,
    };

    public static EvalResult Result(Prediction[] predictions)
    {
        Judged[] judged = [.. predictions.Select(p => new Judged(p.Object, p.GtLabel == 1, p.PredLabel switch { 1 => AnswerKind.Defect, 0 => AnswerKind.Normal, _ => AnswerKind.Invalid }, p.PredScore))];
        var pooled = Metrics.Compute(judged, "wrong");
        return new EvalResult
        {
            Pooled = pooled,
            BalancedAccuracyInterval = judged.Length == 0 ? null : Bootstrap.Of(judged, "wrong", seed: 0).BalancedAccuracy,
            Classes = judged.GroupBy(item => item.Object).ToDictionary(group => group.Key, group => Metrics.Compute([.. group], "wrong")),
            Baselines = new Dictionary<string, Figures> { ["always_normal"] = Metrics.Always(judged, AnswerKind.Normal), ["always_defect"] = Metrics.Always(judged, AnswerKind.Defect) },
            InvalidKinds = new Dictionary<string, int> { ["MissingTag"] = pooled.Invalid },
            Contradictions = 0,
            Skipped = [],
            Settings = new Dictionary<string, object?> { ["data"] = "samples/parts-mvtec", ["model"] = "samples/tiny-qwen2-vl", ["adapter"] = null, ["votes"] = 0 },
        };
    }
}
