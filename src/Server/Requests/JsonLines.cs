using System.Buffers;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace LrIad.Server.Requests;

/// <summary>An answer in lines of JSON (NDJSON): each is there for the client as soon as it is written.</summary>
internal static class JsonLines
{
    /// <summary>Writes lines. What goes wrong before the first has a status of its own; after it, a last line in the form of the endpoint's protocol tells of it.</summary>
    /// <param name="context">The request.</param>
    /// <param name="lines">The lines: each an object of the protocol.</param>
    /// <param name="errors">Tells errors.</param>
    public static async Task WriteAsync(HttpContext context, IAsyncEnumerable<object> lines, Errors errors)
    {
        var started = await lines.StartAsync(context.RequestAborted);
        context.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
        context.Response.ContentType = "application/x-ndjson; charset=utf-8";
        context.Response.Headers.CacheControl = "no-cache";
        try
        {
            await foreach (var line in started)
            {
                await WriteAsync(context, line);
            }
        }
        catch (Exception e) when (!context.RequestAborted.IsCancellationRequested)
        {
            await WriteAsync(context, context.GetEndpoint()!.Metadata.GetRequiredMetadata<ErrorForm>().Body(errors.Told(context, e)));
        }
    }

    private static async Task WriteAsync(HttpContext context, object line)
    {
        context.Response.BodyWriter.Write(JsonSerializer.SerializeToUtf8Bytes(line, Json.Wire));
        context.Response.BodyWriter.Write("\n"u8);
        await context.Response.BodyWriter.FlushAsync(context.RequestAborted);
    }
}
