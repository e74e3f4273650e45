using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Net.Http.Headers;

namespace LrIad.Server.Inspect;

/// <summary>A form with image files (multipart/form-data), read within the limits.</summary>
/// <param name="Fields">Its fields that are no files, as those of a JSON object.</param>
/// <param name="Image">The file of its field <c>image</c>.</param>
/// <param name="References">The files of its fields <c>references</c>.</param>
internal sealed record InspectUpload(RequestFields Fields, ImageData Image, IReadOnlyList<ImageData> References)
{
    private const int LongestText = 1000;

    /// <summary>Whether a request is such a form.</summary>
    public static bool Is(HttpRequest request) => request.HasFormContentType;

    /// <exception cref="RequestException">It is no such form, too large, or lacks the image.</exception>
    public static async Task<InspectUpload> ReadAsync(HttpContext context, ServerOptions options, EngineLimits limits)
    {
        var share = context.RequestServices.GetRequiredService<BodyBudget>().Open();
        context.Response.RegisterForDispose(share);
        var (texts, image, references) = (new JsonObject(), (ImageData?)null, new List<ImageData>());
        try
        {
            var reader = new MultipartReader(Boundary(context.Request), context.Request.Body);
            while (await reader.ReadNextSectionAsync(context.RequestAborted) is { } section)
            {
                var (name, file) = Names(section);
                var isImage = name is "image" or "references";
                var bytes = await ReadAsync(section.Body, name, isImage ? options.ImageBytes : LongestText, share, context.RequestAborted);
                if (!isImage)
                {
                    texts[name] = Value(name, System.Text.Encoding.UTF8.GetString(bytes));
                }
                else if (name == "image")
                {
                    image = image is null ? new ImageData(bytes, file) : throw Bad("image", "is there twice; images of faultless parts are named references");
                }
                else
                {
                    references.Add(references.Count < limits.ImagesPerRequest ? new ImageData(bytes, file) : throw Bad(name, $"must be fewer than the {limits.ImagesPerRequest} images a request may have here"));
                }
            }
        }
        catch (Exception e) when (e is InvalidDataException or IOException and not BadHttpRequestException)
        {
            throw new RequestException(StatusCodes.Status400BadRequest, "The body is not a whole form of the kind multipart/form-data.");
        }

        return new InspectUpload(new RequestFields(JsonSerializer.SerializeToElement(texts)), image ?? throw Bad("image", "is missing"), references);
    }

    private static string Boundary(HttpRequest request) =>
        MediaTypeHeaderValue.TryParse(request.ContentType, out var type) && HeaderUtilities.RemoveQuotes(type.Boundary).Value is { Length: > 0 and <= 70 } boundary ? boundary
            : throw new RequestException(StatusCodes.Status415UnsupportedMediaType, "The body must be JSON, or a form of the kind multipart/form-data.");

    private static (string Name, string File) Names(MultipartSection section)
    {
        if (!ContentDispositionHeaderValue.TryParse(section.ContentDisposition, out var disposition))
        {
            throw new InvalidDataException();
        }

        var file = disposition.FileNameStar.HasValue ? disposition.FileNameStar : disposition.FileName;
        var name = Path.GetFileName(HeaderUtilities.RemoveQuotes(file).ToString());
        return (HeaderUtilities.RemoveQuotes(disposition.Name).ToString(), name.Length > 0 ? name : "image");
    }

    private static async Task<byte[]> ReadAsync(Stream body, string name, int limit, BodyBudget.Share share, CancellationToken cancellation)
    {
        using var bytes = new MemoryStream();
        var buffer = new byte[1 << 16];
        while (await body.ReadAsync(buffer, cancellation) is > 0 and var read)
        {
            share.Take(read);
            bytes.Write(buffer, 0, read);
            if (bytes.Length > limit)
            {
                throw ImageSources.TooLarge(RequestFields.Shown(name), limit);
            }
        }

        return bytes.ToArray();
    }

    // A form knows only texts; those of these fields are numbers and flags.
    private static JsonNode? Value(string name, string text) => name switch
    {
        "threshold" or "max_tokens" when double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) && double.IsFinite(number) => number == Math.Floor(number) && Math.Abs(number) < int.MaxValue ? (int)number : number,
        "stream" when bool.TryParse(text, out var flag) => flag,
        _ => text,
    };

    private static RequestException Bad(string name, string problem) => RequestException.Bad(name, problem);
}
