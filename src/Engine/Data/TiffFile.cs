using System.Buffers.Binary;
using System.Globalization;
using BitMiracle.LibTiff.Classic;

namespace LrIad.Engine.Data;

/// <summary>
/// The first page of a TIFF file as Pillow's <c>convert("RGB")</c> gives it: whatever extra samples mean they are dropped, sixteen bits keep their upper eight, and the
/// orientation tag, unlike EXIF's in other formats, is obeyed.
/// </summary>
internal static class TiffFile
{
    private const int MostSamples = 8;

    // LibTiff has one handler for all files; by default it writes to standard error and goes on with what it has.
    static TiffFile() => Tiff.SetErrorHandler(new Thrower());

    public static bool Is(ReadOnlySpan<byte> bytes) => bytes is [0x49, 0x49, 0x2A, 0, ..] or [0x4D, 0x4D, 0, 0x2A, ..];

    /// <exception cref="InputException">It is damaged, truncated, too large, or of a kind that is not read.</exception>
    public static RgbImage Read(string file, byte[] bytes, long maxPixels)
    {
        try
        {
            using var stream = new MemoryStream(bytes, writable: false);
            using var tiff = Tiff.ClientOpen(file, "r", stream, new TiffStream()) ?? throw new InvalidDataException("it cannot be opened");
            var page = Page.Describe(file, tiff, bytes.Length, maxPixels);
            return Turn(page.Plain ? ReadSamples(file, tiff, page) : ReadOther(file, tiff, page), page.Orientation);
        }
        catch (Exception e) when (e is not InputException)
        {
            // LibTiff runs over the ends of its arrays on some damaged files.
            throw new InputException($"{file} is {(EndsEarly(bytes) ? "truncated" : "a damaged TIFF file")} ({e.Message.TrimEnd('.')}).", e);
        }
    }

