using System.Runtime.CompilerServices;
using Microsoft.Extensions.AI;

namespace LrIad.Engine.Serving;

/// <summary>
/// An engine as Microsoft.Extensions.AI's <see cref="IChatClient"/>: text and images in, text out, streamed or whole; caching, logging, telemetry and other middleware goes on top. Holds no
/// conversation and no resource: every call is given all messages, and the engine is its owner's to dispose of. Safe to use from any thread.
/// </summary>
/// <remarks>
/// <para>
/// Of <see cref="ChatOptions"/> these count: ModelId (an adapter's name; the engine's own or none for the base model), Instructions, Temperature, TopP, TopK, Seed, StopSequences, MaxOutputTokens and ResponseFormat
/// (Json: an object), and in AdditionalProperties the names below. What would change the answer and cannot be done is refused: tools, penalties, stored conversations. Hints change nothing:
/// Reasoning, AllowBackgroundResponses, AllowMultipleToolCalls, RawRepresentationFactory, and other AdditionalProperties.
/// </para>
/// <para>Errors are those of <see cref="IInferenceEngine.StreamAsync"/>.</para>
/// </remarks>
public sealed class LriadChatClient : IChatClient
{
    /// <summary>
    /// In a request's AdditionalProperties: how many of the likeliest tokens to tell at each place, 0 for the drawn ones alone. In the response's (the last update's): every token, as a list of
    /// <see cref="DrawnToken"/>.
    /// </summary>
    public const string LogProbs = "log_probs";

    /// <summary>In a request's AdditionalProperties: true to be told an inspection's score. In the response's (the first update's): the score, a number.</summary>
    public const string Probe = "probe";

    /// <summary>In a request's AdditionalProperties: a regular expression that matches the whole answer.</summary>
    public const string Regex = "regex";

    /// <summary>In a request's AdditionalProperties: the texts to choose the answer from.</summary>
    public const string Choice = "choice";

    private readonly IInferenceEngine _engine;
    private readonly ChatClientMetadata _metadata;

    /// <param name="engine">Who answers.</param>
    public LriadChatClient(IInferenceEngine engine)
    {
        ArgumentNullException.ThrowIfNull(engine);
        (_engine, _metadata) = (engine, new ChatClientMetadata("lriad", defaultModelId: engine.Model.Name));
    }

    /// <inheritdoc/>
    public Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default) =>
        GetStreamingResponseAsync(messages, options, cancellationToken).ToChatResponseAsync(cancellationToken);

    /// <inheritdoc/>
    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        var tellTokens = options?.AdditionalProperties?.TryGetValue(LogProbs, out var wanted) is true && wanted is not null;
        var request = ChatMapping.ToRequest(messages, options, _engine);
        var id = Guid.CreateVersion7().ToString("N");
        var usage = new UsageDetails();
        var (count, tokens) = (0, new List<DrawnToken>());
        await foreach (var update in _engine.StreamAsync(request, cancellationToken).ConfigureAwait(false))
        {
            count += update.Tokens.Count;
            if (tellTokens)
            {
                tokens.AddRange(update.Tokens);
            }

            usage.InputTokenCount ??= update.PromptTokens;
            usage.CachedInputTokenCount ??= update.SharedPromptTokens;

            // Without a message's id: with one, additional properties would go to the message, and with it into the next prompt's cache key.
            var response = new ChatResponseUpdate(ChatRole.Assistant, update.Text is "" ? [] : [new TextContent(update.Text)])
            {
                ResponseId = id,
                ModelId = request.Adapter ?? _engine.Model.Name,
                CreatedAt = DateTimeOffset.UtcNow,
                RawRepresentation = update,
            };
            if (update.Probe is { } probe)
            {
                response.AdditionalProperties = new AdditionalPropertiesDictionary { [Probe] = probe };
            }

            if (update.Finish is { } finish)
            {
                (usage.OutputTokenCount, usage.TotalTokenCount) = (count, usage.InputTokenCount + count);
                response.Contents.Add(new UsageContent(usage));
                response.FinishReason = finish == FinishReason.Length ? ChatFinishReason.Length : ChatFinishReason.Stop;
                if (tellTokens)
                {
                    (response.AdditionalProperties ??= [])[LogProbs] = tokens;
                }
            }

            yield return response;
        }
    }

    /// <summary>This client, its <see cref="ChatClientMetadata"/> or its <see cref="IInferenceEngine"/>; null for anything else, and for any key.</summary>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(ChatClientMetadata) ? _metadata
            : serviceType.IsInstanceOfType(this) ? this
            : typeof(IInferenceEngine).IsAssignableFrom(serviceType) && serviceType.IsInstanceOfType(_engine) ? _engine
            : null;
    }

    /// <summary>Nothing: the engine is its owner's.</summary>
    public void Dispose()
    {
    }
}
