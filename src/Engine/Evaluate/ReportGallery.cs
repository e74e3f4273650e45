using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>
/// The report's gallery: every image with verdict, score and reasoning, the worst first. The first cards are plain markup; more cards, and a table of the images without a picture,
/// lie in noscript elements. Without the script they are simply there; with it they cost nothing until it takes them in.
/// </summary>
internal static class ReportGallery
{
    /// <summary>Cards of the first page, images with a picture at most, and how many of those are kept for right verdicts.</summary>
    internal const int Page = 60, Pictures = 2000, KeptForRight = 200;

    private static readonly (string Class, string Name)[] Kinds =
        [("missed", "missed defect"), ("alarm", "false alarm"), ("invalid", "invalid answer"), ("found", "defect found"), ("passed", "normal, passed")];

    /// <summary>The gallery, piece by piece.</summary>
    /// <param name="predictions">All images.</param>
    /// <param name="folder">Where the page lies.</param>
    public static IEnumerable<Html> Pieces(IReadOnlyList<Prediction> predictions, string folder)
    {
        if (predictions.Count == 0)
        {
            yield break;
        }

        var (pictured, others) = Choose(predictions);
        var categories = predictions.Select(prediction => prediction.Object).Distinct().Order(StringComparer.Ordinal).ToArray();
        var kinds = Kinds.Select(kind => (kind.Class, kind.Name, Count: predictions.Count(prediction => KindOf(prediction) == kind))).Where(kind => kind.Count > 0).ToArray();
        yield return Html.Of($"""
            <section class="gallery" data-page="{Page}" data-count="{predictions.Count}"><h2>Images</h2>
            <p class="hint">The worst first: wrong verdicts by how sure the score is of them, then right ones, the narrowest first.{(others.Count == 0 ? "" : $" {pictured.Count} have a picture in this file.")}</p>
            <form class="controls" hidden>
            <fieldset><legend>verdict</legend><label><input type="radio" name="kind" value="" checked><span>all {predictions.Count}</span></label>{kinds.Select(kind => Html.Of($"""<label><input type="radio" name="kind" value="{kind.Class}"><span>{kind.Name} {kind.Count}</span></label>"""))}</fieldset>
            <label>category <select name="category"><option value="">all</option>{categories.Select(category => Html.Of($"""<option value="{category}">{category.Replace('_', ' ')}</option>"""))}</select></label>
            <label>order <select name="order"><option value="worst">wrong first</option><option value="high">highest score first</option><option value="low">lowest score first</option><option value="category">by category</option></select></label>
            <label>in the reasoning <input type="search" name="text" autocomplete="off"></label>
            <p role="status"></p></form>
            <ul class="cards">

            """);
        var budget = ReportPicture.Budget(predictions, pictured.Count);
        var cards = pictured.AsParallel().AsOrdered().WithDegreeOfParallelism(Math.Min(Environment.ProcessorCount, 8)).WithMergeOptions(ParallelMergeOptions.NotBuffered)
            .Select(prediction => Card(prediction, ReportPicture.Of(prediction.ImagePath, budget), folder));
        var written = 0;
        foreach (var card in cards)
        {
            if (written++ == Page)
            {
                yield return Html.Of($"""</ul><noscript><ul class="cards">""");
            }

            yield return card;
        }

        yield return written > Page ? Html.Of($"</ul></noscript>") : Html.Of($"</ul>");
        if (others.Count > 0)
        {
            yield return Html.Of($"""
                <noscript><table class="rows"><thead><tr><th scope="col">image</th><th scope="col">verdict</th><th scope="col">score</th><th scope="col">reasoning</th></tr></thead><tbody>

                """);
            foreach (var prediction in others)
            {
                yield return Row(prediction, folder);
            }

            yield return Html.Of($"</tbody></table></noscript>");
        }

        yield return Html.Of($"""<p class="more"><button type="button" id="more" hidden>show more</button></p></section>""");
    }

