using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Rows before a feed-forward block of random weights.</summary>
internal sealed class FeedForwardCase
{
    private readonly NormCase _norm;
    private readonly LinearCase? _gate;
    private readonly LinearCase _up;
    private readonly LinearCase _down;

    public FeedForwardCase(int rows, int hidden, int inner, FeedForwardKind kind, ElementType type, int seed)
    {
        var random = new Random(seed);
        var decoder = kind == FeedForwardKind.GatedSilu;
        (Rows, Hidden, Inner, Kind) = (rows, hidden, inner, kind);
        X = Reference.Normal(random, rows * hidden, 2f);
        _norm = new NormCase(random, decoder ? NormKind.RootMeanSquare : NormKind.Layer, hidden, type);
        _gate = decoder ? new LinearCase(random, hidden, inner, type, bias: false) : null;
        _up = new LinearCase(random, hidden, inner, type, bias: !decoder);
        _down = new LinearCase(random, inner, hidden, type, bias: !decoder);
    }

    public int Rows { get; }

    public int Hidden { get; }

    public int Inner { get; }

    public FeedForwardKind Kind { get; }

    public float[] X { get; }

    public FeedForwardWeights On(Device device) => new(Kind, _norm.On(device), _gate?.On(device), _up.On(device), _down.On(device));

    /// <summary>y, and gate | up before the non-linearity.</summary>
    public (double[] Y, double[] Saved) Oracle(double[] x)
    {
        var normed = LayerOracle.Norm(_norm, x);
        var up = LayerOracle.Linear(_up, normed);
        var gate = _gate is null ? null : LayerOracle.Linear(_gate, normed);
        double[] hidden = gate is null
            ? [.. up.Select(z => z * LayerOracle.Sigmoid(1.702 * z))]
            : [.. gate.Zip(up, (z, other) => z * LayerOracle.Sigmoid(z) * other)];
        double[] saved = gate is null ? up : [.. Enumerable.Range(0, Rows).SelectMany(row => Row(gate, row).Concat(Row(up, row)))];
        return ([.. LayerOracle.Linear(_down, hidden).Zip(x, (a, b) => a + b)], saved);

        IEnumerable<double> Row(double[] matrix, int row) => matrix.Skip(row * Inner).Take(Inner);
    }
}
