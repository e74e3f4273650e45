using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>A random linear layer. What its weights' type can hold is what the oracle computes with.</summary>
internal sealed class LinearCase(Random random, int inputs, int outputs, ElementType type, bool bias = true)
{
    public int Inputs => inputs;

    public int Outputs => outputs;

    public float[] Weight { get; } = Matrix.Rounded(Reference.Normal(random, inputs * outputs, 1 / MathF.Sqrt(inputs)), type);

    public float[] Bias { get; } = bias ? Matrix.Rounded(Reference.Normal(random, outputs, 0.5f), type) : [];

    public Linear On(Device device) => new(device.Put(Weight, outputs, type), Bias.Length > 0 ? device.Put(Bias, 1, type) : default);
}

/// <summary>A random norm; only layer norm has a bias.</summary>
internal sealed class NormCase(Random random, NormKind kind, int columns, ElementType type)
{
    public NormKind Kind => kind;

    public double Epsilon => 1e-5;

    public float[] Weight { get; } = Matrix.Rounded([.. Reference.Normal(random, columns, 0.3f).Select(value => 1 + value)], type);

    public float[] Bias { get; } = kind == NormKind.Layer ? Matrix.Rounded(Reference.Normal(random, columns, 0.3f), type) : [];

    public Norm On(Device device) => new(kind, device.Put(Weight, 1, type), Bias.Length > 0 ? device.Put(Bias, 1, type) : default, (float)Epsilon);
}

/// <summary>Handling of test matrices.</summary>
internal static class Matrix
{
    public static float[] Rounded(float[] values, ElementType type) =>
        type == ElementType.Float32 ? values : [.. values.Select(value => Compute.Numbers.FromBFloat16(Compute.Numbers.ToBFloat16(value)))];

    /// <summary>The listed rows of a matrix, in that order.</summary>
    public static float[] Rows(float[] matrix, int columns, IEnumerable<int> rows) => [.. rows.SelectMany(row => matrix.AsSpan(row * columns, columns).ToArray())];

    public static double Dot(IReadOnlyList<double> a, IReadOnlyList<float> b)
    {
        var sum = 0.0;
        for (var i = 0; i < b.Count; i++)
        {
            sum += a[i] * b[i];
        }

        return sum;
    }

    /// <summary>Fails unless the two agree to the last bit.</summary>
    public static void AssertSame(float[] actual, float[] expected, string what) =>
        Assert.That(actual.Select(BitConverter.SingleToInt32Bits), Is.EqualTo(expected.Select(BitConverter.SingleToInt32Bits)), what);
}
