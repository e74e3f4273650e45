namespace LrIad.Engine.Data;

/// <summary>
/// Pillow's bicubic resize of 8-bit images: a = −0.5, the kernel widened by the ratio when reducing, coefficients in fixed point of 22 bits, the horizontal pass
/// before the vertical one, each rounded and clipped to 8 bits; a pass that would change nothing is left out.
/// </summary>
public static class Resampler
{
    private const int PrecisionBits = 32 - 8 - 2;
    private const double Support = 2.0;

    /// <summary>The image at another size.</summary>
    public static RgbImage Resize(RgbImage image, int width, int height)
    {
        ArgumentNullException.ThrowIfNull(image);
        if (width != image.Width)
        {
            image = Horizontal(image, width);
        }

        return height != image.Height ? Vertical(image, height) : image;
    }

    private static (int[] First, int[][] Weights) Coefficients(int from, int to)
    {
        var scale = (double)from / to;
        var filterScale = Math.Max(scale, 1.0);
        var support = Support * filterScale;
        var (first, weights) = (new int[to], new int[to][]);
        for (var i = 0; i < to; i++)
        {
            var center = (i + 0.5) * scale;
            var low = Math.Max(0, (int)(center - support + 0.5));
            var high = Math.Min(from, (int)(center + support + 0.5));
            var exact = new double[high - low];
            double sum = 0;
            for (var j = 0; j < exact.Length; j++)
            {
                exact[j] = Cubic((j + low - center + 0.5) * (1.0 / filterScale));
                sum += exact[j];
            }

            weights[i] = new int[exact.Length];
            for (var j = 0; j < exact.Length; j++)
            {
                var value = (sum != 0 ? exact[j] / sum : exact[j]) * (1 << PrecisionBits);
                weights[i][j] = (int)(value < 0 ? value - 0.5 : value + 0.5);
            }

            first[i] = low;
        }

        return (first, weights);
    }

    private static double Cubic(double x)
    {
        const double a = -0.5;
        x = Math.Abs(x);
        return x < 1.0 ? (((((a + 2.0) * x) - (a + 3.0)) * x) * x) + 1 : x < 2.0 ? (((((x - 5) * x) + 8) * x) - 4) * a : 0.0;
    }

    private static RgbImage Horizontal(RgbImage image, int width)
    {
        var (first, weights) = Coefficients(image.Width, width);
        var result = new byte[(long)width * image.Height * 3];
        for (var y = 0; y < image.Height; y++)
        {
            var row = image.Data.AsSpan(y * image.Width * 3, image.Width * 3);
            var target = result.AsSpan(y * width * 3, width * 3);
            for (var x = 0; x < width; x++)
            {
                var (r, g, b) = (1 << (PrecisionBits - 1), 1 << (PrecisionBits - 1), 1 << (PrecisionBits - 1));
                var at = first[x] * 3;
                foreach (var weight in weights[x])
                {
                    r += row[at] * weight;
                    g += row[at + 1] * weight;
                    b += row[at + 2] * weight;
                    at += 3;
                }

                target[3 * x] = Clip(r);
                target[(3 * x) + 1] = Clip(g);
                target[(3 * x) + 2] = Clip(b);
            }
        }

        return new RgbImage(width, image.Height, result);
    }

    private static RgbImage Vertical(RgbImage image, int height)
    {
        var (first, weights) = Coefficients(image.Height, height);
        var stride = image.Width * 3;
        var result = new byte[(long)stride * height];
        var sums = new int[stride];
        for (var y = 0; y < height; y++)
        {
            Array.Fill(sums, 1 << (PrecisionBits - 1));
            for (var j = 0; j < weights[y].Length; j++)
            {
                var row = image.Data.AsSpan((first[y] + j) * stride, stride);
                var weight = weights[y][j];
                for (var i = 0; i < sums.Length; i++)
                {
                    sums[i] += row[i] * weight;
                }
            }

            for (var i = 0; i < sums.Length; i++)
            {
                result[(y * stride) + i] = Clip(sums[i]);
            }
        }

        return new RgbImage(image.Width, height, result);
    }

    private static byte Clip(int sum) => (byte)Math.Clamp(sum >> PrecisionBits, 0, 255);
}
