using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server;

/// <summary>Whether the server is there.</summary>
internal static class Health
{
    public static void Map(IEndpointRouteBuilder routes) => routes.MapGet("/health", () => TypedResults.Json(new HealthAnswer("ok"), Json.Wire)).WithSummary("Answers 200 while the server runs; at /health/ too, where TRL asks.");
}

/// <summary>The answer: vLLM's clients look at its status, TRL's words it like this.</summary>
internal sealed record HealthAnswer(string Status);
