using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Rows of the residual stream before a head of random weights.</summary>
internal sealed class HeadCase
{
    private readonly ElementType _type;

    public HeadCase(int rows, int hidden, int vocabulary, NormKind kind, ElementType type, int seed, float spread = 3f)
    {
        var random = new Random(seed);
        (Rows, Hidden, Vocabulary, Kind, _type) = (rows, hidden, vocabulary, kind, type);
        X = Reference.Normal(random, rows * hidden, 2f);
        NormWeight = Rounded(Reference.Normal(random, hidden, 1f));
        NormBias = Rounded(Reference.Normal(random, hidden, 0.3f));
        Weight = Rounded(Reference.Normal(random, hidden * vocabulary, spread / MathF.Sqrt(hidden)));
    }

    public int Rows { get; }

    public int Hidden { get; }

    public int Vocabulary { get; }

    public NormKind Kind { get; }

    public float Epsilon => 1e-6f;

    public float[] X { get; }

    public float[] NormWeight { get; }

    public float[] NormBias { get; }

    public float[] Weight { get; }

    /// <summary>Head and rows in a backend's memory.</summary>
    public (HeadWeights Head, Tensor X) On(Device device) =>
        (new HeadWeights(new Norm(Kind, device.Put(NormWeight, 1, _type), Kind == NormKind.Layer ? device.Put(NormBias, 1, _type) : default, Epsilon), device.Put(Weight, Vocabulary, _type)),
            device.Put(X, Rows));

    // What a bfloat16 weight holds is what the oracle starts from.
    private float[] Rounded(float[] values) =>
        _type == ElementType.Float32 ? values : [.. values.Select(value => Compute.Numbers.FromBFloat16(Compute.Numbers.ToBFloat16(value)))];
}
