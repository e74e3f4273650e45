using LrIad.Engine.Compute;

namespace LrIad.Engine.Rollout;

/// <summary>Image features of the prompts in one pass, gathered on the host and uploaded together.</summary>
internal sealed class FeatureBuffer
{
    private readonly Backend _backend;
    private readonly Tensor _tensor;
    private readonly int _rowBytes;
    private readonly byte[] _host;

    public FeatureBuffer(Backend backend, Arena arena, int hidden, int maxRows)
    {
        _backend = backend;
        _tensor = arena.Allocate(backend.ActivationType, maxRows, hidden);
        _rowBytes = hidden * _tensor.ElementBytes;
        _host = new byte[(long)maxRows * _rowBytes];
    }

    /// <summary>Rows so far.</summary>
    public int Rows { get; private set; }

    public void Clear() => Rows = 0;

    /// <summary>Adds rows and returns the number of the first.</summary>
    public int Add(byte[] features)
    {
        var first = Rows;
        features.CopyTo(_host.AsSpan(first * _rowBytes));
        Rows += features.Length / _rowBytes;
        return first;
    }

    /// <summary>Brings them to the backend; empty where there are none.</summary>
    public Tensor Upload()
    {
        if (Rows == 0)
        {
            return default;
        }

        var rows = _tensor.Slice(0, Rows);
        _backend.Upload<byte>(_host.AsSpan(0, Rows * _rowBytes), rows.Bytes);
        return rows;
    }
}
