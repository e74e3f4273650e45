using LrIad.Engine.Compute;

namespace LrIad.Engine.Rollout;

/// <summary>Image features of the prompts in one pass, side by side.</summary>
internal sealed class FeatureBuffer
{
    private readonly Backend _backend;
    private readonly Tensor _tensor;

    public FeatureBuffer(Backend backend, Arena arena, int hidden, int maxRows)
    {
        _backend = backend;
        _tensor = arena.Allocate(backend.ActivationType, maxRows, hidden);
    }

    /// <summary>Rows so far.</summary>
    public int Rows { get; private set; }

    public void Clear() => Rows = 0;

    /// <summary>All of them; empty where there are none.</summary>
    public Tensor Features => Rows == 0 ? default : _tensor.Slice(0, Rows);

    /// <summary>Brings rows to the backend and returns the number of the first.</summary>
    public int Add(byte[] features)
    {
        var first = Rows;
        Rows += features.Length / (_tensor.Columns * _tensor.ElementBytes);
        _backend.Upload<byte>(features, _tensor.Slice(first, Rows - first).Bytes);
        return first;
    }
}
