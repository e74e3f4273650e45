using System.Globalization;
using LrIad.Engine.Data;
using LrIad.Engine.Text;

namespace LrIad.Engine.Compare;

/// <summary>What a system said of one image.</summary>
/// <param name="Path">The image as the file names it, with forward slashes.</param>
/// <param name="Truth">Whether it is a defect; null where the file does not say.</param>
/// <param name="Verdict">What the system answered; null where it gave a score alone.</param>
/// <param name="Score">Larger is more defective, or null.</param>
internal sealed record Said(string Path, bool? Truth, AnswerKind? Verdict, double? Score);

/// <summary>
/// Predictions of a system, ours or another: JSON lines or CSV under the names that anomalib, WinCLIP's, AprilGAN's and AnomalyGPT's evaluation scripts and tables made by hand
/// give their columns.
/// </summary>
internal static class PredictionFile
{
    private static readonly string[] Images = ["image_path", "image", "path", "img_path", "file", "filename", "file_name", "sample_path"];
    private static readonly string[] Truths = ["gt_label", "label", "gt", "ground_truth", "target", "y_true", "true_label"];
    private static readonly string[] Verdicts = ["pred_label", "prediction", "pred", "predicted_label", "predicted", "y_pred", "answer"];
    private static readonly string[] Scores = ["pred_score", "anomaly_score", "image_score", "score", "y_score"];

    /// <summary>Reads a file.</summary>
    /// <exception cref="InputException">It is damaged, or a column that is needed is missing.</exception>
    public static IReadOnlyList<Said> Read(string file)
    {
        var rows = TableFile.Read(file);
        string[] columns = [.. rows.SelectMany(row => row.Row.Keys).Distinct()];
        RequireOne(file, columns, "the image", Images);
        RequireOne(file, columns, "a verdict or a score", [.. Verdicts, .. Scores]);
        var judges = columns.Intersect(Verdicts).Any();
        return [.. rows.Select(row => new Said(
            (TableFile.Field(row.Row, Images) ?? throw Bad(file, row.Line, "names no image")).Replace('\\', '/'),
            TableFile.Field(row.Row, Truths) is { } truth ? Label(file, row.Line, truth) : null,
            !judges ? null : TableFile.Field(row.Row, Verdicts) is { } verdict ? Label(file, row.Line, verdict) ? AnswerKind.Defect : AnswerKind.Normal : AnswerKind.Invalid,
            TableFile.Field(row.Row, Scores) is { } score ? Number(file, row.Line, score) : null))];
    }

    private static void RequireOne(string file, string[] columns, string what, string[] names)
    {
        if (!columns.Intersect(names).Any())
        {
            throw new InputException($"{file} has no column for {what}: {string.Join(", ", names)}. It has {string.Join(", ", columns)}.");
        }
    }

    // Labels in words, or numbers as data frames write them.
    private static bool Label(string file, int line, string text) => ImageFolder.Label(text)
        ?? (double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) && number is 0 or 1 ? number == 1 : (bool?)null)
        ?? throw Bad(file, line, $"'{text}' is no known label (normal, good, 0 or defect, anomaly, 1)");

    private static double Number(string file, int line, string text) =>
        double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) && double.IsFinite(number) ? number : throw Bad(file, line, $"'{text}' is no score");

    private static InputException Bad(string file, int line, string problem) => new($"{file}, line {line}: {problem}.");
}
