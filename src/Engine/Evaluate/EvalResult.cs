using System.Globalization;
using System.Text.Json.Serialization;
using LrIad.Engine.Data;
using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>One image's verdict: a line of predictions.jsonl (anomalib's field names).</summary>
internal sealed record Prediction
{
    /// <summary>The image file.</summary>
    [JsonPropertyName("image_path")]
    public required string ImagePath { get; init; }

    /// <summary>Its category.</summary>
    [JsonPropertyName("object")]
    public required string Object { get; init; }

    /// <summary>1: defect.</summary>
    [JsonPropertyName("gt_label")]
    public required int GtLabel { get; init; }

    /// <summary>1: defect; null: the answer is invalid.</summary>
    [JsonPropertyName("pred_label")]
    public required int? PredLabel { get; init; }

    /// <summary>Larger is more defective.</summary>
    [JsonPropertyName("pred_score")]
    public required double PredScore { get; init; }

    /// <summary>The reasoning.</summary>
    [JsonPropertyName("explanation")]
    public required string Explanation { get; init; }

    /// <summary>All of the completion.</summary>
    [JsonPropertyName("completion")]
    public required string Completion { get; init; }

    /// <summary>Whether it is an answer in the required format.</summary>
    [JsonPropertyName("valid")]
    public required bool Valid { get; init; }

