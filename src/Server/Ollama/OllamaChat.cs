using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Server.OpenAi;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Ollama;

/// <summary><c>/api/chat</c>, as Ollama's clients know it: lines of JSON as they come, unless the request does not want that.</summary>
internal static class OllamaChat
{
    public static void Map(IEndpointRouteBuilder routes) => routes.MapPost("/api/chat", AnswerAsync)
        .WithMetadata(OllamaError.Form).WithSummary("Draws an answer to a conversation with images, in Ollama's protocol.").Produces<OllamaChunk>().Produces<OllamaError>(StatusCodes.Status400BadRequest);

    private static async Task AnswerAsync(HttpContext context, IInferenceEngine engine, ImageSources images, ServerOptions options, Errors errors)
    {
        var fields = await RequestBody.ReadAsync(context);
        var model = fields.Text("model");
        var request = OllamaRequest.Read(fields, engine, images, options, Clients.Of(context));
        if (request is null)
        {
            // Without messages it is asked to load the model, which has long been done.
            await context.Response.WriteAsJsonAsync(new OllamaChunk { Model = model, Message = new(""), DoneReason = "load" }, Json.Wire, context.RequestAborted);
            return;
        }

        var chunks = ChunksAsync(engine, request, model, fields.Flag("logprobs"), context.RequestAborted);
        if (fields.Flag("stream", otherwise: true))
        {
            await JsonLines.WriteAsync(context, chunks, errors);
        }
        else
        {
            await context.Response.WriteAsJsonAsync(await WholeAsync(chunks), Json.Wire, context.RequestAborted);
        }
    }

    private static async IAsyncEnumerable<OllamaChunk> ChunksAsync(IInferenceEngine engine, GenerationRequest request, string model, bool withLogProbs, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var (clock, promptTokens, promptTime, tokens) = (Stopwatch.StartNew(), 0, TimeSpan.Zero, 0);
        await foreach (var update in engine.StreamAsync(request, cancellation))
        {
            (promptTokens, promptTime) = update.PromptTokens is { } count ? (count, clock.Elapsed) : (promptTokens, promptTime);
            tokens += update.Tokens.Count;
            var logProbs = withLogProbs && update.Tokens.Count > 0 ? update.Tokens.Select(OllamaLogProb.Of).ToArray() : null;
            if (update.Text.Length > 0 || logProbs is not null)
            {
                yield return new OllamaChunk { Model = model, Message = new(update.Text), Logprobs = logProbs };
            }

            if (update.Finish is { } finish)
            {
                yield return new OllamaChunk
                {
                    Model = model,
                    Message = new(""),
                    DoneReason = finish == FinishReason.Length ? "length" : "stop",
                    TotalDuration = Nanoseconds(clock.Elapsed),
                    LoadDuration = 0,
                    PromptEvalCount = promptTokens,
                    PromptEvalDuration = Nanoseconds(promptTime),
                    EvalCount = tokens,
                    EvalDuration = Nanoseconds(clock.Elapsed - promptTime),
                };
            }
        }
    }

    private static async Task<OllamaChunk> WholeAsync(IAsyncEnumerable<OllamaChunk> chunks)
    {
        var (text, logProbs, last) = (new StringBuilder(), new List<OllamaLogProb>(), (OllamaChunk?)null);
        await foreach (var chunk in chunks)
        {
            text.Append(chunk.Message.Content);
            logProbs.AddRange(chunk.Logprobs ?? []);
            last = chunk;
        }

        return last! with { Message = new(text.ToString()), Logprobs = logProbs.Count > 0 ? logProbs : null };
    }

    private static long Nanoseconds(TimeSpan time) => time.Ticks * TimeSpan.NanosecondsPerTick;
}

/// <summary>Reads a request of <c>/api/chat</c>.</summary>
internal static class OllamaRequest
{
    private const string AnyObject = """{"type":"object"}""";

    // Ollama's own, where a request names none.
    private const double Temperature = 0.8, TopP = 0.9;
    private const int TopK = 40;

    // What would change the answer and is not offered, with what asks for nothing.
    private static readonly (string Name, double Neutral)[] NotOffered = [("min_p", 0), ("typical_p", 1), ("repeat_penalty", 1), ("presence_penalty", 0), ("frequency_penalty", 0)];

