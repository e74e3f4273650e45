using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LrIad.Engine.Serving;

/// <summary>Microsoft.Extensions.AI's messages and options as an engine's request.</summary>
internal static class ChatMapping
{
    private const string AnyObject = """{"type":"object"}""";

    /// <exception cref="InputException">Something in it cannot be done.</exception>
    public static GenerationRequest ToRequest(IEnumerable<ChatMessage> messages, ChatOptions? options, IInferenceEngine engine)
    {
        options ??= new ChatOptions();
        RefuseUnsupported(options);
        List<PromptMessage> turns = string.IsNullOrEmpty(options.Instructions) ? [] : [new PromptMessage("system", [PromptPart.Of(options.Instructions)])];
        turns.AddRange(messages.Select(Turn));
        var request = new GenerationRequest
        {
            Prompt = new Conversation(turns),
            Adapter = Adapter(options.ModelId, engine),
            MaxTokens = options.MaxOutputTokens,
            Seed = (ulong?)options.Seed,
            Stop = [.. options.StopSequences ?? []],
            TopLogProbs = Property<int>(options, LriadChatClient.LogProbs, "a whole number"),
            Probe = Property<bool>(options, LriadChatClient.Probe, "true or false"),
            Constraint = Constraint(options),
        };
        return request with { Temperature = options.Temperature ?? request.Temperature, TopP = options.TopP ?? request.TopP, TopK = options.TopK ?? request.TopK };
    }

    private static void RefuseUnsupported(ChatOptions options)
    {
        string[] refused =
        [
            .. Named(options.Tools is { Count: > 0 }, nameof(options.Tools)),
            .. Named(options.ToolMode is RequiredChatToolMode, nameof(options.ToolMode)),
            .. Named(options.FrequencyPenalty is not (null or 0), nameof(options.FrequencyPenalty)),
            .. Named(options.PresencePenalty is not (null or 0), nameof(options.PresencePenalty)),
            .. Named(options.ConversationId is not null, nameof(options.ConversationId)),
            .. Named(options.ContinuationToken is not null, nameof(options.ContinuationToken)),
        ];
        if (refused.Length > 0)
        {
            throw new InputException($"The chat options ask for what this model cannot do: {string.Join(", ", refused)}. Please leave {(refused.Length == 1 ? "it" : "them")} out.");
        }

        static string[] Named(bool asked, string name) => asked ? [name] : [];
    }

    private static string? Adapter(string? model, IInferenceEngine engine) =>
        model is null || model == engine.Model.Name ? null
        : engine.Adapters.Contains(model) ? model
        : throw new InputException($"There is no model called {model}: neither the base model, {engine.Model.Name}, nor one of the {engine.Adapters.Count} adapters loaded.");

    private static OutputConstraint? Constraint(ChatOptions options)
    {
        OutputConstraint?[] asked =
        [
            options.ResponseFormat is ChatResponseFormatJson json ? OutputConstraint.ToJsonSchema(json.Schema is { } schema ? schema.GetRawText() : AnyObject) : null,
            Property<string>(options, LriadChatClient.Regex, "a text") is { } regex ? OutputConstraint.ToRegex(regex) : null,
            Property<IEnumerable<string>>(options, LriadChatClient.Choice, "a list of texts") is { } choices ? OutputConstraint.ToChoice([.. choices]) : null,
        ];
        return asked.Count(constraint => constraint is not null) <= 1
            ? asked.FirstOrDefault(constraint => constraint is not null)
            : throw new InputException($"Of ResponseFormat, {LriadChatClient.Regex} and {LriadChatClient.Choice} only one can be asked for.");
    }

    // Options that were read from JSON hold JsonElements.
    private static T? Property<T>(ChatOptions options, string name, string expected)
    {
        if (options.AdditionalProperties?.TryGetValue(name, out var value) is not true || value is null)
        {
            return default;
        }

        try
        {
            if (options.AdditionalProperties.TryGetValue<T>(name, out var typed) || (value is JsonElement json && (typed = json.Deserialize<T>()) is not null))
            {
                return typed;
            }
        }
        catch (JsonException)
        {
            // As wrong as a value of another type.
        }

        throw new InputException($"AdditionalProperties[\"{name}\"] must be {expected}, not {value}.");
    }

    private static PromptMessage Turn(ChatMessage message, int index)
    {
        var place = $"message {index + 1}";
        return message.Role == ChatRole.System || message.Role == ChatRole.User || message.Role == ChatRole.Assistant
            ? new PromptMessage(message.Role.Value, [.. message.Contents.Select(content => Part(content, place))])
            : throw new InputException($"The role of {place} is {message.Role}; this model knows system, user and assistant.");
    }

    private static PromptPart Part(AIContent content, string place) => content switch
    {
        TextContent text => PromptPart.Of(text.Text),
        DataContent data => PromptPart.Of(Image(data, place)),
        UriContent { Uri: { IsAbsoluteUri: true, Scheme: "data" } } uri => PromptPart.Of(Image(Data(uri, place), place)),
        UriContent uri => throw new InputException($"{uri.Uri} in {place} is not fetched: give an image's bytes, as {nameof(DataContent)} or a data: URI."),
        _ => throw new InputException($"{content.GetType().Name} in {place} is nothing this model can read; it reads text and images."),
    };

    private static DataContent Data(UriContent uri, string place)
    {
        try
        {
            return new DataContent(uri.Uri);
        }
        catch (Exception e) when (e is UriFormatException or ArgumentException)
        {
            throw new InputException($"The data: URI in {place} cannot be read: {e.Message}", e);
        }
    }

    private static ImageData Image(DataContent data, string place) => data.HasTopLevelMediaType("image")
        ? new ImageData(data.Data, data.Name ?? $"the image in {place}")
        : throw new InputException($"The {data.MediaType} in {place} is nothing this model can read; it reads text and images.");
}
