using LrIad.Engine.Compute;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Model;

/// <summary>An adapter's effective factors in the backend's memory (or, with the same shapes, their gradients).</summary>
internal sealed class AdapterWeights : IDisposable
{
    /// <summary>Factors start at multiples of so many values, as vector loads want them.</summary>
    private const int Alignment = 64;

    private readonly Backend _backend;
    private readonly Arena _arena;

    // All factors lie in one piece, so that a step moves one piece each way.
    private readonly View<float> _values;
    private readonly float[] _staging;
    private readonly LayerFactors[] _host;

    /// <param name="backend">Where it lives.</param>
    /// <param name="shape">Its sizes.</param>
    public AdapterWeights(Backend backend, AdapterShape shape)
    {
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(shape);
        (_backend, Shape) = (backend, shape);
        _host = [.. Enumerable.Range(0, shape.Layers).Select(_ => LayerFactors.Zeros(shape))];
        _staging = new float[_host.Sum(layer => layer.All.Sum(values => Room(values.Length)))];
        _arena = backend.CreateArena("adapter");
        _values = _arena.Allocate<float>(_staging.Length);
        var first = 0;
        Tensor Next(int rows, int columns)
        {
            var at = _values.Slice(first, rows * columns);
            first += Room(rows * columns);
            return new Tensor(at.Storage, at.Offset, ElementType.Float32, rows, columns);
        }

        Layers = [.. _host.Select(_ => new AdapterLayer(
            new LowRank(Next(shape.Rank, shape.Hidden), Next(shape.QueryOutputs, shape.Rank)),
            new LowRank(Next(shape.Rank, shape.Hidden), Next(shape.ValueOutputs, shape.Rank))))];
    }

    /// <summary>Its sizes.</summary>
    public AdapterShape Shape { get; }

    /// <summary>A layer each.</summary>
    public AdapterLayer[] Layers { get; }

    /// <summary>The adapter that fits a model.</summary>
    public static AdapterShape ShapeFor(ModelGeometry geometry, int rank)
    {
        ArgumentNullException.ThrowIfNull(geometry);
        var text = geometry.Text;
        return new AdapterShape(text.Layers, rank, text.Hidden, text.Heads * text.HeadDim, text.KeyValueHeads * text.HeadDim);
    }

    /// <summary>Takes over effective factors (B scaled).</summary>
    public void Upload(IReadOnlyList<LayerFactors> factors)
    {
        ArgumentNullException.ThrowIfNull(factors);
        var first = 0;
        foreach (var values in factors.SelectMany(layer => layer.All))
        {
            values.CopyTo(_staging, first);
            first += Room(values.Length);
        }

        _backend.Upload<float>(_staging, _values);
    }

    /// <summary>Copies them to the host; the next call overwrites what this one returns.</summary>
    public IReadOnlyList<LayerFactors> Download()
    {
        _backend.Download<float>(_values, _staging);
        var first = 0;
        foreach (var values in _host.SelectMany(layer => layer.All))
        {
            Array.Copy(_staging, first, values, 0, values.Length);
            first += Room(values.Length);
        }

        return _host;
    }

    /// <summary>Sets everything to zero.</summary>
    public void Clear() => _backend.Clear(new Tensor(_values.Storage, _values.Offset, ElementType.Float32, 1, _values.Length));

    /// <inheritdoc/>
    public void Dispose() => _arena.Dispose();

    private static int Room(int values) => (values + Alignment - 1) / Alignment * Alignment;
}
