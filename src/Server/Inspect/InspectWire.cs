using LrIad.Engine.Serving;

namespace LrIad.Server.Inspect;

/// <summary>What the model says of an image, with the names of predictions.jsonl.</summary>
/// <param name="ImagePath">The image's name, as far as it has one.</param>
/// <param name="Object">What it shows.</param>
/// <param name="PredLabel">The verdict, 1 for a defect: the score's where there is a threshold, else the model's own.</param>
/// <param name="PredScore">Larger is more defective.</param>
/// <param name="Threshold">Defect where the score reaches it; null: none was given.</param>
/// <param name="AnswerLabel">The model's own answer; null where it is not valid.</param>
/// <param name="Explanation">The reasoning.</param>
/// <param name="Completion">All of the answer.</param>
/// <param name="Valid">Whether it is in the required form.</param>
/// <param name="Problem">Why it is not; null where it is.</param>
/// <param name="Usage">Tokens read and written.</param>
internal sealed record InspectAnswer(
    string ImagePath, string Object, int? PredLabel, double PredScore, double? Threshold, int? AnswerLabel, string Explanation, string Completion, bool Valid, string? Problem, InspectUsage Usage)
{
    public static InspectAnswer Of(InspectionRequest request, double? threshold, ImageVerdict verdict)
    {
        int? answer = verdict.Defect is { } isDefect ? isDefect ? 1 : 0 : null;
        var label = threshold is { } value ? verdict.Score >= value ? 1 : 0 : answer;
        var usage = new InspectUsage(verdict.PromptTokens, verdict.Tokens);
        return new(request.Image.Name, request.Object, label, verdict.Score, threshold, answer, verdict.Reasoning, verdict.Completion, verdict.Problem is null, verdict.Problem, usage);
    }
}

/// <summary>Tokens of a prompt, images included, and of its answer.</summary>
internal sealed record InspectUsage(int PromptTokens, int CompletionTokens);

/// <summary>The first line of a stream: the score, known before the answer.</summary>
internal sealed record InspectScore(double PredScore);

/// <summary>A line of a stream: new text of the answer. The last line is the <see cref="InspectAnswer"/>.</summary>
internal sealed record InspectText(string Text);

/// <summary>An image that was passed over.</summary>
internal sealed record SkippedImage(string ImagePath, string Reason);

/// <summary>A job and what it has come to.</summary>
/// <param name="Id">Its name in addresses.</param>
/// <param name="Status">running, done, cancelled, or failed.</param>
/// <param name="Error">Why it failed.</param>
/// <param name="Folder">The folder, as the request named it.</param>
/// <param name="Object">What its images show.</param>
/// <param name="Created">When it was begun.</param>
/// <param name="Images">Images of the folder.</param>
/// <param name="Inspected">How many have their verdict.</param>
/// <param name="Skipped">Those that could not be inspected.</param>
/// <param name="Results">Verdicts, in the order in which they came: a part of them, as the request wants.</param>
/// <param name="Next">Where the next part begins: <c>?from=</c>.</param>
internal sealed record JobStatus(
    string Id, string Status, string? Error, string Folder, string Object, DateTimeOffset Created, int Images, int Inspected, IReadOnlyList<SkippedImage> Skipped, IReadOnlyList<InspectAnswer> Results, int Next);
