using System.Text.Json.Serialization;
using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>What metrics are computed from: one image.</summary>
/// <param name="Object">Its category.</param>
/// <param name="Defect">Its label.</param>
/// <param name="Verdict">The model's answer.</param>
/// <param name="Score">Larger is more defective; null for the trivial answers.</param>
internal readonly record struct Judged(string Object, bool Defect, AnswerKind Verdict, double? Score)
{
    /// <summary>The same image with the verdict that its score gives: a defect where it reaches the threshold.</summary>
    internal Judged At(double threshold) => this with { Verdict = Score >= threshold ? AnswerKind.Defect : AnswerKind.Normal };
}

/// <summary>Figures of one set of images, under the names of metrics.json; null where a figure does not exist (recall without defects, say).</summary>
internal sealed record Figures
{
    /// <summary>Images.</summary>
    [JsonPropertyName("n")]
    public int N { get; init; }

    /// <summary>Defects found.</summary>
    [JsonPropertyName("tp")]
    public int TruePositives { get; init; }

    /// <summary>Normal images passed.</summary>
    [JsonPropertyName("tn")]
    public int TrueNegatives { get; init; }

    /// <summary>Normal images rejected.</summary>
    [JsonPropertyName("fp")]
    public int FalsePositives { get; init; }

    /// <summary>Defects missed.</summary>
    [JsonPropertyName("fn")]
    public int FalseNegatives { get; init; }

    /// <summary>Invalid answers.</summary>
    [JsonPropertyName("invalid")]
    public int Invalid { get; init; }

    /// <summary>(tp + tn) / n.</summary>
    [JsonPropertyName("accuracy")]
    public double? Accuracy { get; init; }

    /// <summary>Mean of the two classes' F1.</summary>
    [JsonPropertyName("f1_macro")]
    public double? F1Macro { get; init; }

    /// <summary>Mean of recall and specificity.</summary>
    [JsonPropertyName("balanced_accuracy")]
    public double? BalancedAccuracy { get; init; }

    /// <summary>tp / defects.</summary>
    [JsonPropertyName("recall")]
    public double? Recall { get; init; }

    /// <summary>tn / normal images.</summary>
    [JsonPropertyName("specificity")]
    public double? Specificity { get; init; }

    /// <summary>tp / (tp + fp).</summary>
    [JsonPropertyName("precision")]
    public double? Precision { get; init; }

    /// <summary>Area under the ROC curve of the score.</summary>
    [JsonPropertyName("auroc")]
    public double? Auroc { get; init; }

    /// <summary>Average precision of the score.</summary>
    [JsonPropertyName("average_precision")]
    public double? AveragePrecision { get; init; }
}

/// <summary>Pure functions from judged images to figures.</summary>
internal static class Metrics
{
    /// <summary>The figures of a set of images.</summary>
    /// <param name="images">The images.</param>
    /// <param name="invalid">How invalid answers count: <c>wrong</c> (for both classes), <c>normal</c>, <c>defect</c>, or <c>drop</c>.</param>
    public static Figures Compute(IReadOnlyList<Judged> images, string invalid)
    {
        ArgumentNullException.ThrowIfNull(images);
        var said = images.Select(image => (image.Defect, Flagged: SaysDefect(image, invalid))).ToLookup(pair => pair);
        int Count(bool defect, bool flagged) => said[(defect, flagged)].Count();
        return FromCounts(Count(true, true), Count(false, false), Count(false, true), Count(true, false)) with
        {
            Invalid = images.Count(image => image.Verdict == AnswerKind.Invalid),
            Auroc = Auroc(Scored(images)),
            AveragePrecision = AveragePrecision(Scored(images)),
        };
    }

    /// <summary>The figures that follow from counts of verdicts.</summary>
    internal static Figures FromCounts(int tp, int tn, int fp, int fn)
    {
        var (recall, specificity) = (Ratio(tp, tp + fn), Ratio(tn, tn + fp));
        return new Figures
        {
            N = tp + tn + fp + fn,
            TruePositives = tp,
            TrueNegatives = tn,
            FalsePositives = fp,
            FalseNegatives = fn,
            Accuracy = Ratio(tp + tn, tp + tn + fp + fn),
            F1Macro = recall is null || specificity is null ? null : ((2.0 * tp / ((2 * tp) + fp + fn)) + (2.0 * tn / ((2 * tn) + fp + fn))) / 2,
            BalancedAccuracy = (recall + specificity) / 2,
            Recall = recall,
            Specificity = specificity,
            Precision = Ratio(tp, tp + fp),
        };
    }

    /// <summary>Whether an image counts as called defective; null where it is not counted.</summary>
    internal static bool? SaysDefect(Judged image, string invalid) => image.Verdict switch
    {
        AnswerKind.Defect => true,
        AnswerKind.Normal => false,
        _ => invalid switch
        {
            "wrong" => !image.Defect,
            "normal" => false,
            "defect" => true,
            "drop" => null,
            _ => throw new InputException($"--invalid is '{invalid}'; it is wrong, normal, defect or drop."),
        },
    };

    /// <summary>The figures of always giving the same answer.</summary>
    public static Figures Always(IReadOnlyList<Judged> images, AnswerKind answer) => Compute([.. images.Select(image => image with { Verdict = answer, Score = null })], "wrong");

    /// <summary>Chance that a defect scores above a normal image, ties counting half (Mann-Whitney); null without both classes.</summary>
    public static double? Auroc(IReadOnlyList<(double Score, bool Defect)> scored) => Ranked(scored, Ranking.Auroc);

    /// <summary>Σ (recall step · precision) down the ranking, ties taken together; null without defects.</summary>
    public static double? AveragePrecision(IReadOnlyList<(double Score, bool Defect)> scored) => Ranked(scored, Ranking.AveragePrecision);

    /// <summary>Something of each category's images, by category.</summary>
    internal static IReadOnlyDictionary<string, T> ByCategory<T>(IReadOnlyList<Judged> images, Func<IReadOnlyList<Judged>, T> of) =>
        images.GroupBy(image => image.Object).OrderBy(group => group.Key, StringComparer.Ordinal).ToDictionary(group => group.Key, group => of([.. group]));

    /// <summary>The images that have a score.</summary>
    internal static IReadOnlyList<(double Score, bool Defect)> Scored(IReadOnlyList<Judged> images) =>
        [.. images.Where(image => image.Score is not null).Select(image => (image.Score!.Value, image.Defect))];

    private static double? Ranked(IReadOnlyList<(double Score, bool Defect)> scored, Func<int[], int[], double?> figure)
    {
        var (places, count) = Ranking.Of([.. scored.Select(item => (double?)item.Score)]);
        var (normals, defects) = (new int[count], new int[count]);
        for (var i = 0; i < places.Length; i++)
        {
            (scored[i].Defect ? defects : normals)[places[i]]++;
        }

        return figure(normals, defects);
    }

    private static double? Ratio(int part, int whole) => whole == 0 ? null : (double)part / whole;
}
