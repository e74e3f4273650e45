using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.OpenAi;

/// <summary>Adapters loaded and forgotten while the server runs, as vLLM has it; loading reads folders of this machine, and so only the allowed one.</summary>
internal static class LoraAdapters
{
    private const int LongestName = 256;

    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapPost("/v1/load_lora_adapter", LoadAsync).WithMetadata(OpenAiError.Form).WithSummary("Loads an adapter from a folder of the server's.");
        routes.MapPost("/v1/unload_lora_adapter", UnloadAsync).WithMetadata(OpenAiError.Form).WithSummary("Forgets an adapter.");
    }

    private static async Task<IResult> LoadAsync(HttpContext context, IInferenceEngine engine, ServerOptions options)
    {
        var fields = await RequestBody.ReadAsync(context);
        var (name, path) = (Name(fields), fields.Text("lora_path"));
        if (options.AdaptersFolder is null)
        {
            throw new RequestException(StatusCodes.Status403Forbidden, "This server was started without --allow-adapters: adapters are loaded by its command line alone.");
        }

        if (name == engine.Model.Name || engine.Adapters.Contains(name))
        {
            throw fields.Bad("lora_name", $"is taken: {RequestFields.Shown(name)} is loaded already");
        }

        await engine.LoadAdapterAsync(name, new AllowedFolder(options.AdaptersFolder).Path(path, "lora_path"), context.RequestAborted);
        return TypedResults.Text($"Success: LoRA adapter '{name}' added successfully.");
    }

    private static async Task<IResult> UnloadAsync(HttpContext context, IInferenceEngine engine)
    {
        var name = Name(await RequestBody.ReadAsync(context));
        return await engine.UnloadAdapterAsync(name, context.RequestAborted)
            ? TypedResults.Text($"Success: LoRA adapter '{name}' removed successfully.")
            : throw new RequestException(StatusCodes.Status404NotFound, $"There is no adapter {RequestFields.Shown(name)} here.", "lora_name", "model_not_found");
    }

    // It comes back in answers, lists and labels.
    private static string Name(RequestFields fields) => fields.Text("lora_name") is var name && name.Length is > 0 and <= LongestName && !name.Any(char.IsControl)
        ? name : throw fields.Bad("lora_name", $"must have 1 to {LongestName} characters");
}
