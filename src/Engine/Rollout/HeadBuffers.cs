using System.Runtime.InteropServices;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Rollout;

/// <summary>What goes into and comes out of the head's operations, for up to a fixed number of rows: buffers on both sides of the seam.</summary>
internal sealed class HeadBuffers
{
    private readonly Backend _backend;
    private readonly View<SampleRow> _samples;
    private readonly View<LogProbRow> _targets;
    private readonly View<int> _options;
    private readonly View<int> _drawn;
    private readonly int[] _host;
    private readonly HeadResult _result;

    public HeadBuffers(Backend backend, Arena arena, int rows, int[] options)
    {
        _backend = backend;
        _samples = arena.Allocate<SampleRow>(rows);
        _targets = arena.Allocate<LogProbRow>(rows);
        _options = arena.Allocate<int>(options.Length);
        backend.Upload<int>(options, _options);
        _drawn = arena.Allocate<int>(3 * rows);
        _host = new int[3 * rows];
        _result = new HeadResult(
            default, arena.Allocate<float>(rows), arena.Allocate<float>(rows), arena.Allocate<float>(rows), arena.Allocate(ElementType.Float32, rows, options.Length));
        Samples = new SampleRow[rows];
        Targets = new LogProbRow[rows];
        Tokens = new int[rows];
        LogProbs = new float[rows];
        Entropies = new float[rows];
        Options = new float[rows * options.Length];
    }

    /// <summary>Filled in by the caller before <see cref="Sample"/>.</summary>
    public SampleRow[] Samples { get; }

    /// <summary>Filled in by the caller before <see cref="LogProb"/>.</summary>
    public LogProbRow[] Targets { get; }

    public int[] Tokens { get; }

    public float[] LogProbs { get; }

    public float[] Entropies { get; }

    /// <summary>Row-major [rows, options] log-probs.</summary>
    public float[] Options { get; }

    /// <summary>Draws a token for each of the first <paramref name="rows"/> of <see cref="Samples"/>.</summary>
    public void Sample(Tensor x, HeadWeights head, int rows)
    {
        if (rows == 0)
        {
            return;
        }

        var view = _samples.Slice(0, rows);
        _backend.Upload<SampleRow>(Samples.AsSpan(0, rows), view);

        // Tokens, log-probs and entropies side by side, so that the host waits once.
        View<float> Floats(int part) => new(_drawn.Storage, _drawn.Offset + ((long)part * rows * sizeof(float)), rows);
        _backend.Sample(x, head, view, new HeadResult(_drawn.Slice(0, rows), Floats(1), Floats(2), default, default));
        var host = _host.AsSpan(0, 3 * rows);
        _backend.Download(_drawn.Slice(0, 3 * rows), host);
        host[..rows].CopyTo(Tokens);
        MemoryMarshal.Cast<int, float>(host.Slice(rows, rows)).CopyTo(LogProbs);
        MemoryMarshal.Cast<int, float>(host.Slice(2 * rows, rows)).CopyTo(Entropies);
        Numbers.RequireFinite(LogProbs.AsSpan(0, rows));
    }

    /// <summary>Log-probs of the first <paramref name="rows"/> of <see cref="Targets"/> and of the options there.</summary>
    public void LogProb(Tensor x, HeadWeights head, int rows)
    {
        var view = _targets.Slice(0, rows);
        _backend.Upload<LogProbRow>(Targets.AsSpan(0, rows), view);
        var result = Slice(rows);
        _backend.LogProb(x, head, view, _options, result);
        _backend.Download(result.LogProb, LogProbs.AsSpan(0, rows));
        Numbers.RequireFinite(LogProbs.AsSpan(0, rows));
        _backend.Download(result.Entropy, Entropies.AsSpan(0, rows));
        _backend.Download(result.Options, Options.AsSpan(0, rows * _options.Length));
    }

    private HeadResult Slice(int rows) => new(
        default, _result.LogProb.Slice(0, rows), _result.Entropy.Slice(0, rows), _result.LogSumExp.Slice(0, rows), _result.Options.Slice(0, rows));
}
