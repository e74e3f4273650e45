using System.ComponentModel;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace LrIad.Server.OpenAi;

// What /openapi.json says of a request. Nothing is read by it: ChatRequest does that, and says what is wrong. A test holds the two together.
/// <summary>A request for a chat completion.</summary>
internal sealed record ChatBody
{
    [Description("Turns of the conversation; the answer to the last one is drawn.")]
    public required IReadOnlyList<ChatBodyMessage> Messages { get; init; }

    [Description("The base model's name or an adapter's; left out: the base model.")]
    public string? Model { get; init; }

    [Description("Answers as they come, as server-sent events.")]
    public bool? Stream { get; init; }

    public JsonObject? StreamOptions { get; init; }

    [Description("Completions wanted.")]
    public int? N { get; init; }

    [Description("Longest completion in tokens.")]
    public int? MaxCompletionTokens { get; init; }

    public int? MaxTokens { get; init; }

    public double? Temperature { get; init; }

    public double? TopP { get; init; }

    [Description("Only the k most likely tokens are drawn; 0 or -1: all.")]
    public int? TopK { get; init; }

    [Description("With it, the same request draws the same completions.")]
    public long? Seed { get; init; }

    [Description("A text or several, before which a completion ends.")]
    public JsonNode? Stop { get; init; }

    [Description("Does not end at the model's end tokens.")]
    public bool? IgnoreEos { get; init; }

    [JsonPropertyName("logprobs")]
    public bool? LogProbs { get; init; }

    [JsonPropertyName("top_logprobs")]
    public int? TopLogProbs { get; init; }

    [Description("text, json_object or json_schema.")]
    public JsonObject? ResponseFormat { get; init; }

    [Description("One of json, regex and choice.")]
    public JsonObject? StructuredOutputs { get; init; }
}

/// <summary>A turn.</summary>
internal sealed record ChatBodyMessage
{
    [Description("system, developer, user or assistant.")]
    public required string Role { get; init; }

    [Description("A text, or a list of parts: {\"type\":\"text\",\"text\":…} and {\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,…\"}}.")]
    public required JsonNode Content { get; init; }
}
