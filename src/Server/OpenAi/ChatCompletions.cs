using System.Text;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.OpenAi;

/// <summary><c>/v1/chat/completions</c>, as OpenAI's clients and vLLM's know it.</summary>
internal static class ChatCompletions
{
    public static void Map(IEndpointRouteBuilder routes) => routes.MapPost("/v1/chat/completions", AnswerAsync)
        .WithMetadata(OpenAiError.Form).WithSummary("Draws answers to a conversation with images, whole or as they come.")
        .Accepts<ChatBody>("application/json").Produces<ChatCompletion>().Produces<OpenAiError>(StatusCodes.Status400BadRequest);

    private static async Task AnswerAsync(HttpContext context, IInferenceEngine engine, ImageSources images, ServerOptions options, Errors errors)
    {
        var fields = await RequestBody.ReadAsync(context);
        var request = ChatRequest.Read(fields, engine, images, options, Clients.Of(context));
        await using var updates = await engine.StreamAsync(request.Generation, context.RequestAborted).StartAsync(context.RequestAborted);
        var head = new ChatHead($"chatcmpl-{Guid.NewGuid():N}", DateTimeOffset.UtcNow.ToUnixTimeSeconds(), request.Model);
        if (request.IsStream)
        {
            await StreamAsync(context, request, head, updates, errors);
        }
        else
        {
            await context.Response.WriteAsJsonAsync(await WholeAsync(request, head, updates), Json.Wire, context.RequestAborted);
        }
    }

    private static async Task<ChatCompletion> WholeAsync(ChatRequest request, ChatHead head, IAsyncEnumerable<GenerationUpdate> updates)
    {
        var drafts = Enumerable.Range(0, request.Generation.Completions).Select(_ => new Draft()).ToArray();
        var usage = new ChatUsage(0, 0, new PromptDetails(0));
        await foreach (var update in updates)
        {
            usage = Count(usage, update);
            var draft = drafts[update.Completion];
            draft.Text.Append(update.Text);
            draft.Finish = update.Finish ?? draft.Finish;
            if (request.WithLogProbs)
            {
                draft.Tokens.AddRange(update.Tokens);
            }
        }

        var choices = drafts.Select((draft, i) => new ChatChoice(i, new ChatMessage("assistant", draft.Text.ToString()), request.WithLogProbs ? ChatLogProbs.Of(draft.Tokens) : null, Reason(draft.Finish)!));
        return new ChatCompletion(head.Id, head.Created, head.Model, [.. choices], usage);
    }

    private static async Task StreamAsync(HttpContext context, ChatRequest request, ChatHead head, IAsyncEnumerable<GenerationUpdate> updates, Errors errors)
    {
        var stream = EventStream.Begin(context);
        ChatChunk Chunk(int index, ChatDelta delta, ChatLogProbs? logProbs = null, string? finish = null) => new(head.Id, head.Created, head.Model, [new ChatDeltaChoice(index, delta, logProbs, finish)]);
        try
        {
            for (var i = 0; i < request.Generation.Completions; i++)
            {
                await stream.SendAsync(Chunk(i, new ChatDelta("assistant", "")));
            }

            var usage = new ChatUsage(0, 0, new PromptDetails(0));
            await foreach (var update in updates)
            {
                usage = Count(usage, update);
                var logProbs = request.WithLogProbs && update.Tokens.Count > 0 ? ChatLogProbs.Of(update.Tokens) : null;
                if (update.Text.Length > 0 || update.Finish is not null || logProbs is not null)
                {
                    await stream.SendAsync(Chunk(update.Completion, new ChatDelta(null, update.Text), logProbs, Reason(update.Finish)));
                }
            }

            if (request.WithUsage)
            {
                await stream.SendAsync(new ChatChunk(head.Id, head.Created, head.Model, []) { Usage = usage });
            }
        }
        catch (Exception e) when (!context.RequestAborted.IsCancellationRequested)
        {
            // The status has been sent: an event tells of it.
            await stream.SendAsync(OpenAiError.Of(errors.Told(context, e)));
        }

        await stream.DoneAsync();
    }

    private static ChatUsage Count(ChatUsage usage, GenerationUpdate update) => new(
        update.PromptTokens ?? usage.PromptTokens,
        usage.CompletionTokens + update.Tokens.Count,
        update.SharedPromptTokens is { } shared ? new PromptDetails(shared) : usage.PromptTokensDetails);

    private static string? Reason(FinishReason? finish) => finish switch
    {
        FinishReason.Stop => "stop",
        FinishReason.Length => "length",
        _ => null,
    };

    // What all parts of an answer begin with.
    private sealed record ChatHead(string Id, long Created, string Model);

    private sealed class Draft
    {
        public StringBuilder Text { get; } = new();

        public List<DrawnToken> Tokens { get; } = [];

        public FinishReason? Finish { get; set; }
    }
}
