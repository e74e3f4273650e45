using System.Text.Json.Serialization;
using LrIad.Server.Requests;

namespace LrIad.Server.Trl;

/// <summary>An error as TRL's server (FastAPI) words it.</summary>
/// <param name="Detail">What went wrong.</param>
internal sealed record TrlError(string Detail)
{
    /// <summary>For the metadata of endpoints.</summary>
    public static ErrorForm Form { get; } = new(problem => new TrlError(problem.Message));
}

internal sealed record TrlWorldSize(int WorldSize);

internal sealed record TrlMessage(string Message);

/// <summary>The answer of <c>/generate/</c> and <c>/chat/</c>.</summary>
/// <param name="PromptIds">A list a prompt: its tokens, those of its images included.</param>
/// <param name="CompletionIds">A list a completion, the completions of a prompt one after another; the end token is among them.</param>
/// <param name="Logprobs">Per completion and token: its log-prob and those of the likeliest, most likely first; null where none were asked for.</param>
/// <param name="LogprobTokenIds">The tokens they are of.</param>
internal sealed record TrlCompletions(
    IReadOnlyList<IReadOnlyList<int>> PromptIds, IReadOnlyList<IReadOnlyList<int>> CompletionIds, IReadOnlyList<float[][]>? Logprobs, IReadOnlyList<int[][]>? LogprobTokenIds);

/// <summary>The answer of <c>/get_sequence_logprobs/</c>: lists, or the same in base64.</summary>
internal sealed record TrlScores
{
    /// <summary>Per sequence and token of its completion: the log-probs of the likeliest and its own, most likely first.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<float[][]>? Logprobs { get; init; }

    /// <summary>The tokens they are of.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<int[][]>? LogprobTokenIds { get; init; }

    /// <summary>float32 [sequences, longest completion, likeliest]; −∞ where there is nothing.</summary>
    [JsonPropertyName("logprobs_b64")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? LogprobsBase64 { get; init; }

    /// <summary>int32 of the same shape.</summary>
    [JsonPropertyName("token_ids_b64")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? TokenIdsBase64 { get; init; }

    /// <summary>float32 [sequences, longest completion, 1]: of the completion's own tokens.</summary>
    [JsonPropertyName("actual_logprobs_b64")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? ActualLogprobsBase64 { get; init; }

    /// <summary>int32 of the same shape.</summary>
    [JsonPropertyName("actual_token_ids_b64")]
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? ActualTokenIdsBase64 { get; init; }

    /// <summary>Of the first two.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int[]? Shape { get; init; }

    /// <summary>Tokens of each completion.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int[]? CompletionLengths { get; init; }
}
