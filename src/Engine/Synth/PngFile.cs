using LrIad.Engine.Data;
using SkiaSharp;

namespace LrIad.Engine.Synth;

/// <summary>Writes PNG files, all in the same way: eight-bit RGB without alpha, one filter, one level of compression, nothing but pixels in them.</summary>
internal static class PngFile
{
    private static readonly SKPngEncoderOptions Options = new(SKPngEncoderFilterFlags.Sub, 6);

    /// <summary>Writes an image, whole or not at all.</summary>
    public static void Write(string file, RgbImage image)
    {
        var info = new SKImageInfo(image.Width, image.Height, SKColorType.Rgba8888, SKAlphaType.Opaque);
        var pixels = new byte[info.BytesSize64];
        for (long i = 0, count = (long)image.Width * image.Height; i < count; i++)
        {
            image.Data.AsSpan((int)(3 * i), 3).CopyTo(pixels.AsSpan((int)(4 * i)));
            pixels[(4 * i) + 3] = byte.MaxValue;
        }

        unsafe
        {
            fixed (byte* at = pixels)
            {
                using var map = new SKPixmap(info, (nint)at);
                using var png = map.Encode(Options) ?? throw new InvalidOperationException($"{file} could not be encoded.");
                AtomicFile.Write(file, stream => png.SaveTo(stream));
            }
        }
    }
}