    /// <summary>What to draw; null: there are no messages.</summary>
    public static GenerationRequest? Read(RequestFields fields, IInferenceEngine engine, ImageSources images, ServerOptions options, string client)
    {
        var adapter = OllamaModels.Adapter(engine, fields.Text("model"));
        CheckNotOffered(fields);
        var sampling = fields.Has("options") ? fields.Object("options") : default(RequestFields?);
        var messages = fields.Has("messages") ? fields.Objects("messages") : [];
        return messages.Count == 0 ? null : new GenerationRequest
        {
            Prompt = Read(messages, fields, images, engine.Limits),
            Adapter = adapter,
            Temperature = (float)(sampling?.Number("temperature", 0, 100) ?? Temperature),
            TopP = (float)(sampling?.Number("top_p", 0, 1) ?? TopP),
            TopK = sampling?.Integer("top_k", 0, int.MaxValue) ?? TopK,
            Seed = sampling?.Integer("seed", int.MinValue, int.MaxValue) is >= 0 and var seed ? (ulong)seed : null,
            MaxTokens = sampling?.Integer("num_predict", int.MinValue, int.MaxValue) is > 0 and var most ? Math.Min(most, engine.Limits.CompletionLength) : null,
            Stop = Stop(sampling),
            TopLogProbs = fields.Flag("logprobs") ? fields.Integer("top_logprobs", 0, engine.Limits.TopLogProbs) ?? 0 : 0,
            Constraint = Constraint(fields, options.ConstraintLength),
            Client = client,
        };
    }

    private static void CheckNotOffered(RequestFields fields)
    {
        if (fields.Has("tools") && fields.Objects("tools").Count > 0)
        {
            throw fields.Bad("tools", "cannot be used: this model calls no tools");
        }

        if (fields.Has("think") && fields.Value("think").ValueKind != JsonValueKind.False)
        {
            throw fields.Bad("think", "cannot be used: this model does not think apart from its answer");
        }

        var options = fields.Has("options") ? fields.Object("options") : default(RequestFields?);
        foreach (var (name, neutral) in NotOffered)
        {
            if (options?.Number(name, double.MinValue, double.MaxValue) is { } value && value != neutral)
            {
                throw options.Value.Bad(name, $"is not offered here: leave it out, or {neutral}");
            }
        }
    }

    private static Conversation Read(IReadOnlyList<RequestFields> messages, RequestFields fields, ImageSources images, EngineLimits limits)
    {
        // Counted before any of them is decoded.
        if (messages.Sum(message => Images(message)) > limits.ImagesPerRequest)
        {
            throw fields.Bad("messages", $"have more than the {limits.ImagesPerRequest} images a request may have here");
        }

        var conversation = new Conversation([.. messages.Select(message => new PromptMessage(Role(message), Parts(message, images)))]);
        Messages.CheckLength(conversation.Messages.Sum(message => (long)message.Parts[^1].Text!.Length), fields.Path("messages"), limits);
        return conversation;
    }

    private static int Images(RequestFields message) => !message.Has("images") ? 0
        : message.Value("images") is { ValueKind: JsonValueKind.Array } list ? list.GetArrayLength() : throw message.Bad("images", "must be a list");

    private static string Role(RequestFields message) => message.Text("role").ToLowerInvariant() switch
    {
        var role when role is "system" or "user" or "assistant" => role,
        var role => throw message.Bad("role", $"must be system, user or assistant, not {RequestFields.Shown(role)}"),
    };

    // The images come before the text, as in Ollama.
    private static PromptPart[] Parts(RequestFields message, ImageSources sources)
    {
        IEnumerable<JsonElement> images = Images(message) == 0 ? [] : message.Value("images").EnumerateArray();
        return [.. images.Select((image, i) => PromptPart.Of(sources.FromBase64(image, message.Path($"images[{i}]")))), PromptPart.Of(message.TextOrNull("content") ?? "")];
    }

    private static IReadOnlyList<string> Stop(RequestFields? options) => options is not { } given || !given.Has("stop") ? []
        : given.Value("stop").ValueKind == JsonValueKind.String ? [given.Text("stop")] : given.Texts("stop");

    private static OutputConstraint? Constraint(RequestFields fields, int limit)
    {
        if (!fields.Has("format"))
        {
            return null;
        }

        var format = fields.Value("format");
        return format.ValueKind switch
        {
            JsonValueKind.String when fields.Text("format").Length == 0 => null,
            JsonValueKind.String when fields.Text("format") == "json" => OutputConstraint.ToJsonSchema(AnyObject),
            JsonValueKind.Object when format.GetRawText() is var schema => schema.Length <= limit ? OutputConstraint.ToJsonSchema(schema) : throw fields.Bad("format", $"is longer than the {limit} characters it may have here"),
            _ => throw fields.Bad("format", "must be \"json\" or a JSON schema"),
        };
    }
}
