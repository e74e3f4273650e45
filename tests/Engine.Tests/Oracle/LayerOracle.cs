using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Backends;

namespace LrIad.Engine.Tests.Oracle;

/// <summary>Norms, products and activations from their definitions, in float64. Matrices are row-major.</summary>
internal static class LayerOracle
{
    public static double[] Norm(NormCase norm, double[] x)
    {
        var columns = norm.Weight.Length;
        var y = new double[x.Length];
        for (var at = 0; at < x.Length; at += columns)
        {
            var row = x.AsSpan(at, columns).ToArray();
            var mean = norm.Kind == NormKind.Layer ? row.Average() : 0;
            var deviation = Math.Sqrt(row.Average(value => (value - mean) * (value - mean)) + norm.Epsilon);
            for (var i = 0; i < columns; i++)
            {
                y[at + i] = ((row[i] - mean) / deviation * norm.Weight[i]) + (norm.Bias.Length > 0 ? norm.Bias[i] : 0);
            }
        }

        return y;
    }

    public static double[] Linear(LinearCase linear, double[] x)
    {
        var y = Product(x, Reference.Widen(linear.Weight), linear.Inputs);
        for (var i = 0; linear.Bias.Length > 0 && i < y.Length; i++)
        {
            y[i] += linear.Bias[i % linear.Outputs];
        }

        return y;
    }

    /// <summary>x[·, inputs] · weight[·, inputs]ᵀ.</summary>
    public static double[] Product(double[] x, double[] weight, int inputs)
    {
        var (rows, outputs) = (x.Length / inputs, weight.Length / inputs);
        var y = new double[rows * outputs];
        for (var row = 0; row < rows; row++)
        {
            for (var output = 0; output < outputs; output++)
            {
                for (var i = 0; i < inputs; i++)
                {
                    y[(row * outputs) + output] += x[(row * inputs) + i] * weight[(output * inputs) + i];
                }
            }
        }

        return y;
    }

    public static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));

    /// <summary>x·Φ(x), Φ by Simpson's rule over the normal density: no approximation of the error function to share a mistake with.</summary>
    public static double Gelu(double x)
    {
        const int steps = 2000;
        var (from, width) = (-12.0, (Math.Clamp(x, -12, 12) + 12) / steps);
        var sum = 0.0;
        for (var i = 0; i <= steps; i++)
        {
            var at = from + (i * width);
            sum += (i == 0 || i == steps ? 1 : 2 + (2 * (i % 2))) * Math.Exp(-at * at / 2);
        }

        return x * sum * width / 3 / Math.Sqrt(2 * Math.PI);
    }

    /// <summary>Turns the pairs (i, i + half) of a head by position · frequency, the product rounded to float32 as the reference rounds it.</summary>
    public static void Turn(Span<double> head, Rotary rotary, TokenRow row)
    {
        var half = rotary.HeadDim / 2;
        for (var i = 0; i < half; i++)
        {
            var position = rotary.Axis[i] switch { 0 => row.Position0, 1 => row.Position1, _ => row.Position2 };
            var (sin, cos) = Math.SinCos((float)position * rotary.InverseFrequency[i]);
            (head[i], head[i + half]) = ((head[i] * cos) - (head[i + half] * sin), (head[i + half] * cos) + (head[i] * sin));
        }
    }
}
