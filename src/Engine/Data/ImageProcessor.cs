namespace LrIad.Engine.Data;

/// <summary>Image files to patches, as Hugging Face's Qwen2-VL processor makes them. Safe to use from several threads.</summary>
/// <param name="settings">The model's own.</param>
/// <param name="maxPixels">The run's limit; the smaller of the two counts.</param>
internal sealed class ImageProcessor(PreprocessorSettings settings, int maxPixels)
{
    private const double LargestAspectRatio = 200;

    private readonly int _minPixels = settings.MinPixels;
    private readonly int _maxPixels = Math.Min(settings.MaxPixels, maxPixels);

    /// <summary>Reads, resizes and cuts one file.</summary>
    /// <exception cref="InputException">The file is not a readable image.</exception>
    public ImagePatches Process(string file) => Process(file, ImageFile.Read(file));

    /// <summary>Resizes and cuts a file that is in memory, unless it says that it has more than <paramref name="maxDecoded"/> pixels.</summary>
    /// <exception cref="InputException">It is not a readable image, or too large.</exception>
    public ImagePatches Process(string file, byte[] bytes, long maxDecoded) => Process(file, ImageFile.Read(file, bytes, maxDecoded));

    private ImagePatches Process(string file, RgbImage image)
    {
        if (Math.Max(image.Width, image.Height) > LargestAspectRatio * Math.Min(image.Width, image.Height))
        {
            throw new InputException($"{file} is {image.Width} × {image.Height} pixels; one side may be at most {LargestAspectRatio} times the other.");
        }

        var (width, height) = SmartResize(image.Width, image.Height, settings.PatchSize * settings.MergeSize, _minPixels, _maxPixels);
        return Cut(Resampler.Resize(image, width, height));
    }

    /// <summary>
    /// The size an image is brought to: sides are multiples of <paramref name="factor"/>, the area lies between the limits, the shape is kept as well as that allows.
    /// </summary>
    public static (int Width, int Height) SmartResize(int width, int height, int factor, int minPixels, int maxPixels)
    {
        // Math.Round takes ties to the even neighbour, as Python does. A side that rounds to 0 makes the area too small, and is enlarged with the other.
        var (w, h) = ((long)Math.Round((double)width / factor) * factor, (long)Math.Round((double)height / factor) * factor);
        if (w * h > maxPixels)
        {
            var beta = Math.Sqrt((double)height * width / maxPixels);
            h = Math.Max(factor, (long)Math.Floor(height / beta / factor) * factor);
            w = Math.Max(factor, (long)Math.Floor(width / beta / factor) * factor);
        }
        else if (w * h < minPixels)
        {
            var beta = Math.Sqrt(minPixels / ((double)height * width));
            h = (long)Math.Ceiling(height * beta / factor) * factor;
            w = (long)Math.Ceiling(width * beta / factor) * factor;
        }

        return ((int)w, (int)h);
    }

    // Patches in the order (square row, square column, row in square, column in square) of [channel, y, x].
    private ImagePatches Cut(RgbImage image)
    {
        var (side, merge) = (settings.PatchSize, settings.MergeSize);
        var (gridH, gridW) = (image.Height / side, image.Width / side);
        var levels = new byte[gridH * gridW * 3 * side * side];
        var at = 0;
        for (var squareY = 0; squareY < gridH; squareY += merge)
        {
            for (var squareX = 0; squareX < gridW; squareX += merge)
            {
                for (var patch = 0; patch < merge * merge; patch++)
                {
                    var (y0, x0) = ((squareY + (patch / merge)) * side, (squareX + (patch % merge)) * side);
                    at = CutPatch(image, y0, x0, levels, at);
                }
            }
        }

        return new ImagePatches(levels, 1, gridH, gridW);
    }

    private int CutPatch(RgbImage image, int y0, int x0, byte[] levels, int at)
    {
        var side = settings.PatchSize;
        for (var channel = 0; channel < 3; channel++)
        {
            for (var y = 0; y < side; y++)
            {
                var source = image.Data.AsSpan(((((y0 + y) * image.Width) + x0) * 3) + channel);
                var row = levels.AsSpan(at, side);
                for (var x = 0; x < row.Length; x++)
                {
                    row[x] = source[3 * x];
                }

                at += side;
            }
        }

        return at;
    }
}
