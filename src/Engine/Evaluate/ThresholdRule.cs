using System.Globalization;

namespace LrIad.Engine.Evaluate;

/// <summary>How a threshold of the score is chosen; an image whose score reaches it counts as a defect.</summary>
internal sealed record ThresholdRule
{
    private const string RecallPrefix = "recall=";

    private readonly double? _recall;

    private ThresholdRule(string text, double? recall) => (Text, _recall) = (text, recall);

    /// <summary>The rule as it was given.</summary>
    public string Text { get; }

    /// <summary>Reads a rule: <c>f1</c> (most F1 of the defects), <c>balanced</c> (most balanced accuracy), or <c>recall=0.95</c> (the highest threshold with that recall).</summary>
    /// <exception cref="InputException">It is none of them.</exception>
    public static ThresholdRule Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (text is "f1" or "balanced")
        {
            return new ThresholdRule(text, null);
        }

        return text.StartsWith(RecallPrefix, StringComparison.Ordinal) && double.TryParse(text[RecallPrefix.Length..], NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var recall) && recall is > 0 and <= 1
            ? new ThresholdRule(text, recall)
            : throw new InputException($"--threshold is '{text}'; it is f1, balanced, or recall=R with R above 0 and at most 1.");
    }

    /// <summary>The threshold for scored images: one of their scores, and of equally good ones the highest.</summary>
    /// <exception cref="InputException">A class that the rule needs is not among the images.</exception>
    public double Choose(IReadOnlyList<(double Score, bool Defect)> scored)
    {
        ArgumentNullException.ThrowIfNull(scored);
        long defects = scored.Count(image => image.Defect), normals = scored.Count - defects;
        if (defects == 0 || (normals == 0 && Text == "balanced"))
        {
            throw new InputException($"A threshold by {Text} cannot be chosen: the images to choose it on hold no {(defects == 0 ? "defects" : "normal images")}.");
        }

        // What is as good is told from what is better by whole numbers: the value is a fraction, compared with the best so far crosswise.
        var best = (Threshold: double.NaN, Value: 0L, Of: 1L);
        long tp = 0, fp = 0;
        foreach (var tie in scored.GroupBy(image => image.Score).OrderByDescending(group => group.Key))
        {
            tp += tie.Count(image => image.Defect);
            fp += tie.Count(image => !image.Defect);
            if (_recall is { } recall && (double)tp / defects >= recall)
            {
                return tie.Key;
            }

            var (value, of) = Text == "balanced" ? ((tp * normals) + ((normals - fp) * defects), 1) : (2 * tp, tp + fp + defects);
            if (double.IsNaN(best.Threshold) || (Int128)value * best.Of > (Int128)best.Value * of)
            {
                best = (tie.Key, value, of);
            }
        }

        return best.Threshold;
    }
}
