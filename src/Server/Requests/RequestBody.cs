using System.Buffers;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace LrIad.Server.Requests;

/// <summary>Reads the body of a request: a JSON object, within the limits, which hold while it is read.</summary>
internal static class RequestBody
{
    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = 64, AllowDuplicateProperties = false };

    /// <summary>The object's fields, which live as long as the request.</summary>
    /// <exception cref="RequestException">It is too large, or no JSON object.</exception>
    public static async Task<RequestFields> ReadAsync(HttpContext context)
    {
        var share = context.RequestServices.GetRequiredService<BodyBudget>().Open();
        context.Response.RegisterForDispose(share);
        var bytes = await ReadBytesAsync(context, share);
        try
        {
            var document = JsonDocument.Parse(bytes, Strict);
            context.Response.RegisterForDispose(document);
            return document.RootElement.ValueKind == JsonValueKind.Object ? new RequestFields(document.RootElement) : throw Malformed("The body must be a JSON object.");
        }
        catch (InvalidOperationException)
        {
            // A field's name with half of a surrogate pair in it.
            throw Malformed("The body is not valid Unicode.");
        }
        catch (JsonException e)
        {
            throw Malformed($"The body is not valid JSON: line {e.LineNumber + 1}, byte {e.BytePositionInLine}.");
        }
    }

    private static async Task<ReadOnlyMemory<byte>> ReadBytesAsync(HttpContext context, BodyBudget.Share share)
    {
        var (reader, body) = (context.Request.BodyReader, new ArrayBufferWriter<byte>());
        while (true)
        {
            // Kestrel throws where the body grows over its limit.
            var read = await reader.ReadAsync(context.RequestAborted);
            var length = read.Buffer.Length;
            foreach (var part in read.Buffer)
            {
                body.Write(part.Span);
            }

            reader.AdvanceTo(read.Buffer.End);

            // Only now: a reader in the midst of reading would cost the connection, and with it the answer that says why.
            share.Take(length);
            if (read.IsCompleted)
            {
                return body.WrittenMemory;
            }
        }
    }

    private static RequestException Malformed(string message) => new(StatusCodes.Status400BadRequest, message);
}
