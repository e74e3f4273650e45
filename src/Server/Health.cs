using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server;

/// <summary>Whether the server is there.</summary>
internal static class Health
{
    public static void Map(IEndpointRouteBuilder routes) => routes.MapGet("/health", () => TypedResults.Ok()).WithSummary("Answers 200 while the server runs.");
}
