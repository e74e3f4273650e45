using System.Text.Json.Serialization;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Evaluate;

/// <summary>95% intervals [low, high] of figures, under their names; null where the figure is.</summary>
internal sealed record FigureIntervals
{
    /// <summary>Of the balanced accuracy.</summary>
    [JsonPropertyName("balanced_accuracy")]
    public double[]? BalancedAccuracy { get; init; }

    /// <summary>Of the recall.</summary>
    [JsonPropertyName("recall")]
    public double[]? Recall { get; init; }

    /// <summary>Of the specificity.</summary>
    [JsonPropertyName("specificity")]
    public double[]? Specificity { get; init; }

    /// <summary>Of macro-F1.</summary>
    [JsonPropertyName("f1_macro")]
    public double[]? F1Macro { get; init; }

    /// <summary>Of the area under the ROC curve.</summary>
    [JsonPropertyName("auroc")]
    public double[]? Auroc { get; init; }

    /// <summary>Of the average precision.</summary>
    [JsonPropertyName("average_precision")]
    public double[]? AveragePrecision { get; init; }
}

/// <summary>
/// Percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): the images of each class are drawn again, with replacement and as many as
/// there are, and the figures computed anew; the middle 95% of what comes out is the interval. It says what these images can prove of this model, not how much training runs differ.
/// </summary>
internal static class Bootstrap
{
    /// <summary>How often the images are drawn again.</summary>
    public const int Draws = 2000;

    private const double Outside = 0.05;
    private const ulong DrawStream = 0x424F4F54_00000000;

    /// <summary>The intervals of a set of images: a function of its arguments, the same on any number of threads.</summary>
    /// <param name="images">The images.</param>
    /// <param name="invalid">How invalid answers count, as in <see cref="Metrics.Compute"/>.</param>
    /// <param name="seed">What the draws follow from.</param>
    public static FigureIntervals Of(IReadOnlyList<Judged> images, string invalid, ulong seed)
    {
        ArgumentNullException.ThrowIfNull(images);
        var (places, count) = Ranking.Of([.. images.Select(image => image.Score)]);
        var items = images.Select((image, i) => (image.Defect, Item: new Item(Metrics.SaysDefect(image, invalid), places[i]))).ToLookup(pair => pair.Defect, pair => pair.Item);
        var (normals, defects) = (items[false].ToArray(), items[true].ToArray());
        var draws = new Figures[Draws];
        Parallel.For(0, Draws, () => (Normals: new Counts(count), Defects: new Counts(count)), (draw, _, counts) =>
        {
            counts.Normals.Draw(normals, seed ^ DrawStream, (uint)draw, 0);
            counts.Defects.Draw(defects, seed ^ DrawStream, (uint)draw, 1);
            draws[draw] = Metrics.FromCounts(counts.Defects.Flagged, counts.Normals.Passed, counts.Normals.Flagged, counts.Defects.Passed) with
            {
                Auroc = Ranking.Auroc(counts.Normals.Places, counts.Defects.Places),
                AveragePrecision = Ranking.AveragePrecision(counts.Normals.Places, counts.Defects.Places),
            };
            return counts;
        }, _ => { });

        var figures = Metrics.Compute(images, invalid);
        double[]? Interval(Func<Figures, double?> figure) => figure(figures) is null ? null : Middle([.. draws.Select(figure).OfType<double>()]);
        return new FigureIntervals
        {
            BalancedAccuracy = Interval(f => f.BalancedAccuracy),
            Recall = Interval(f => f.Recall),
            Specificity = Interval(f => f.Specificity),
            F1Macro = Interval(f => f.F1Macro),
            Auroc = Interval(f => f.Auroc),
            AveragePrecision = Interval(f => f.AveragePrecision),
        };
    }

    // Quantiles between two values are interpolated, as NumPy does by default. A draw without the figure (all defects it took are dropped, say) is left out.
    private static double[] Middle(double[] values)
    {
        Array.Sort(values);
        double Quantile(double share)
        {
            var at = share * (values.Length - 1);
            var below = (int)at;
            return values[below] + ((at - below) * (values[Math.Min(below + 1, values.Length - 1)] - values[below]));
        }

        return [Quantile(Outside / 2), Quantile(1 - (Outside / 2))];
    }

    // What is drawn: whether the verdict is "defect" (null: not counted) and the score's place in the ranking of all.
    private readonly record struct Item(bool? Flagged, int Place);

    // What a draw of one class took. Scores are counted at their places, so that nothing need be sorted again.
    private sealed class Counts(int places)
    {
        public int Flagged { get; private set; }

        public int Passed { get; private set; }

        public int[] Places { get; } = new int[places];

        // Word i of the row with counter (·, draw, label, 0) chooses the i-th image.
        public void Draw(Item[] items, ulong key, uint draw, uint label)
        {
            (Flagged, Passed) = (0, 0);
            Array.Clear(Places);
            Span<uint> words = stackalloc uint[Philox.WordsAtATime];
            for (var i = 0; i < items.Length; i++)
            {
                if (i % Philox.WordsAtATime == 0)
                {
                    Philox.Words32(key, (uint)i / 4, draw, label, 0, words);
                }

                var item = items[(int)(((ulong)words[i % Philox.WordsAtATime] * (ulong)items.Length) >> 32)];
                Flagged += item.Flagged == true ? 1 : 0;
                Passed += item.Flagged == false ? 1 : 0;
                if (item.Place >= 0)
                {
                    Places[item.Place]++;
                }
            }
        }
    }
}