    private static bool EndsEarly(byte[] bytes) =>
        bytes.Length < 8 || (bytes[0] == 'I' ? BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(4)) : BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(4))) > bytes.Length - 2;

    // Bilevel and 4-bit pictures, YCbCr and whatever else LibTiff converts itself.
    private static RgbImage ReadOther(string file, Tiff tiff, Page page)
    {
        var raster = new int[(long)page.Width * page.Height];
        tiff.SetField(TiffTag.ORIENTATION, Orientation.TOPLEFT);
        if (!tiff.ReadRGBAImageOriented(page.Width, page.Height, raster, Orientation.TOPLEFT, stopOnError: true))
        {
            throw new InputException($"{file} is truncated or damaged.");
        }

        var rgb = new byte[raster.LongLength * 3];
        for (long i = 0; i < raster.LongLength; i++)
        {
            rgb[3 * i] = (byte)Tiff.GetR(raster[i]);
            rgb[(3 * i) + 1] = (byte)Tiff.GetG(raster[i]);
            rgb[(3 * i) + 2] = (byte)Tiff.GetB(raster[i]);
        }

        return new RgbImage(page.Width, page.Height, rgb);
    }

    private static RgbImage ReadSamples(string file, Tiff tiff, Page page)
    {
        var channels = page.Channels;
        var samples = new byte[(long)page.Width * page.Height * channels];
        var buffer = new byte[page.Tiled ? tiff.TileSize() : tiff.ScanlineSize()];
        var (blockWidth, blockHeight) = page.Tiled ? (page.TileWidth, page.TileHeight) : (page.Width, 1);
        for (var plane = 0; plane < (page.Separate ? channels : 1); plane++)
        {
            for (var y = 0; y < page.Height; y += blockHeight)
            {
                for (var x = 0; x < page.Width; x += blockWidth)
                {
                    if (page.Tiled ? tiff.ReadTile(buffer, 0, x, y, 0, (short)plane) < 0 : !tiff.ReadScanline(buffer, 0, y, (short)plane))
                    {
                        throw new InputException($"{file} is truncated or damaged at row {y}.");
                    }

                    CopyBlock(buffer, samples, page, plane, (x, y), (blockWidth, blockHeight));
                }
            }
        }

        return new RgbImage(page.Width, page.Height, ToRgb(samples, page, tiff));
    }

    private static void CopyBlock(byte[] block, byte[] samples, Page page, int plane, (int X, int Y) at, (int Width, int Height) size)
    {
        var (inBlock, kept) = page.Separate ? (1, 1) : (page.Samples, page.Channels);
        var bytes = page.Bits / 8;

        // Sixteen-bit samples come in the machine's byte order.
        var upper = bytes == 2 && BitConverter.IsLittleEndian ? 1 : 0;
        for (var y = 0; y < Math.Min(size.Height, page.Height - at.Y); y++)
        {
            for (var x = 0; x < Math.Min(size.Width, page.Width - at.X); x++)
            {
                var source = ((((y * size.Width) + x) * inBlock) * bytes) + upper;
                var target = (((((long)at.Y + y) * page.Width) + at.X + x) * page.Channels) + plane;
                for (var c = 0; c < kept; c++)
                {
                    samples[target + c] = block[source + (c * bytes)];
                }
            }
        }
    }

    private static byte[] ToRgb(byte[] samples, Page page, Tiff tiff)
    {
        if (page.Photometric == Photometric.RGB)
        {
            return samples;
        }

        var palette = page.Photometric == Photometric.PALETTE ? tiff.GetField(TiffTag.COLORMAP) : null;
        var map = palette is null ? null : Array.ConvertAll(palette, column => column.ToShortArray());
        var rgb = new byte[(long)page.Width * page.Height * 3];
        for (long i = 0, s = 0; i < rgb.LongLength; i += 3, s += page.Channels)
        {
            for (var c = 0; c < 3; c++)
            {
                rgb[i + c] = page.Photometric switch
                {
                    Photometric.MINISWHITE => (byte)(255 - samples[s]),
                    Photometric.PALETTE => (byte)((ushort)map![c][samples[s]] >> 8),
                    Photometric.SEPARATED => WithoutInk(samples[s + c], samples[s + 3]),
                    _ => samples[s],
                };
            }
        }

        return rgb;
    }

    // Pillow's rounding of (255 − ink)(255 − black) / 255.
    private static byte WithoutInk(int ink, int black)
    {
        var product = (ink * (255 - black)) + 128;
        return (byte)Math.Max(0, 255 - black - (((product >> 8) + product) >> 8));
    }

    private static RgbImage Turn(RgbImage image, int orientation)
    {
        if (orientation is < 2 or > 8)
        {
            return image;
        }

        // Orientations from 5 on store columns as rows; the others mirror one or both axes.
        var swap = orientation >= 5;
        var (width, height) = swap ? (image.Height, image.Width) : (image.Width, image.Height);
        var (mirrorX, mirrorY) = (orientation is 2 or 3 or 7 or 8, orientation is 3 or 4 or 6 or 7);
        var turned = new byte[image.Data.LongLength];
        for (long y = 0, at = 0; y < height; y++)
        {
            for (long x = 0; x < width; x++, at += 3)
            {
                var (sourceX, sourceY) = swap ? (y, x) : (x, y);
                sourceX = mirrorX ? image.Width - 1 - sourceX : sourceX;
                sourceY = mirrorY ? image.Height - 1 - sourceY : sourceY;
                Array.Copy(image.Data, ((sourceY * image.Width) + sourceX) * 3, turned, at, 3);
            }
        }

        return new RgbImage(width, height, turned);
    }

    /// <summary>What the tags say, checked before anything is allocated by it.</summary>
    private sealed record Page(int Width, int Height, int Bits, int Samples, Photometric Photometric, bool Separate, bool Tiled, int TileWidth, int TileHeight, int Orientation)
    {
        /// <summary>Samples that make up the colour.</summary>
        public int Channels => Photometric switch { Photometric.RGB => 3, Photometric.SEPARATED => 4, _ => 1 };

        /// <summary>Whole bytes a sample, and a colour model that needs no more than a look at them.</summary>
        public bool Plain => Photometric is Photometric.RGB or Photometric.MINISBLACK or Photometric.MINISWHITE or Photometric.SEPARATED
            ? Bits is 8 or 16
            : Photometric == Photometric.PALETTE && Bits == 8;

        public static Page Describe(string file, Tiff tiff, long length, long maxPixels)
        {
            int Field(TiffTag tag, int otherwise) => tiff.GetField(tag)?[0].ToInt() ?? otherwise;
            var page = new Page(
                Field(TiffTag.IMAGEWIDTH, 0), Field(TiffTag.IMAGELENGTH, 0), Field(TiffTag.BITSPERSAMPLE, 1), Field(TiffTag.SAMPLESPERPIXEL, 1),
                (Photometric)Field(TiffTag.PHOTOMETRIC, (int)Photometric.MINISBLACK), Field(TiffTag.PLANARCONFIG, (int)PlanarConfig.CONTIG) == (int)PlanarConfig.SEPARATE,
                tiff.IsTiled(), Field(TiffTag.TILEWIDTH, 0), Field(TiffTag.TILELENGTH, 0), Field(TiffTag.ORIENTATION, 1));
            ImageFile.CheckSize(file, page.Width, page.Height, maxPixels);
            if (page.Tiled)
            {
                ImageFile.CheckSize(file, page.TileWidth, page.TileHeight, maxPixels);
            }

            if (page.Bits > 16 || Field(TiffTag.SAMPLEFORMAT, 1) != (int)SampleFormat.UINT || page.Samples > MostSamples || page.Samples < (page.Plain ? page.Channels : 1))
            {
                throw new InputException($"{file} has {page.Samples} samples of {page.Bits} bits a pixel in a format that is not read; save it with 8 or 16 bits a sample.");
            }

            CheckData(file, tiff, length);
            return page;
        }

        private static void CheckData(string file, Tiff tiff, long length)
        {
            var tiled = tiff.IsTiled();
            var offsets = tiff.GetField(tiled ? TiffTag.TILEOFFSETS : TiffTag.STRIPOFFSETS)?[0].TolongArray();
            var counts = tiff.GetField(tiled ? TiffTag.TILEBYTECOUNTS : TiffTag.STRIPBYTECOUNTS)?[0].TolongArray();
            if (offsets is null || counts is null || offsets.Zip(counts).Any(part => part.First < 0 || part.Second < 0 || part.First > length - part.Second))
            {
                throw new InputException($"{file} is truncated: it ends before its pixels do.");
            }
        }
    }

    private sealed class Thrower : TiffErrorHandler
    {
        public override void WarningHandler(Tiff tif, string method, string format, params object[] args)
        {
        }

        public override void ErrorHandler(Tiff tif, string method, string format, params object[] args) =>
            throw new InvalidDataException(string.Format(CultureInfo.InvariantCulture, format, args));
    }
}