    /// <summary>What the data set calls the defect, where it does.</summary>
    [JsonPropertyName("defect_type")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DefectType { get; init; }

    /// <summary>The faultless part that was shown first, if any.</summary>
    [JsonPropertyName("reference")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Reference { get; init; }

    /// <summary>What metrics are computed from.</summary>
    internal Judged ToJudged() => new(Object, GtLabel == 1, PredLabel switch { 1 => AnswerKind.Defect, 0 => AnswerKind.Normal, _ => AnswerKind.Invalid }, PredScore);
}

/// <summary>95% intervals of the figures (<see cref="Bootstrap"/>).</summary>
internal sealed record IntervalSet
{
    /// <summary>Over all images.</summary>
    [JsonPropertyName("pooled")]
    public required FigureIntervals Pooled { get; init; }

    /// <summary>A category each.</summary>
    [JsonPropertyName("classes")]
    public required IReadOnlyDictionary<string, FigureIntervals> Classes { get; init; }

    internal static IntervalSet Of(IReadOnlyList<Judged> judged, string invalid, ulong seed) =>
        new() { Pooled = Bootstrap.Of(judged, invalid, seed), Classes = Metrics.ByCategory(judged, images => Bootstrap.Of(images, invalid, seed)) };
}

/// <summary>What a threshold was chosen on.</summary>
internal sealed record ChosenOn
{
    /// <summary>The data.</summary>
    [JsonPropertyName("data")]
    public required string Data { get; init; }

    /// <summary>Their split.</summary>
    [JsonPropertyName("split")]
    public required string Split { get; init; }

    /// <summary>How the threshold does there: better than elsewhere, because it was chosen for these images.</summary>
    [JsonPropertyName("figures")]
    public required Figures Figures { get; init; }
}

/// <summary>The verdicts of the score: "defect" where it reaches a threshold that was chosen on other images.</summary>
internal sealed record Thresholded
{
    /// <summary>The threshold.</summary>
    [JsonPropertyName("threshold")]
    public required double Threshold { get; init; }

    /// <summary>How it was chosen.</summary>
    [JsonPropertyName("rule")]
    public required string Rule { get; init; }

    /// <summary>On which images.</summary>
    [JsonPropertyName("chosen_on")]
    public required ChosenOn ChosenOn { get; init; }

    /// <summary>Over all images of the test.</summary>
    [JsonPropertyName("pooled")]
    public required Figures Pooled { get; init; }

    /// <summary>A category each.</summary>
    [JsonPropertyName("classes")]
    public required IReadOnlyDictionary<string, Figures> Classes { get; init; }

    /// <summary>Their 95% intervals.</summary>
    [JsonPropertyName("intervals")]
    public required IntervalSet Intervals { get; init; }
}

/// <summary>Whether images of the test were trained on, by the SHA-256 of their files.</summary>
internal sealed record TrainingOverlap
{
    /// <summary>Whether it is known.</summary>
    [JsonPropertyName("checked")]
    public required bool Checked { get; init; }

    /// <summary>Images of the test that were trained on; null where it is not known.</summary>
    [JsonPropertyName("images")]
    public int? Images { get; init; }

    /// <summary>Why it is not known.</summary>
    [JsonPropertyName("reason")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Reason { get; init; }
}

/// <summary>metrics.json.</summary>
internal sealed record EvalResult
{
    /// <summary>Over all images.</summary>
    [JsonPropertyName("pooled")]
    public required Figures Pooled { get; init; }

    /// <summary>95% interval of the pooled balanced accuracy.</summary>
    [JsonPropertyName("balanced_accuracy_interval")]
    public required double[]? BalancedAccuracyInterval { get; init; }

    /// <summary>95% intervals of these and other figures; null in files of older versions.</summary>
    [JsonPropertyName("intervals")]
    public IntervalSet? Intervals { get; init; }

    /// <summary>A category each.</summary>
    [JsonPropertyName("classes")]
    public required IReadOnlyDictionary<string, Figures> Classes { get; init; }

    /// <summary>The trivial answers on the same images and, beside an adapter, the probe of the model without it.</summary>
    [JsonPropertyName("baselines")]
    public required IReadOnlyDictionary<string, Figures> Baselines { get; init; }

    /// <summary>Invalid answers by kind.</summary>
    [JsonPropertyName("invalid_kinds")]
    public required IReadOnlyDictionary<string, int> InvalidKinds { get; init; }

    /// <summary>Valid answers whose reasoning says the opposite.</summary>
    [JsonPropertyName("contradictions")]
    public required int Contradictions { get; init; }

    /// <summary>Whether the reasoning names defects as the data set does; null where it names none.</summary>
    [JsonPropertyName("named_defects")]
    public NamedDefects? NamedDefects { get; init; }

    /// <summary>The verdicts of a threshold; null where none was chosen.</summary>
    [JsonPropertyName("thresholded")]
    public Thresholded? Thresholded { get; init; }

    /// <summary>Whether images were trained on; null for a base model.</summary>
    [JsonPropertyName("training_overlap")]
    public TrainingOverlap? TrainingOverlap { get; init; }

    /// <summary>Images that could not be read.</summary>
    [JsonPropertyName("skipped")]
    public required IReadOnlyList<Skipped> Skipped { get; init; }

    /// <summary>How it was made.</summary>
    [JsonPropertyName("settings")]
    public required IReadOnlyDictionary<string, object?> Settings { get; init; }

    /// <summary>The pooled figures in a line.</summary>
    [JsonIgnore]
    public string Headline => string.Create(
        CultureInfo.InvariantCulture,
        $"balanced accuracy {Show(Pooled.BalancedAccuracy)} (95%: {(BalancedAccuracyInterval is [var low, var high] ? $"{low:F3} to {high:F3}" : "unknown")}), recall {Show(Pooled.Recall)}, specificity {Show(Pooled.Specificity)}, accuracy {Show(Pooled.Accuracy)}, AUROC {Show(Pooled.Auroc)}, {Pooled.Invalid} invalid of {Pooled.N}");

    /// <summary>
    /// The change of balanced accuracy since an earlier evaluation, with its 95% interval; null where either is unknown. The two are taken as independent, which for the
    /// same images is on the safe side.
    /// </summary>
    public (double Change, double Low, double High)? ChangeSince(EvalResult before)
    {
        ArgumentNullException.ThrowIfNull(before);
        if (Pooled.BalancedAccuracy - before.Pooled.BalancedAccuracy is not { } change)
        {
            return null;
        }

        static double Square(EvalResult result) => result.BalancedAccuracyInterval is [var low, var high] ? Math.Pow((high - low) / 2, 2) : 0;
        var half = Math.Sqrt(Square(before) + Square(this));
        return (change, change - half, change + half);
    }

    private static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";
}
