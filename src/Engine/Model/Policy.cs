using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>A model as it answers: the base weights, with or without an adapter.</summary>
internal sealed class Policy : IDisposable
{
    private Policy(QwenModel model, AdapterWeights? adapter, int? maxPixels) => (Model, Adapter, MaxPixels) = (model, adapter, maxPixels);

    /// <summary>The base weights.</summary>
    public QwenModel Model { get; }

    /// <summary>The adapter, if any.</summary>
    public AdapterWeights? Adapter { get; }

    /// <summary>The image limit its adapter was trained with, where it is known.</summary>
    public int? MaxPixels { get; }

    /// <summary>Loads a model folder and, if there is one, an adapter folder.</summary>
    /// <exception cref="InputException">One of them is not as it must be, or they do not fit.</exception>
    public static Policy Load(string model, string? adapter, Backend backend)
    {
        var weights = QwenModel.Load(model, backend);
        try
        {
            if (adapter is null)
            {
                return new Policy(weights, null, null);
            }

            var file = AdapterFile.Load(adapter, weights.Geometry);
            var factors = new AdapterWeights(backend, AdapterWeights.ShapeFor(weights.Geometry, file.Rank));
            factors.Upload(file.Effective());
            return new Policy(weights, factors, file.MaxPixels);
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Adapter?.Dispose();
        Model.Dispose();
    }
}
