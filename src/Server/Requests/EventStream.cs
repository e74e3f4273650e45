using System.Buffers;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace LrIad.Server.Requests;

/// <summary>Server-sent events: each is there for the client as soon as it is sent.</summary>
internal sealed class EventStream
{
    private readonly HttpContext _context;

    private EventStream(HttpContext context) => _context = context;

    /// <summary>Begins the answer.</summary>
    public static EventStream Begin(HttpContext context)
    {
        context.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
        context.Response.ContentType = "text/event-stream; charset=utf-8";
        context.Response.Headers.CacheControl = "no-cache";
        return new EventStream(context);
    }

    /// <summary>An event with a JSON object.</summary>
    public Task SendAsync<T>(T data) => WriteAsync(JsonSerializer.SerializeToUtf8Bytes(data, Json.Wire));

    /// <summary>OpenAI's last event.</summary>
    public Task DoneAsync() => WriteAsync("[DONE]"u8.ToArray());

    private async Task WriteAsync(byte[] data)
    {
        var writer = _context.Response.BodyWriter;
        writer.Write("data: "u8);
        writer.Write(data);
        writer.Write("\n\n"u8);
        await writer.FlushAsync(_context.RequestAborted);
    }
}
