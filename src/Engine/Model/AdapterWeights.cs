using LrIad.Engine.Compute;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Model;

/// <summary>An adapter's effective factors in the backend's memory (or, with the same shapes, their gradients).</summary>
public sealed class AdapterWeights : IDisposable
{
    private readonly Backend _backend;
    private readonly Arena _arena;
    private readonly LayerFactors[] _host;

    /// <param name="backend">Where it lives.</param>
    /// <param name="shape">Its sizes.</param>
    public AdapterWeights(Backend backend, AdapterShape shape)
    {
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(shape);
        (_backend, Shape) = (backend, shape);
        _arena = backend.CreateArena("adapter");
        Tensor New(int rows, int columns) => _arena.Allocate(ElementType.Float32, rows, columns);
        Layers = [.. Enumerable.Range(0, shape.Layers).Select(_ => new AdapterLayer(
            new LowRank(New(shape.Rank, shape.Hidden), New(shape.QueryOutputs, shape.Rank)),
            new LowRank(New(shape.Rank, shape.Hidden), New(shape.ValueOutputs, shape.Rank))))];
        _host = [.. Layers.Select(_ => LayerFactors.Zeros(shape))];
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
        foreach (var (layer, host) in Layers.Zip(factors))
        {
            _backend.Upload(host.QueryA, layer.Query.A);
            _backend.Upload(host.QueryB, layer.Query.B);
            _backend.Upload(host.ValueA, layer.Value.A);
            _backend.Upload(host.ValueB, layer.Value.B);
        }
    }

    /// <summary>Copies them to the host; the next call overwrites what this one returns.</summary>
    public IReadOnlyList<LayerFactors> Download()
    {
        foreach (var (layer, host) in Layers.Zip(_host))
        {
            _backend.Download(layer.Query.A, host.QueryA);
            _backend.Download(layer.Query.B, host.QueryB);
            _backend.Download(layer.Value.A, host.ValueA);
            _backend.Download(layer.Value.B, host.ValueB);
        }

        return _host;
    }

    /// <summary>Sets everything to zero.</summary>
    public void Clear()
    {
        foreach (var layer in Layers)
        {
            _backend.Clear(layer.Query.A);
            _backend.Clear(layer.Query.B);
            _backend.Clear(layer.Value.A);
            _backend.Clear(layer.Value.B);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _arena.Dispose();
}
