using System.Globalization;

namespace LrIad.Engine.Evaluate;

/// <summary>The report's part on verdicts and scores: confusion, answers that are none, the two classes' scores, the ROC curve.</summary>
internal static class ReportVerdicts
{
    private static readonly Dictionary<string, string> InvalidKinds = new()
    {
        ["CutOff"] = "cut off by the length limit",
        ["MissingTag"] = "a tag is missing",
        ["RepeatedTag"] = "a tag stands there twice",
        ["BadOption"] = "neither A nor B between the answer tags",
        ["ExtraText"] = "text outside the tags",
    };

    /// <summary>The section.</summary>
    public static Html Section(ReportData data)
    {
        var scored = data.Predictions.Select(prediction => (prediction.PredScore, prediction.GtLabel == 1)).ToArray();
        var curves = data.Result.Pooled is { Recall: { } recall, Specificity: { } specificity }
            ? Html.Of($"""<div><h3>Every threshold of the score</h3>{ReportCharts.Roc(scored, [.. Verdicts(data, recall, specificity)])}</div>""")
            : Html.None;
        return ReportText.Section(
            "Verdicts and scores",
            "The verdict is what the model answers after reasoning. The score ranks images without it; its curve says what another threshold would give.",
            Html.Of($"""
                <div class="pair"><div>{Confusion(data)}{Invalid(data.Result)}<p class="sub">{data.Result.Contradictions} valid {(data.Result.Contradictions == 1 ? "answer says" : "answers say")} the opposite of {(data.Result.Contradictions == 1 ? "its" : "their")} own reasoning.</p>
                {(scored.Length == 0 ? Html.None : Html.Of($"""<h3 class="later">Scores of the two classes, each as shares of its own</h3>{ReportHistogram.Render(scored)}"""))}</div>{curves}</div>
                """));
    }

    private static IEnumerable<(string Name, double FalseAlarms, double Recall)> Verdicts(ReportData data, double recall, double specificity)
    {
        yield return ("the verdicts", 1 - specificity, recall);
        if (data.Before?.Pooled is { Recall: { } earlier, Specificity: { } earlierSpecificity })
        {
            yield return ("those before training", 1 - earlierSpecificity, earlier);
        }
    }

    private static Html Confusion(ReportData data)
    {
        Html Cell(int label, int? answer, string kind)
        {
            var all = data.Predictions.Count(prediction => prediction.GtLabel == label);
            var count = data.Predictions.Count(prediction => prediction.GtLabel == label && prediction.PredLabel == answer);
            var share = all == 0 ? 0 : (double)count / all;
            return Html.Of($"""<td class="cell {kind}" style="--v:{share:F3}"><b>{count}</b> <span>{(all == 0 ? "" : share.ToString("0%", CultureInfo.InvariantCulture))}</span></td>""");
        }

        return Html.Of($"""
            <h3>What was answered</h3><table class="confusion"><thead><tr><td></td><th scope="col">“defect”</th><th scope="col">“normal”</th><th scope="col">invalid</th></tr></thead><tbody>
            <tr><th scope="row">defects</th>{Cell(1, 1, "found")}{Cell(1, 0, "missed")}{Cell(1, null, "invalid")}</tr>
            <tr><th scope="row">normal parts</th>{Cell(0, 1, "alarm")}{Cell(0, 0, "passed")}{Cell(0, null, "invalid")}</tr></tbody></table>
            """);
    }

    private static Html Invalid(EvalResult result) => result.InvalidKinds.Values.Sum() == 0 ? Html.None : Html.Of($"""
        <table class="kinds"><thead><tr><th scope="col">invalid because</th><th scope="col">answers</th></tr></thead><tbody>{result.InvalidKinds.OrderByDescending(kind => kind.Value).Select(kind => Html.Of($"""<tr><th scope="row">{InvalidKinds.GetValueOrDefault(kind.Key) ?? ReportText.Words(kind.Key)}</th><td>{kind.Value}</td></tr>"""))}</tbody></table>
        """);
}
