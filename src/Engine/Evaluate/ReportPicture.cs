using System.Runtime.InteropServices;
using System.Text;
using LrIad.Engine.Data;
using SkiaSharp;

namespace LrIad.Engine.Evaluate;

/// <summary>Small pictures of images, for a page that has to stay small itself.</summary>
internal static class ReportPicture
{
    // The file stays under 30 MB: what text and markup leave of 28 is for the pictures, base64 taking 4 bytes for 3.
    private const long FileBytes = 28_000_000, LeastForPictures = 6_000_000, PageBytes = 500_000;
    private const int MarkupBytes = 640, LargestBytes = 24_000, Header = 64;

    // Pixels of the longest side.
    private const int LargestSide = 320, SmallestSide = 24, Quality = 78;

    /// <summary>Bytes that a picture may have.</summary>
    /// <param name="predictions">All images of the page.</param>
    /// <param name="pictures">How many have a picture.</param>
    public static int Budget(IReadOnlyList<Prediction> predictions, int pictures)
    {
        var text = PageBytes + predictions.Sum(prediction => MarkupBytes + (long)Encoding.UTF8.GetByteCount(prediction.Explanation) + Encoding.UTF8.GetByteCount(prediction.ImagePath));
        return (int)Math.Min(LargestBytes, Math.Max(LeastForPictures, FileBytes - text) / Math.Max(1, pictures) * 3 / 4 - Header);
    }

    /// <summary>An image as a data URI, as fine as the budget allows; null where it cannot be read any more.</summary>
    public static string? Of(string file, int budget)
    {
        RgbImage image;
        try
        {
            image = ImageFile.Read(file);
        }
        catch (InputException)
        {
            return null;
        }

        using var full = ToBitmap(image);
        var side = Math.Min(LargestSide, Math.Max(image.Width, image.Height));
        var picture = Encode(full, side);
        while (picture.Length > budget && side > SmallestSide)
        {
            // Bytes go with the area, nearly: small pictures have more detail a pixel.
            side = (int)(side * Math.Min(0.9, 0.95 * Math.Sqrt((double)budget / picture.Length)));
            picture = Encode(full, side);
        }

        return "data:image/webp;base64," + Convert.ToBase64String(picture);
    }

    /// <summary>Where a page in a folder finds an image file: a relative address; null where there is no such file, or none that is relative.</summary>
    public static string? Address(string file, string folder)
    {
        if (!File.Exists(file))
        {
            return null;
        }

        var relative = Path.GetRelativePath(folder, Path.GetFullPath(file));
        return Path.IsPathRooted(relative) ? null : string.Join('/', relative.Split(Path.DirectorySeparatorChar).Select(Uri.EscapeDataString));
    }

    private static byte[] Encode(SKBitmap full, int side)
    {
        var scale = Math.Min(1.0, (double)side / Math.Max(full.Width, full.Height));
        var size = new SKImageInfo(Math.Max(1, (int)Math.Round(full.Width * scale)), Math.Max(1, (int)Math.Round(full.Height * scale)), SKColorType.Rgba8888, SKAlphaType.Opaque);
        using var small = full.Resize(size, new SKSamplingOptions(SKFilterMode.Linear, SKMipmapMode.Linear));
        using var encoded = small.Encode(SKEncodedImageFormat.Webp, Quality);
        return encoded.ToArray();
    }

    private static SKBitmap ToBitmap(RgbImage image)
    {
        var bitmap = new SKBitmap(new SKImageInfo(image.Width, image.Height, SKColorType.Rgba8888, SKAlphaType.Opaque));
        var pixels = MemoryMarshal.Cast<byte, uint>(bitmap.GetPixelSpan());
        var data = image.Data;
        for (var (pixel, at) = (0, 0); pixel < pixels.Length; pixel++, at += 3)
        {
            pixels[pixel] = 0xFF000000 | ((uint)data[at + 2] << 16) | ((uint)data[at + 1] << 8) | data[at];
        }

        return bitmap;
    }
}
