namespace LrIad.Engine.Serving;

/// <summary>An image to inspect.</summary>
public sealed record InspectionRequest
{
    /// <summary>The image.</summary>
    public required ImageData Image { get; init; }

    /// <summary>What it shows: metal_nut, say.</summary>
    public required string Object { get; init; }

    /// <summary>Images of faultless parts, shown to the model first.</summary>
    public IReadOnlyList<ImageData> References { get; init; } = [];

    /// <summary>The adapter's name; null: the base model.</summary>
    public string? Adapter { get; init; }

    /// <summary>Longest completion in tokens.</summary>
    public int MaxTokens { get; init; } = 256;

    /// <summary>Who asks.</summary>
    public string Client { get; init; } = "";
}

/// <summary>What the model says of an image.</summary>
/// <param name="Defect">The verdict; null where the answer is not valid.</param>
/// <param name="Score">Log-odds of defect over normal after forced, empty reasoning: for ranking and thresholds, larger is more defective.</param>
/// <param name="Reasoning">Why.</param>
/// <param name="Completion">All it said.</param>
/// <param name="Problem">Why the answer is not valid; null where it is.</param>
/// <param name="PromptTokens">Length of the prompt, images included.</param>
/// <param name="Tokens">Length of the completion.</param>
public sealed record ImageVerdict(bool? Defect, double Score, string Reasoning, string Completion, string? Problem, int PromptTokens, int Tokens);

/// <summary>What an inspection has come to since the last update.</summary>
/// <param name="Text">New text of the completion.</param>
/// <param name="Score">Set once, in the first update.</param>
/// <param name="Verdict">Set once, in the last update.</param>
public sealed record InspectionUpdate(string Text, double? Score, ImageVerdict? Verdict);
