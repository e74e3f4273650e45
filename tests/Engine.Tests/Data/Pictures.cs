using SkiaSharp;

namespace LrIad.Engine.Tests.Data;

/// <summary>Pictures made for a test.</summary>
internal static class Pictures
{
    public static string WritePng(string file, int width, int height, Func<int, int, (byte R, byte G, byte B)> colour)
    {
        using var bitmap = new SKBitmap(new SKImageInfo(width, height, SKColorType.Rgba8888, SKAlphaType.Opaque));
        for (var y = 0; y < height; y++)
        {
            for (var x = 0; x < width; x++)
            {
                var (r, g, b) = colour(x, y);
                bitmap.SetPixel(x, y, new SKColor(r, g, b));
            }
        }

        using var png = bitmap.Encode(SKEncodedImageFormat.Png, 100);
        return Files.Write(file, png.ToArray());
    }

    /// <summary>A small picture, where only that it is one matters.</summary>
    public static string WritePng(string file) => Files.Write(file, Small.Value);

    private static Lazy<byte[]> Small { get; } = new(() => File.ReadAllBytes(WritePng(Path.Combine(TestFiles.NewFolder(), "small.png"), 28, 28, (x, y) => ((byte)(9 * x), (byte)(9 * y), 77))));
}
