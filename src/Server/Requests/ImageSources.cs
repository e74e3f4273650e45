using System.Buffers;
using System.Buffers.Text;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using LrIad.Engine.Serving;

namespace LrIad.Server.Requests;

/// <summary>Where images of requests come from: the request itself, as a data URI or base64, or a file of the allowed folder. Nothing is ever fetched from elsewhere.</summary>
/// <param name="options">The allowed folder, and how large an image may be.</param>
internal sealed class ImageSources(ServerOptions options)
{
    // data:image/png;base64, and what comes before the comma in it; anomalib writes data:image/.png;base64, which is read as well: the bytes themselves say what they are.
    private const int LongestPrefix = 128;

    private readonly AllowedFolder? _folder = options.FilesFolder is { } folder ? new AllowedFolder(folder) : null;

    /// <summary>An image by its URL: a data URI, <c>file://</c>, or a path.</summary>
    /// <param name="url">A string of the request.</param>
    /// <param name="where">The field's name.</param>
    /// <exception cref="RequestException">There is no image to be had from there.</exception>
    public ImageData FromUrl(JsonElement url, string where)
    {
        var text = Utf8(url, where);
        if (StartsWith(text, "data:"))
        {
            var comma = text[..Math.Min(text.Length, LongestPrefix)].IndexOf((byte)',');
            return comma >= 0 && EndsWith(text[..comma], ";base64")
                ? Decode(text[(comma + 1)..], where)
                : throw RequestException.Bad(where, "is a data URI that does not begin as data:image/png;base64, does");
        }

        if (StartsWith(text, "http:") || StartsWith(text, "https:"))
        {
            throw RequestException.Bad(where, "names an image elsewhere on the network, which this server never fetches: send the image itself, as data:image/png;base64,…");
        }

        return FromFile(Encoding.UTF8.GetString(text), where);
    }

    /// <summary>An image sent as base64 alone.</summary>
    public ImageData FromBase64(JsonElement data, string where) => Decode(Utf8(data, where), where);

    /// <summary>An image file of the allowed folder.</summary>
    /// <param name="url"><c>file://</c>, or a path.</param>
    /// <param name="where">The field's name.</param>
    /// <exception cref="RequestException">It is not there, or not allowed.</exception>
    public ImageData FromFile(string url, string where)
    {
        var uri = url.StartsWith("file:", StringComparison.OrdinalIgnoreCase) && Uri.TryCreate(url, UriKind.Absolute, out var read) ? read : null;
        return uri is { IsUnc: true } ? throw AllowedFolder.Outside(where) : new ImageData(Allowed(where).Read(uri?.LocalPath ?? url, options.ImageBytes, where), where);
    }

    /// <summary>The real path of a folder in the allowed one.</summary>
    /// <exception cref="RequestException">It leads out of it, or there is no allowed folder.</exception>
    public string Folder(string path, string where) => Allowed(where).Path(path, where);

    private AllowedFolder Allowed(string where) => _folder ?? throw RequestException.Bad(where, "names a file or folder, and this server was started without --allow-files: send the image itself, as data:image/png;base64,…");

    private ImageData Decode(ReadOnlySpan<byte> base64, string where)
    {
        // Before anything is taken for it.
        if (base64.Length / 4 * 3L > options.ImageBytes + 2L)
        {
            throw TooLarge(where, options.ImageBytes);
        }

        var bytes = new byte[Base64.GetMaxDecodedFromUtf8Length(base64.Length)];
        return Base64.DecodeFromUtf8(base64, bytes, out _, out var length) == OperationStatus.Done && length > 0
            ? length <= options.ImageBytes ? new ImageData(bytes.AsMemory(0, length), where) : throw TooLarge(where, options.ImageBytes)
            : throw RequestException.Bad(where, "is not an image in base64");
    }

    internal static RequestException TooLarge(string where, long limit) => RequestException.Bad(where, $"is larger than the {limit} bytes an image may have here");

    // The text as it lies in the body: an image's base64 is long, and seldom has escapes.
    private static ReadOnlySpan<byte> Utf8(JsonElement value, string where)
    {
        if (value.ValueKind != JsonValueKind.String)
        {
            throw RequestException.Bad(where, "must be a string");
        }

        var raw = JsonMarshal.GetRawUtf8Value(value)[1..^1];
        return raw.Contains((byte)'\\') ? Encoding.UTF8.GetBytes(RequestFields.Unescaped(value, where)) : raw;
    }

    private static bool StartsWith(ReadOnlySpan<byte> text, string start) => text.Length >= start.Length && Ascii.EqualsIgnoreCase(text[..start.Length], start);

    private static bool EndsWith(ReadOnlySpan<byte> text, string end) => text.Length >= end.Length && Ascii.EqualsIgnoreCase(text[^end.Length..], end);
}
