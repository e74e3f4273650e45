using System.Text.Json.Serialization;
using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>What metrics are computed from: one image.</summary>
/// <param name="Object">Its category.</param>
/// <param name="Defect">Its label.</param>
/// <param name="Verdict">The model's answer.</param>
/// <param name="Score">Larger is more defective; null for the trivial answers.</param>
public readonly record struct Judged(string Object, bool Defect, AnswerKind Verdict, double? Score);

/// <summary>Figures of one set of images, under the names of metrics.json; null where a figure does not exist (recall without defects, say).</summary>
public sealed record Figures
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
public static class Metrics
{
    /// <summary>The figures of a set of images.</summary>
    /// <param name="images">The images.</param>
    /// <param name="invalid">How invalid answers count: <c>wrong</c> (for both classes), <c>normal</c>, <c>defect</c>, or <c>drop</c>.</param>
    public static Figures Compute(IReadOnlyList<Judged> images, string invalid)
    {
        ArgumentNullException.ThrowIfNull(images);
        var invalidCount = images.Count(image => image.Verdict == AnswerKind.Invalid);
        var counted = invalid == "drop" ? [.. images.Where(image => image.Verdict != AnswerKind.Invalid)] : images;
        bool SaysDefect(Judged image) => image.Verdict switch
        {
            AnswerKind.Defect => true,
            AnswerKind.Normal => false,
            _ => invalid switch
            {
                "wrong" => !image.Defect,
                "normal" => false,
                "defect" => true,
                _ => throw new InputException($"--invalid is '{invalid}'; it is wrong, normal, defect or drop."),
            },
        };
        var (tp, fn) = (counted.Count(image => image.Defect && SaysDefect(image)), counted.Count(image => image.Defect && !SaysDefect(image)));
        var (fp, tn) = (counted.Count(image => !image.Defect && SaysDefect(image)), counted.Count(image => !image.Defect && !SaysDefect(image)));
        var (recall, specificity) = (Ratio(tp, tp + fn), Ratio(tn, tn + fp));
        var scored = images.Where(image => image.Score is not null).Select(image => (Score: image.Score!.Value, image.Defect)).ToArray();
        return new Figures
        {
            N = counted.Count,
            TruePositives = tp,
            TrueNegatives = tn,
            FalsePositives = fp,
            FalseNegatives = fn,
            Invalid = invalidCount,
            Accuracy = Ratio(tp + tn, counted.Count),
            F1Macro = recall is null || specificity is null ? null : ((2.0 * tp / ((2 * tp) + fp + fn)) + (2.0 * tn / ((2 * tn) + fp + fn))) / 2,
            BalancedAccuracy = (recall + specificity) / 2,
            Recall = recall,
            Specificity = specificity,
            Precision = Ratio(tp, tp + fp),
            Auroc = Auroc(scored),
            AveragePrecision = AveragePrecision(scored),
        };
    }

    /// <summary>The figures of always giving the same answer.</summary>
    public static Figures Always(IReadOnlyList<Judged> images, AnswerKind answer) => Compute([.. images.Select(image => image with { Verdict = answer, Score = null })], "wrong");

    /// <summary>
    /// Chance that a defect scores above a normal image, ties counting half (Mann-Whitney); null without both classes.
    /// </summary>
    public static double? Auroc(IReadOnlyList<(double Score, bool Defect)> scored)
    {
        var (positives, negatives) = (scored.Count(item => item.Defect), scored.Count(item => !item.Defect));
        if (positives == 0 || negatives == 0)
        {
            return null;
        }

        double wins = 0;
        var below = 0;
        foreach (var tie in scored.GroupBy(item => item.Score).OrderBy(group => group.Key))
        {
            var (defects, normals) = (tie.Count(item => item.Defect), tie.Count(item => !item.Defect));
            wins += defects * (below + (normals / 2.0));
            below += normals;
        }

        return wins / ((double)positives * negatives);
    }

    /// <summary>Σ (recall step · precision) down the ranking, ties taken together; null without defects.</summary>
    public static double? AveragePrecision(IReadOnlyList<(double Score, bool Defect)> scored)
    {
        var positives = scored.Count(item => item.Defect);
        if (positives == 0)
        {
            return null;
        }

        double sum = 0;
        var (found, seen) = (0, 0);
        foreach (var tie in scored.GroupBy(item => item.Score).OrderByDescending(group => group.Key))
        {
            var defects = tie.Count(item => item.Defect);
            found += defects;
            seen += tie.Count();
            sum += (double)defects / positives * found / seen;
        }

        return sum;
    }

    /// <summary>A 95% interval for balanced accuracy: recall and specificity vary as two independent proportions (normal approximation on add-one counts).</summary>
    public static (double Low, double High)? BalancedAccuracyInterval(Figures figures)
    {
        ArgumentNullException.ThrowIfNull(figures);
        if (figures.BalancedAccuracy is not { } center)
        {
            return null;
        }

        static double Variance(int hits, int misses)
        {
            var (n, p) = (hits + misses + 2.0, (hits + 1.0) / (hits + misses + 2.0));
            return p * (1 - p) / n;
        }

        var half = 1.96 * Math.Sqrt(Variance(figures.TruePositives, figures.FalseNegatives) + Variance(figures.TrueNegatives, figures.FalsePositives)) / 2;
        return (Math.Max(0, center - half), Math.Min(1, center + half));
    }

    private static double? Ratio(int part, int whole) => whole == 0 ? null : (double)part / whole;
}
