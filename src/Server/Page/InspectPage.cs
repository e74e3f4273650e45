using System.Security.Cryptography;
using System.Text;
using LrIad.Server.OpenAi;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Page;

/// <summary>The page at <c>/</c>, for people: one file with everything in it, a sibling of the report.</summary>
internal static class InspectPage
{
    private static readonly Lazy<(byte[] Html, string Policy)> Made = new(Make);

    // HEAD too: by it Ollama's clients find out whether the server is there.
    public static void Map(IEndpointRouteBuilder routes) => routes.MapMethods("/", [HttpMethods.Get, HttpMethods.Head], Answer).WithMetadata(OpenAiError.Form).ExcludeFromDescription();

    private static IResult Answer(HttpContext context)
    {
        context.Response.Headers.ContentSecurityPolicy = Made.Value.Policy;
        context.Response.Headers["Referrer-Policy"] = "no-referrer";
        context.Response.Headers.CacheControl = "no-cache";
        return TypedResults.Bytes(Made.Value.Html, "text/html; charset=utf-8");
    }

    // The page's own style and script and no other; pictures are those that a person chose, requests go to this server, and no other page may frame it.
    private static (byte[] Html, string Policy) Make()
    {
        var (style, script) = (Resource("Theme.css") + Resource("Page.css"), Resource("Theme.js") + Resource("Page.js"));
        var html = Resource("Page.html").Replace("{style}", style, StringComparison.Ordinal).Replace("{script}", script, StringComparison.Ordinal);
        var policy = $"default-src 'none'; style-src '{Hash(style)}'; script-src '{Hash(script)}'; img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        return (Encoding.UTF8.GetBytes(html), policy);
    }

    private static string Hash(string text) => "sha256-" + Convert.ToBase64String(SHA256.HashData(Encoding.UTF8.GetBytes(text)));

    private static string Resource(string name)
    {
        using var stream = typeof(InspectPage).Assembly.GetManifestResourceStream("LrIad.Server.Page." + name)!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().ReplaceLineEndings("\n");
    }
}
