using System.Runtime.InteropServices;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Rollout;

/// <summary>
/// What goes into and comes out of the head's operations of one step, for up to a fixed number of rows: buffers on both sides of the seam. Several passes leave their
/// results side by side, so that the host waits once.
/// </summary>
internal sealed class HeadBuffers
{
    private readonly Backend _backend;
    private readonly View<SampleRow> _samples;
    private readonly View<LogProbRow> _targets;
    private readonly View<int> _options;
    private readonly View<uint> _masks;
    private readonly View<float> _unread;

    // Tokens, log-probs, entropies; log-probs of the options; the likeliest tokens and their log-probs.
    private readonly View<int> _results;
    private readonly int[] _host;
    private readonly uint[] _hostMasks;
    private readonly int _rows;
    private readonly int _maskWords;
    private readonly int _top;
    private int _sampled;
    private int _scored;
    private int _maskCount;
    private int _masksThere;
    private bool _anyTop;

    /// <param name="backend">Where the head runs.</param>
    /// <param name="arena">Whose memory the buffers take.</param>
    /// <param name="rows">Rows of a step.</param>
    /// <param name="options">Tokens whose log-probs are wanted at every target.</param>
    /// <param name="vocabulary">Tokens that masks have bits for; 0 where no row has a mask.</param>
    /// <param name="top">Likeliest tokens that a row can ask for.</param>
    public HeadBuffers(Backend backend, Arena arena, int rows, int[] options, int vocabulary, int top)
    {
        (_backend, _rows, _top, _maskWords) = (backend, rows, top, (vocabulary + 31) / 32);
        _samples = arena.Allocate<SampleRow>(rows);
        _targets = arena.Allocate<LogProbRow>(rows);
        _options = arena.Allocate<int>(options.Length);
        backend.Upload<int>(options, _options);
        _masks = arena.Allocate<uint>(rows * _maskWords);
        _hostMasks = new uint[rows * _maskWords];
        _unread = arena.Allocate<float>(3 * rows);
        _results = arena.Allocate<int>((3 + options.Length + (2 * top)) * rows);
        _host = new int[_results.Length];
        Samples = new SampleRow[rows];
        Targets = new LogProbRow[rows];
    }

    /// <summary>Filled in by the caller before <see cref="Sample"/>.</summary>
    public SampleRow[] Samples { get; }

    /// <summary>Filled in by the caller before <see cref="LogProb"/>.</summary>
    public LogProbRow[] Targets { get; }

    /// <summary>Drawn tokens; read after <see cref="Download"/>, like everything below.</summary>
    public ReadOnlySpan<int> Tokens => _host.AsSpan(0, _rows);

    public ReadOnlySpan<float> LogProbs => Floats(_rows, _rows);

    public ReadOnlySpan<float> Entropies => Floats(2 * _rows, _rows);

    /// <summary>Row-major [rows, options] log-probs at the targets.</summary>
    public ReadOnlySpan<float> Options => Floats(3 * _rows, _options.Length * _rows);

    /// <summary>The likeliest tokens of a row.</summary>
    public ReadOnlySpan<int> TopTokens(int row, int count) => _host.AsSpan(TopAt + (row * _top), count);

    /// <summary>Their log-probs.</summary>
    public ReadOnlySpan<float> TopLogProbs(int row, int count) => Floats(TopAt + ((_rows + row) * _top), count);

    private int TopAt => (3 + _options.Length) * _rows;

    /// <summary>Takes over a mask for this step; returns its number. What the model's vocabulary has beyond the mask is not allowed.</summary>
    public int AddMask(ReadOnlySpan<uint> mask)
    {
        var taken = _hostMasks.AsSpan(_maskCount * _maskWords, _maskWords);
        taken.Clear();
        mask[..Math.Min(mask.Length, _maskWords)].CopyTo(taken);
        return _maskCount++;
    }

    /// <summary>Has a token drawn for each of <see cref="Samples"/> up to <paramref name="count"/> that has none yet.</summary>
    public void Sample(Tensor x, HeadWeights head, int count)
    {
        var (first, rows) = (_sampled, count - _sampled);
        if (rows == 0)
        {
            return;
        }

        var view = _samples.Slice(first, rows);
        _backend.Upload<SampleRow>(Samples.AsSpan(first, rows), view);
        if (_maskCount > _masksThere)
        {
            var (from, words) = (_masksThere * _maskWords, (_maskCount - _masksThere) * _maskWords);
            _backend.Upload<uint>(_hostMasks.AsSpan(from, words), _masks.Slice(from, words));
            _masksThere = _maskCount;
        }

        var top = 0;
        for (var i = first; i < count && top == 0; i++)
        {
            top = Samples[i].Top > 0 ? _top : 0;
        }

        _anyTop |= top > 0;
        var result = new HeadResult(
            _results.Slice(first, rows), Device(_rows + first, rows), Device((2 * _rows) + first, rows), default, default,
            top == 0 ? default : _results.Slice(TopAt + (first * _top), rows * _top), top == 0 ? default : Device(TopAt + ((_rows + first) * _top), rows * _top));
        _backend.Sample(x, head, view, result, _masks.Slice(0, _maskCount * _maskWords));
        _sampled = count;
    }

    /// <summary>Has the log-probs of the options computed at each of <see cref="Targets"/> up to <paramref name="count"/> that has none yet.</summary>
    public void LogProb(Tensor x, HeadWeights head, int count)
    {
        var (first, rows) = (_scored, count - _scored);
        var view = _targets.Slice(first, rows);
        _backend.Upload<LogProbRow>(Targets.AsSpan(first, rows), view);
        var options = Device((3 * _rows) + (first * _options.Length), rows * _options.Length);
        _backend.LogProb(x, head, view, _options, new HeadResult(
            default, _unread.Slice(0, rows), _unread.Slice(rows, rows), _unread.Slice(2 * rows, rows), new Tensor(options.Storage, options.Offset, ElementType.Float32, rows, _options.Length)));
        _scored = count;
    }

    /// <summary>Waits for the results of the step.</summary>
    public void Download()
    {
        var length = _anyTop ? _results.Length : _scored > 0 ? TopAt : 3 * _rows;
        _backend.Download(_results.Slice(0, length), _host);
        Numbers.RequireFinite(LogProbs[.._sampled]);
        Numbers.RequireFinite(Options[..(_scored * _options.Length)]);
        Clear();
    }

    /// <summary>Forgets a step that came to nothing.</summary>
    public void Clear() => (_sampled, _scored, _maskCount, _masksThere, _anyTop) = (0, 0, 0, 0, false);

    private View<float> Device(int at, int length) => new(_results.Storage, _results.Offset + ((long)at * sizeof(float)), length);

    private ReadOnlySpan<float> Floats(int at, int length) => MemoryMarshal.Cast<int, float>(_host.AsSpan(at, length));
}
