using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Requests;

/// <summary>What an endpoint takes besides JSON: its metadata.</summary>
internal sealed class OtherBody
{
    /// <summary>Anything, none of which is looked at.</summary>
    public static readonly OtherBody Ignored = new();

    /// <summary>A form. A browser sends those of other sites' pages too, and says in Origin where they come from.</summary>
    public static readonly OtherBody Form = new();

    private OtherBody()
    {
    }

    public bool Takes(HttpRequest request) => this == Ignored || (request.HasFormContentType && IsOfNoOtherSite(request));

    private static bool IsOfNoOtherSite(HttpRequest request) =>
        request.Headers.Origin.ToString() is var origin && (origin.Length == 0 || (Uri.TryCreate(origin, UriKind.Absolute, out var uri) && uri.Authority == request.Host.Value));
}
