using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Server.OpenAi;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Trl;

/// <summary>What TRL's trainers ask of <c>trl vllm-serve</c> for rollouts: <c>/generate/</c> takes whole prompts, <c>/chat/</c> conversations.</summary>
internal static class TrlRollouts
{
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/get_world_size/", () => TypedResults.Json(new TrlWorldSize(1), Json.Wire)).WithMetadata(TrlError.Form).WithSummary("Always 1: one process answers.");
        routes.MapPost("/generate/", (HttpContext context, IInferenceEngine engine, ImageSources images, ServerOptions options) => AnswerAsync(context, engine, options, fields => Whole(fields, images, engine)))
            .WithMetadata(TrlError.Form).WithSummary("Draws completions of whole prompts.").Produces<TrlCompletions>().Produces<TrlError>(StatusCodes.Status400BadRequest);
        routes.MapPost("/chat/", (HttpContext context, IInferenceEngine engine, ImageSources images, ServerOptions options) => AnswerAsync(context, engine, options, fields => Conversations(fields, images, engine.Limits)))
            .WithMetadata(TrlError.Form).WithSummary("Draws completions of conversations.").Produces<TrlCompletions>().Produces<TrlError>(StatusCodes.Status400BadRequest);
    }

    private static async Task<IResult> AnswerAsync(HttpContext context, IInferenceEngine engine, ServerOptions options, Func<RequestFields, Prompt[]> readPrompts)
    {
        var fields = await RequestBody.ReadAsync(context);
        var sampling = TrlSampling.Read(fields, engine, options, Clients.Of(context));
        var prompts = readPrompts(fields);
        AnswerSize.Check((long)prompts.Length * sampling.Request.Completions, sampling.Request.MaxTokens!.Value, sampling.Request.TopLogProbs + 1);
        var groups = await Many.RunAsync(engine, prompts.Length, (i, cancellation) => DrawAsync(engine, sampling.Request with { Prompt = prompts[i] }, cancellation), context.RequestAborted);
        var completions = groups.SelectMany(group => group.Completions).ToArray();
        return TypedResults.Json(
            new TrlCompletions(
                [.. groups.Select(group => group.PromptIds)],
                [.. completions.Select(tokens => tokens.Select(drawn => drawn.Token.Id).ToArray())],
                sampling.WithLogProbs ? [.. completions.Select(tokens => tokens.Select(drawn => Ranked(drawn).Select(token => token.LogProb).ToArray()).ToArray())] : null,
                sampling.WithLogProbs ? [.. completions.Select(tokens => tokens.Select(drawn => Ranked(drawn).Select(token => token.Id).ToArray()).ToArray())] : null),
            Json.Wire);
    }

    /// <summary>The likeliest tokens and the drawn one, most likely first.</summary>
    public static IEnumerable<TokenLogProb> Ranked(DrawnToken drawn) =>
        drawn.Top.Any(token => token.Id == drawn.Token.Id) ? drawn.Top : drawn.Top.Append(drawn.Token).OrderByDescending(token => token.LogProb);

    private static async Task<Group> DrawAsync(IInferenceEngine engine, GenerationRequest request, CancellationToken cancellation)
    {
        var (completions, promptIds) = (Enumerable.Range(0, request.Completions).Select(_ => new List<DrawnToken>()).ToArray(), (IReadOnlyList<int>)[]);
        await foreach (var update in engine.StreamAsync(request, cancellation))
        {
            promptIds = update.PromptIds ?? promptIds;
            completions[update.Completion].AddRange(update.Tokens);
        }

        return new Group(promptIds, completions);
    }

    private static Prompt[] Whole(RequestFields fields, ImageSources sources, IInferenceEngine engine)
    {
        var prompts = fields.Items("prompts").ToArray();
        var images = fields.Has("images") ? fields.Items("images").ToArray() : [];
        if (images.Length > 0 && images.Length != prompts.Length)
        {
            throw fields.Bad("images", "must be as many lists as there are prompts, or null");
        }

        return [.. prompts.Select((prompt, i) => Whole(prompt, fields.Path($"prompts[{i}]"), images.Length == 0 ? [] : Images(images[i], fields.Path($"images[{i}]"), sources, engine.Limits), engine))];
    }

    private static Prompt Whole(JsonElement prompt, string where, ImageData[] images, IInferenceEngine engine)
    {
        if (prompt.ValueKind != JsonValueKind.String)
        {
            return new TokenPrompt(Tokens.Read(prompt, where, engine.Model.Vocabulary), images);
        }

        var text = RequestFields.Unescaped(prompt, where);
        Messages.CheckLength(text.Length, where, engine.Limits);
        return new RawPrompt(text, images);
    }

    private static ImageData[] Images(JsonElement list, string where, ImageSources sources, EngineLimits limits) => list.ValueKind switch
    {
        JsonValueKind.Null => [],
        JsonValueKind.Array when list.GetArrayLength() > limits.ImagesPerRequest => throw RequestException.Bad(where, $"has more than the {limits.ImagesPerRequest} images a prompt may have here"),
        JsonValueKind.Array => [.. list.EnumerateArray().Select((image, i) => sources.FromBase64(image, $"{where}[{i}]"))],
        _ => throw RequestException.Bad(where, "must be a list of images in base64, or null"),
    };

    private static Prompt[] Conversations(RequestFields fields, ImageSources sources, EngineLimits limits) =>
        [.. fields.Items("messages").Select((messages, i) => (Path: fields.Path($"messages[{i}]"), List: messages)).Select(one => Messages.Read(RequestFields.Objects(one.List, one.Path), one.Path, sources, limits))];

    private sealed record Group(IReadOnlyList<int> PromptIds, IReadOnlyList<List<DrawnToken>> Completions);
}
