using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Ollama;

/// <summary>What Ollama's clients ask for before they chat: which models there are, and which version.</summary>
internal static class OllamaModels
{
    // The version of Ollama whose /api/chat this is: clients look at it before they use what is new.
    private const string ApiVersion = "0.12.11";
    private const string Latest = ":latest";

    private static readonly string[] Capabilities = ["completion", "vision"];

    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/api/version", () => TypedResults.Json(new OllamaVersion(ApiVersion), Json.Wire)).WithMetadata(OllamaError.Form).WithSummary("The version of Ollama whose protocol this is.");
        routes.MapGet("/api/tags", (IInferenceEngine engine) => TypedResults.Json(new OllamaList([.. Names(engine).Select(name => Entry(engine, name))]), Json.Wire))
            .WithMetadata(OllamaError.Form).WithSummary("The base model and its adapters, as Ollama lists models.");
        routes.MapGet("/api/ps", (IInferenceEngine engine) => TypedResults.Json(new OllamaList([.. Names(engine).Select(name => Entry(engine, name))]), Json.Wire))
            .WithMetadata(OllamaError.Form).WithSummary("The same: all of them are loaded.");
        routes.MapPost("/api/show", ShowAsync).WithMetadata(OllamaError.Form).WithSummary("One of them.");
    }

    /// <summary>The adapter that a name of Ollama's kind stands for, with <c>:latest</c> or without; null: the base model.</summary>
    public static string? Adapter(IInferenceEngine engine, string name) => ModelNames.Adapter(engine, name.EndsWith(Latest, StringComparison.Ordinal) ? name[..^Latest.Length] : name);

    private static async Task<IResult> ShowAsync(HttpContext context, IInferenceEngine engine)
    {
        var fields = await RequestBody.ReadAsync(context);
        var adapter = Adapter(engine, fields.Text(fields.Has("model") ? "model" : "name"));
        var info = new Dictionary<string, object> { ["general.architecture"] = OllamaDetails.Qwen, [$"{OllamaDetails.Qwen}.context_length"] = Length(engine) };
        return TypedResults.Json(new OllamaShow(OllamaDetails.Of(engine, adapter), info, Capabilities, engine.Model.Loaded), Json.Wire);
    }

    private static IEnumerable<string?> Names(IInferenceEngine engine) => engine.Adapters.Order(StringComparer.Ordinal).Prepend(null);

    private static OllamaEntry Entry(IInferenceEngine engine, string? adapter)
    {
        var name = (adapter ?? engine.Model.Name) + Latest;
        return new OllamaEntry(name, name, engine.Model.Loaded, OllamaDetails.Of(engine, adapter), Capabilities, Length(engine));
    }

    private static int Length(IInferenceEngine engine) => engine.Limits.PromptLength + engine.Limits.CompletionLength;
}

internal sealed record OllamaVersion(string Version);

internal sealed record OllamaList(IReadOnlyList<OllamaEntry> Models);

internal sealed record OllamaEntry(string Name, string Model, DateTimeOffset ModifiedAt, OllamaDetails Details, IReadOnlyList<string> Capabilities, int ContextLength)
{
    // Clients expect both, and the engine does not know them.
    public long Size => 0;

    public string Digest => "";
}

/// <summary>A model in Ollama's words.</summary>
/// <param name="ParentModel">The base model of an adapter.</param>
internal sealed record OllamaDetails(string ParentModel)
{
    public const string Qwen = "qwen2vl";

    public string Format => "safetensors";

    public string Family => Qwen;

    public IReadOnlyList<string> Families => [Qwen];

    public string ParameterSize => "";

    public string QuantizationLevel => "BF16";

    public static OllamaDetails Of(IInferenceEngine engine, string? adapter) => new(adapter is null ? "" : engine.Model.Name);
}

internal sealed record OllamaShow(OllamaDetails Details, IReadOnlyDictionary<string, object> ModelInfo, IReadOnlyList<string> Capabilities, DateTimeOffset ModifiedAt);
