using System.Buffers.Binary;
using SkiaSharp;

namespace LrIad.Engine.Data;

/// <summary>Eight-bit RGB pixels, row by row.</summary>
/// <param name="Width">Pixels in a row.</param>
/// <param name="Height">Rows.</param>
/// <param name="Data">Width · Height · 3 bytes.</param>
internal sealed record RgbImage(int Width, int Height, byte[] Data);

/// <summary>Reads PNG, JPEG, BMP, WebP and TIFF files as Pillow's <c>convert("RGB")</c> does: alpha is dropped, 16-bit channels keep their upper 8 bits.</summary>
internal static class ImageFile
{
    /// <summary>The largest image that is decoded by default, in pixels: what a file declares is checked before any memory is taken.</summary>
    public const long DefaultMaxPixels = 64_000_000;

    /// <summary>Reads a file.</summary>
    /// <exception cref="InputException">It is missing, empty, not an image, truncated, or too large.</exception>
    public static RgbImage Read(string file, long maxPixels = DefaultMaxPixels)
    {
        byte[] bytes;
        try
        {
            bytes = File.ReadAllBytes(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }

        return Read(file, bytes, maxPixels);
    }

    /// <summary>Reads a file that is in memory.</summary>
    /// <exception cref="InputException">It is empty, not an image, truncated, or too large.</exception>
    public static RgbImage Read(string file, byte[] bytes, long maxPixels = DefaultMaxPixels)
    {
        ArgumentNullException.ThrowIfNull(bytes);
        if (bytes.Length == 0)
        {
            throw new InputException($"{file} is empty.");
        }

        if (IsUnendedJpeg(bytes))
        {
            throw new InputException($"{file} is truncated.");
        }

        return TiffFile.Is(bytes) ? TiffFile.Read(file, bytes, maxPixels) : ReadWithSkia(file, bytes, maxPixels);
    }

    // Skia fills in what a progressive JPEG lacks and says nothing. A whole one of any kind has an end marker, found by walking from segment to segment.
    private static bool IsUnendedJpeg(ReadOnlySpan<byte> bytes)
    {
        if (bytes is not [0xFF, 0xD8, 0xFF, ..])
        {
            return false;
        }

        const byte end = 0xD9, firstRestart = 0xD0, lastRestart = 0xD7, stuffing = 0, temporary = 1, fill = 0xFF;
        for (var at = 2; at < bytes.Length - 1;)
        {
            var marker = bytes[at] == 0xFF ? bytes[at + 1] : stuffing;
            if (marker == end)
            {
                return false;
            }

            at += marker switch
            {
                stuffing or fill => 1,
                temporary or (>= firstRestart and <= lastRestart) => 2,
                _ => 2 + (at + 3 < bytes.Length ? BinaryPrimitives.ReadUInt16BigEndian(bytes[(at + 2)..]) : 0),
            };
        }

        return true;
    }

    private static RgbImage ReadWithSkia(string file, byte[] bytes, long maxPixels)
    {
        using var stream = new MemoryStream(bytes);
        using var codec = SKCodec.Create(stream, out var opened);
        if (codec is null)
        {
            throw new InputException(opened == SKCodecResult.IncompleteInput ? $"{file} is truncated." : $"{file} is not an image that can be read (PNG, JPEG, BMP, WebP or TIFF).");
        }

        var (width, height) = (codec.Info.Width, codec.Info.Height);
        CheckSize(file, width, height, maxPixels);

        // Unpremultiplied and without colour management, so that the stored values come through.
        var info = new SKImageInfo(width, height, SKColorType.Rgba8888, SKAlphaType.Unpremul);
        var pixels = new byte[info.BytesSize];
        SKCodecResult result;
        unsafe
        {
            fixed (byte* target = pixels)
            {
                result = codec.GetPixels(info, (nint)target);
            }
        }

        if (result != SKCodecResult.Success)
        {
            throw new InputException(result == SKCodecResult.IncompleteInput ? $"{file} is truncated." : $"{file} is damaged ({result}).");
        }

        return DropAlpha(width, height, pixels);
    }

    private static RgbImage DropAlpha(int width, int height, byte[] rgba)
    {
        var rgb = new byte[(long)width * height * 3];
        for (long i = 0, pixels = (long)width * height; i < pixels; i++)
        {
            rgb[3 * i] = rgba[4 * i];
            rgb[(3 * i) + 1] = rgba[(4 * i) + 1];
            rgb[(3 * i) + 2] = rgba[(4 * i) + 2];
        }

        return new RgbImage(width, height, rgb);
    }

    internal static void CheckSize(string file, long width, long height, long maxPixels)
    {
        if (width <= 0 || height <= 0)
        {
            throw new InputException($"{file} says that it is {width} × {height} pixels.");
        }

        if (width > maxPixels / height)
        {
            throw new InputException($"{file} is {width} × {height} pixels, more than the {maxPixels:N0} that are decoded.");
        }
    }
}
