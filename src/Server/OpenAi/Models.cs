using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.OpenAi;

/// <summary><c>/v1/models</c>: the base model and its adapters, as vLLM lists them.</summary>
internal static class Models
{
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/models", (IInferenceEngine engine, ServerOptions options) => TypedResults.Json(new ModelList("list", All(engine)), Json.Wire))
            .WithMetadata(OpenAiError.Form).WithSummary("The base model and its adapters.");
        routes.MapGet("/v1/models/{*name}", (string name, IInferenceEngine engine) =>
            TypedResults.Json(All(engine).FirstOrDefault(model => model.Id == name) ?? throw ModelNames.Unknown(name), Json.Wire))
            .WithMetadata(OpenAiError.Form).WithSummary("One of them.");
    }

    private static ModelEntry[] All(IInferenceEngine engine)
    {
        var (card, length) = (engine.Model, engine.Limits.PromptLength + engine.Limits.CompletionLength);
        var loaded = card.Loaded.ToUnixTimeSeconds();
        return [new(card.Name, loaded, card.Name, null, length), .. engine.Adapters.Order(StringComparer.Ordinal).Select(name => new ModelEntry(name, loaded, name, card.Name, length))];
    }
}

/// <summary>The answer of <c>/v1/models</c>.</summary>
internal sealed record ModelList(string Object, IReadOnlyList<ModelEntry> Data);

/// <summary>A model that requests can name.</summary>
/// <param name="Id">What requests call it.</param>
/// <param name="Created">When it was loaded, in seconds since 1970.</param>
/// <param name="Root">What it was loaded as.</param>
/// <param name="Parent">The base model of an adapter.</param>
/// <param name="MaxModelLen">Longest prompt and completion together, in tokens.</param>
internal sealed record ModelEntry(string Id, long Created, string Root, string? Parent, int MaxModelLen)
{
    public string Object => "model";

    public string OwnedBy => "lriad-fast";
}
