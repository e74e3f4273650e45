using System.Text.Json.Serialization;
using LrIad.Engine.Serving;

namespace LrIad.Server.OpenAi;

/// <summary>The answer of <c>/v1/chat/completions</c>.</summary>
internal sealed record ChatCompletion(string Id, long Created, string Model, IReadOnlyList<ChatChoice> Choices, ChatUsage Usage)
{
    public string Object => "chat.completion";
}

/// <summary>A completion.</summary>
internal sealed record ChatChoice(int Index, ChatMessage Message, [property: JsonPropertyName("logprobs")] ChatLogProbs? LogProbs, string FinishReason);

/// <summary>What the model said.</summary>
internal sealed record ChatMessage(string Role, string Content);

/// <summary>A part of a streamed answer.</summary>
internal sealed record ChatChunk(string Id, long Created, string Model, IReadOnlyList<ChatDeltaChoice> Choices)
{
    public string Object => "chat.completion.chunk";

    /// <summary>In the last chunk, where it was asked for.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ChatUsage? Usage { get; init; }
}

/// <summary>A part of a completion.</summary>
internal sealed record ChatDeltaChoice(int Index, ChatDelta Delta, [property: JsonPropertyName("logprobs")] ChatLogProbs? LogProbs, string? FinishReason);

/// <summary>New text; the role comes first.</summary>
internal sealed record ChatDelta([property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Role, string Content);

/// <summary>Tokens and how likely they were.</summary>
internal sealed record ChatLogProbs(IReadOnlyList<ChatToken> Content)
{
    public static ChatLogProbs Of(IEnumerable<DrawnToken> tokens) => new([.. tokens.Select(ChatToken.Of)]);
}

/// <summary>A token, and the likeliest ones at its place.</summary>
internal sealed record ChatToken(string Token, [property: JsonPropertyName("logprob")] float LogProb, IReadOnlyList<int> Bytes, [property: JsonPropertyName("top_logprobs")] IReadOnlyList<ChatTopToken> Top)
{
    public static ChatToken Of(DrawnToken drawn) => new(drawn.Token.Text, Finite(drawn.Token.LogProb), ToList(drawn.Token.Bytes), [.. drawn.Top.Select(ChatTopToken.Of)]);

    // JSON has no infinity.
    internal static float Finite(float logProb) => Math.Max(logProb, -9999);

    internal static IReadOnlyList<int> ToList(ReadOnlyMemory<byte> bytes) => [.. bytes.ToArray()];
}

/// <summary>One of the likeliest tokens.</summary>
internal sealed record ChatTopToken(string Token, [property: JsonPropertyName("logprob")] float LogProb, IReadOnlyList<int> Bytes)
{
    public static ChatTopToken Of(TokenLogProb token) => new(token.Text, ChatToken.Finite(token.LogProb), ChatToken.ToList(token.Bytes));
}

/// <summary>Tokens of a request.</summary>
internal sealed record ChatUsage(int PromptTokens, int CompletionTokens, PromptDetails PromptTokensDetails)
{
    public int TotalTokens => PromptTokens + CompletionTokens;
}

/// <summary>Tokens of a prompt.</summary>
/// <param name="CachedTokens">Computed already, for another request.</param>
internal sealed record PromptDetails(int CachedTokens);
