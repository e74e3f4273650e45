using System.Text.Json.Serialization;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;

namespace LrIad.Server.Ollama;

/// <summary>An error as Ollama's clients expect it.</summary>
/// <param name="Error">What went wrong.</param>
internal sealed record OllamaError(string Error)
{
    /// <summary>For the metadata of endpoints.</summary>
    public static ErrorForm Form { get; } = new(problem => new OllamaError(problem.Message));
}

/// <summary>A part of an answer of <c>/api/chat</c>, or all of it.</summary>
internal sealed record OllamaChunk
{
    /// <summary>What the request called the model.</summary>
    public required string Model { get; init; }

    public DateTimeOffset CreatedAt { get; } = DateTimeOffset.UtcNow;

    /// <summary>New text; all of it in an answer that is not streamed.</summary>
    public required OllamaMessage Message { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<OllamaLogProb>? Logprobs { get; init; }

    /// <summary>Whether it is the last.</summary>
    public bool Done => DoneReason is not null;

    /// <summary>stop, length or load; in the last one alone.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DoneReason { get; init; }

    /// <summary>In nanoseconds, as all durations; in the last one alone.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public long? TotalDuration { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public long? LoadDuration { get; init; }

    /// <summary>Tokens of the prompt.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? PromptEvalCount { get; init; }

    /// <summary>From the request to the beginning of the answer, the wait for its turn included.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public long? PromptEvalDuration { get; init; }

    /// <summary>Tokens of the answer.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? EvalCount { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public long? EvalDuration { get; init; }
}

/// <summary>What the model says.</summary>
internal sealed record OllamaMessage(string Content)
{
    public string Role => "assistant";
}

/// <summary>A token, how likely it was, and what else was likely.</summary>
internal sealed record OllamaLogProb(string Token, float Logprob, IReadOnlyList<int> Bytes)
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<OllamaLogProb>? TopLogprobs { get; init; }

    public static OllamaLogProb Of(DrawnToken drawn) => Of(drawn.Token) with { TopLogprobs = drawn.Top.Count == 0 ? null : [.. drawn.Top.Select(Of)] };

    private static OllamaLogProb Of(TokenLogProb token) => new(token.Text, token.LogProb, [.. token.Bytes.ToArray().Select(value => (int)value)]);
}
