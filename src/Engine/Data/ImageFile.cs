using BitMiracle.LibTiff.Classic;
using SkiaSharp;

namespace LrIad.Engine.Data;

/// <summary>Eight-bit RGB pixels, row by row.</summary>
/// <param name="Width">Pixels in a row.</param>
/// <param name="Height">Rows.</param>
/// <param name="Data">Width · Height · 3 bytes.</param>
public sealed record RgbImage(int Width, int Height, byte[] Data);

/// <summary>Reads PNG, JPEG, BMP, WebP and TIFF files as Pillow's <c>convert("RGB")</c> does: alpha is dropped, 16-bit channels keep their upper 8 bits.</summary>
public static class ImageFile
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

        if (bytes.Length == 0)
        {
            throw new InputException($"{file} is empty.");
        }

        return IsTiff(bytes) ? ReadTiff(file, bytes, maxPixels) : ReadWithSkia(file, bytes, maxPixels);
    }

    private static bool IsTiff(byte[] bytes) => bytes is [0x49, 0x49, 0x2A, 0, ..] or [0x4D, 0x4D, 0, 0x2A, ..];

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

    private static void CheckSize(string file, long width, long height, long maxPixels)
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

    private static RgbImage ReadTiff(string file, byte[] bytes, long maxPixels)
    {
        using var stream = new MemoryStream(bytes);
        using var tiff = Tiff.ClientOpen(file, "r", stream, new TiffStream()) ?? throw new InputException($"{file} is not a readable TIFF file.");
        Tiff.SetErrorHandler(new SilentErrors());
        int Field(TiffTag tag, int otherwise) => tiff.GetField(tag)?[0].ToInt() ?? otherwise;
        var (width, height) = (Field(TiffTag.IMAGEWIDTH, 0), Field(TiffTag.IMAGELENGTH, 0));
        CheckSize(file, width, height, maxPixels);
        var (bits, samples, photometric) = (Field(TiffTag.BITSPERSAMPLE, 1), Field(TiffTag.SAMPLESPERPIXEL, 1), (Photometric)Field(TiffTag.PHOTOMETRIC, 1));
        var planar = (PlanarConfig)Field(TiffTag.PLANARCONFIG, (int)PlanarConfig.CONTIG);
        if (bits == 16 && !tiff.IsTiled() && planar == PlanarConfig.CONTIG && photometric is Photometric.RGB or Photometric.MINISBLACK)
        {
            return ReadTiff16(file, tiff, width, height, samples);
        }

        var raster = new int[(long)width * height];
        if (!tiff.ReadRGBAImageOriented(width, height, raster, Orientation.TOPLEFT, stopOnError: true))
        {
            throw new InputException($"{file} is truncated or damaged.");
        }

        var rgb = new byte[(long)width * height * 3];
        for (long i = 0; i < raster.LongLength; i++)
        {
            rgb[3 * i] = (byte)Tiff.GetR(raster[i]);
            rgb[(3 * i) + 1] = (byte)Tiff.GetG(raster[i]);
            rgb[(3 * i) + 2] = (byte)Tiff.GetB(raster[i]);
        }

        return new RgbImage(width, height, rgb);
    }

    private static RgbImage ReadTiff16(string file, Tiff tiff, int width, int height, int samples)
    {
        var line = new byte[tiff.ScanlineSize()];
        var rgb = new byte[(long)width * height * 3];
        var high = BitConverter.IsLittleEndian ? 1 : 0;
        for (var y = 0; y < height; y++)
        {
            if (!tiff.ReadScanline(line, y))
            {
                throw new InputException($"{file} is truncated or damaged at row {y}.");
            }

            for (var x = 0; x < width; x++)
            {
                for (var c = 0; c < 3; c++)
                {
                    var sample = (x * samples) + (samples >= 3 ? c : 0);
                    rgb[((((long)y * width) + x) * 3) + c] = line[(2 * sample) + high];
                }
            }
        }

        return new RgbImage(width, height, rgb);
    }

    private sealed class SilentErrors : TiffErrorHandler
    {
        public override void WarningHandler(Tiff tif, string method, string format, params object[] args)
        {
        }

        public override void ErrorHandler(Tiff tif, string method, string format, params object[] args)
        {
        }
    }
}
