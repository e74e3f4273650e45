using System.Runtime.InteropServices;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Rollout;

/// <summary>Log-probs of given tokens, and the likeliest tokens at their places, for up to a fixed number of them.</summary>
internal sealed class ScoreBuffers
{
    private readonly Backend _backend;
    private readonly View<LogProbRow> _targets;
    private readonly View<float> _unread;

    // Log-probs; the likeliest tokens; their log-probs.
    private readonly View<int> _results;
    private readonly LogProbRow[] _rows;
    private readonly int[] _host;
    private int _count;
    private int _done;
    private int _top;

    public ScoreBuffers(Backend backend, Arena arena, int rows)
    {
        _backend = backend;
        _targets = arena.Allocate<LogProbRow>(rows);
        _unread = arena.Allocate<float>(2 * rows);
        _results = arena.Allocate<int>((1 + (2 * HeadResult.MostTop)) * rows);
        _rows = new LogProbRow[rows];
        _host = new int[_results.Length];
    }

    /// <summary>Log-prob of each token.</summary>
    public ReadOnlySpan<float> LogProbs => Floats(0, _count);

    /// <summary>The likeliest tokens at a place.</summary>
    public ReadOnlySpan<int> TopTokens(int place) => _host.AsSpan(_count + (place * _top), _top);

    /// <summary>Their log-probs.</summary>
    public ReadOnlySpan<float> TopLogProbs(int place) => Floats((_count * (1 + _top)) + (place * _top), _top);

    /// <summary>Takes over what to score.</summary>
    public void Begin(ReadOnlySpan<int> tokens, float temperature, int top)
    {
        (_count, _done, _top) = (tokens.Length, 0, top);
        for (var i = 0; i < tokens.Length; i++)
        {
            _rows[i] = new LogProbRow(0, tokens[i], temperature, top);
        }
    }

    /// <summary>Has the next <paramref name="count"/> tokens scored, whose distributions follow rows from <paramref name="firstRow"/> on.</summary>
    public void LogProb(Tensor x, HeadWeights head, int firstRow, int count)
    {
        for (var i = 0; i < count; i++)
        {
            _rows[_done + i].Row = firstRow + i;
        }

        var view = _targets.Slice(_done, count);
        _backend.Upload<LogProbRow>(_rows.AsSpan(_done, count), view);
        _backend.LogProb(x, head, view, default, new HeadResult(
            default, Device(_done, count), _unread.Slice(0, count), _unread.Slice(count, count), default,
            _top == 0 ? default : _results.Slice(_count + (_done * _top), count * _top), _top == 0 ? default : Device((_count * (1 + _top)) + (_done * _top), count * _top)));
        _done += count;
    }

    /// <summary>Waits for the results.</summary>
    public void Download()
    {
        _backend.Download(_results.Slice(0, _count * (1 + (2 * _top))), _host);
        Numbers.RequireFinite(LogProbs);
    }

    private View<float> Device(int at, int length) => new(_results.Storage, _results.Offset + ((long)at * sizeof(float)), length);

    private ReadOnlySpan<float> Floats(int at, int length) => MemoryMarshal.Cast<int, float>(_host.AsSpan(at, length));
}
