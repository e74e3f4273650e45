using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Requests;

/// <summary>Who asks, for taking turns: the address it asks from, which it cannot choose as it likes.</summary>
internal static class Clients
{
    public static string Of(HttpContext context) => context.Connection.RemoteIpAddress?.ToString() ?? "";
}