    /// <summary>Which images have a picture: wrong and invalid verdicts, the surest errors first, then right ones, the narrowest first; some of both where there are both. And the others, in the same order.</summary>
    internal static (IReadOnlyList<Prediction> Pictured, IReadOnlyList<Prediction> Others) Choose(IReadOnlyList<Prediction> predictions)
    {
        static double Error(Prediction prediction) => prediction.GtLabel == 1 ? -prediction.PredScore : prediction.PredScore;
        var byError = predictions.OrderByDescending(Error).ToLookup(prediction => prediction.PredLabel == prediction.GtLabel);
        var (wrong, right) = (byError[false].ToArray(), byError[true].ToArray());
        var shownWrong = Math.Min(wrong.Length, Pictures - Math.Min(right.Length, KeptForRight));
        var shownRight = Math.Min(right.Length, Pictures - shownWrong);
        return ([.. wrong[..shownWrong], .. right[..shownRight]], [.. wrong[shownWrong..], .. right[shownRight..]]);
    }

    private static (string Class, string Name) KindOf(Prediction prediction) => Kinds[prediction switch
    {
        { PredLabel: null } => 2,
        { GtLabel: 1, PredLabel: 0 } => 0,
        { GtLabel: 0, PredLabel: 1 } => 1,
        { GtLabel: 1 } => 3,
        _ => 4,
    }];

    private static Html Card(Prediction prediction, string? picture, string folder) => Html.Of($"""
        <li class="card {KindOf(prediction).Class}"{Facts(prediction, folder)}>
        {(picture is null ? Html.Of($"""<p class="gone">image not readable</p>""") : Html.Of($"""<div class="picture"><img src="{picture}" alt="{prediction.Object.Replace('_', ' ')}, {Truth(prediction)}"></div>"""))}
        <p class="verdict">{KindOf(prediction).Name}</p><p class="score" title="score: larger is more defective">{Score(prediction)}</p>
        <p class="what" title="{prediction.ImagePath}">{What(prediction)}</p><p class="truth">{Truth(prediction)}</p>
        <p class="{ReasonClass(prediction)}" dir="auto">{Reason(prediction)}</p></li>

        """);

    // The script makes a card of it: each paragraph is a part of the card.
    private static Html Row(Prediction prediction, string folder) => Html.Of($"""
        <tr class="{KindOf(prediction).Class}"{Facts(prediction, folder)}><th scope="row"><p class="what">{What(prediction)}</p></th><td><p class="verdict">{KindOf(prediction).Name}</p><p class="truth">{Truth(prediction)}</p></td><td><p class="score">{Score(prediction)}</p></td><td><p class="{ReasonClass(prediction)}" dir="auto">{Reason(prediction)}</p></td></tr>

        """);

    private static Html Facts(Prediction prediction, string folder) => Html.Of($"""
         data-label="{prediction.GtLabel}" data-score="{prediction.PredScore:R}" data-category="{prediction.Object}"{(ReportPicture.Address(prediction.ImagePath, folder) is { } address ? Html.Of($""" data-file="{address}" """) : Html.None)}
        """);

    private static Html What(Prediction prediction) => Html.Of($"{prediction.Object.Replace('_', ' ')} · <bdi>{Path.GetFileName(Path.GetDirectoryName(prediction.ImagePath))}/{Path.GetFileName(prediction.ImagePath)}</bdi>");

    private static string Truth(Prediction prediction)
    {
        var label = prediction.GtLabel == 1 ? "labelled defect" : "labelled normal";
        var against = Answer.Parse(prediction.Completion).Contradicts == true ? ", against its own reasoning" : "";
        return prediction.PredLabel is { } answer ? $"{label}, answered “{(answer == 1 ? "defect" : "normal")}”{against}" : $"{label}, no valid answer; all of it:";
    }

    private static string Score(Prediction prediction) => prediction.PredScore.ToString("+0.00;−0.00;0.00", System.Globalization.CultureInfo.InvariantCulture);

    private static string ReasonClass(Prediction prediction) => prediction.Valid ? "reason" : "reason whole";

    private static string Reason(Prediction prediction) => prediction.Explanation.Length > 0 ? prediction.Explanation : "(no reasoning)";
}
