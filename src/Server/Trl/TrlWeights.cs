using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Trl;

/// <summary>What TRL's trainers call to send weights to <c>trl vllm-serve</c> over NCCL. Here adapters are loaded from their folders, and the calls say so.</summary>
internal static class TrlWeights
{
    private static readonly string[] Transfers = ["/init_communicator/", "/update_named_param/", "/batch_update_named_params/", "/close_communicator/"];

    public static void Map(IEndpointRouteBuilder routes)
    {
        foreach (var path in Transfers)
        {
            routes.MapPost(path, Refuse).WithMetadata(TrlError.Form, OtherBody.Ignored).WithSummary("Not offered: load an adapter.").Produces<TrlError>(StatusCodes.Status501NotImplemented);
        }

        // What is kept of prompts belongs to one adapter or the base model, and those never change: nothing kept is ever stale.
        routes.MapPost("/reset_prefix_cache/", () => TypedResults.Json(new TrlMessage("Request received, resetting prefix cache status: True"), Json.Wire))
            .WithMetadata(TrlError.Form, OtherBody.Ignored).WithSummary("Does nothing: what is kept of prompts is never stale.");
    }

    private static IResult Refuse() => throw new RequestException(
        StatusCodes.Status501NotImplemented,
        "Weights are not sent to this server over a communicator. Save the adapter to a folder, load it with POST /v1/load_lora_adapter {\"lora_name\": NAME, \"lora_path\": FOLDER}, and name it in generation_kwargs: {\"adapter\": NAME}.");
}
