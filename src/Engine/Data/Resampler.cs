using System.Numerics;
using System.Runtime.Intrinsics;

namespace LrIad.Engine.Data;

/// <summary>
/// Pillow's bicubic resize of 8-bit images: a = −0.5, the kernel widened by the ratio when reducing, coefficients in fixed point of 22 bits, the horizontal pass
/// before the vertical one, each rounded and clipped to 8 bits; a pass that would change nothing is left out.
/// </summary>
internal static class Resampler
{
    private const int PrecisionBits = 32 - 8 - 2;
    private const int Half = 1 << (PrecisionBits - 1);
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

        // A pixel's channels side by side in one vector; its fourth lane is not used.
        var row = new Vector128<int>[image.Width];
        for (var y = 0; y < image.Height; y++)
        {
            var source = image.Data.AsSpan(y * image.Width * 3, image.Width * 3);
            for (var x = 0; x < row.Length; x++)
            {
                row[x] = Vector128.Create(source[3 * x], source[(3 * x) + 1], source[(3 * x) + 2], 0);
            }

            var target = result.AsSpan(y * width * 3, width * 3);
            for (var x = 0; x < width; x++)
            {
                var taps = weights[x];
                var pixels = row.AsSpan(first[x], taps.Length);
                var sum = Vector128.Create(Half);
                for (var j = 0; j < taps.Length; j++)
                {
                    sum += pixels[j] * taps[j];
                }

                sum = Vector128.Clamp(sum >> PrecisionBits, Vector128<int>.Zero, Vector128.Create(255));
                target[3 * x] = (byte)sum[0];
                target[(3 * x) + 1] = (byte)sum[1];
                target[(3 * x) + 2] = (byte)sum[2];
            }
        }

        return new RgbImage(width, image.Height, result);
    }

    private static RgbImage Vertical(RgbImage image, int height)
    {
        var (first, weights) = Coefficients(image.Height, height);
        var stride = image.Width * 3;
        var result = new byte[(long)stride * height];
        for (var y = 0; y < height; y++)
        {
            var rows = image.Data.AsSpan(first[y] * stride, weights[y].Length * stride);
            var target = result.AsSpan(y * stride, stride);
            var i = 0;
            for (; i <= stride - Vector<byte>.Count; i += Vector<byte>.Count)
            {
                Column(rows[i..], stride, weights[y]).CopyTo(target[i..]);
            }

            for (; i < stride; i++)
            {
                var sum = Half;
                for (var j = 0; j < weights[y].Length; j++)
                {
                    sum += rows[(j * stride) + i] * weights[y][j];
                }

                target[i] = (byte)Math.Clamp(sum >> PrecisionBits, 0, 255);
            }
        }

        return new RgbImage(image.Width, height, result);
    }

    // As many bytes of a row as a vector holds: the weighted sum of those bytes of consecutive rows.
    private static Vector<byte> Column(ReadOnlySpan<byte> rows, int stride, int[] weights)
    {
        var (a, b, c, d) = (new Vector<uint>(Half), new Vector<uint>(Half), new Vector<uint>(Half), new Vector<uint>(Half));
        for (var j = 0; j < weights.Length; j++)
        {
            Vector.Widen(new Vector<byte>(rows[(j * stride)..]), out var low, out var high);
            Vector.Widen(low, out var first, out var second);
            Vector.Widen(high, out var third, out var fourth);

            // Negative weights come out right modulo 2³².
            var weight = (uint)weights[j];
            a += first * weight;
            b += second * weight;
            c += third * weight;
            d += fourth * weight;
        }

        return Vector.Narrow(Vector.Narrow(ToByte(a), ToByte(b)), Vector.Narrow(ToByte(c), ToByte(d)));
    }

    private static Vector<uint> ToByte(Vector<uint> sum) =>
        Vector.AsVectorUInt32(Vector.Min(Vector.Max(Vector.AsVectorInt32(sum) >> PrecisionBits, Vector<int>.Zero), new Vector<int>(255)));
}
