using LrIad.Engine.Compute;

namespace LrIad.Engine.Rollout;

/// <summary>Image features of the prompts in one pass, gathered on the host and uploaded together.</summary>
internal sealed class FeatureBuffer(Backend backend, Arena arena, int hidden, int maxRows)
{
    private readonly float[] _host = new float[(long)maxRows * hidden];
    private readonly Tensor _tensor = arena.Allocate(backend.ActivationType, maxRows, hidden);

    /// <summary>Rows so far.</summary>
    public int Rows { get; private set; }

    public void Clear() => Rows = 0;

    /// <summary>Adds rows and returns the number of the first.</summary>
    public int Add(float[] features)
    {
        var first = Rows;
        features.CopyTo(_host.AsSpan(first * hidden));
        Rows += features.Length / hidden;
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
        backend.Upload(_host.AsSpan(0, Rows * hidden), rows);
        return rows;
    }
}
