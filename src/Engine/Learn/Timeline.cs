using System.Text.Json;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Learn;

/// <summary>
/// Where the time of a training step goes: the host's phases and the GPU's kernels on one time axis, in Chrome's trace format (chrome://tracing, Perfetto).
/// </summary>
/// <param name="backend">What is timed.</param>
/// <param name="file">Where it goes.</param>
internal sealed class Timeline(Backend backend, string file)
{
    /// <summary>The first step makes buffers and plans that the others find.</summary>
    public const int Step = 2;

    private const int Host = 1;
    private const int Device = 2;

    /// <summary>Times one step.</summary>
    public void Record(Func<StepRecord> step)
    {
        backend.BeginTrace();
        StepRecord record;
        IReadOnlyList<(string Name, double Start, double Seconds)> spans = [];
        try
        {
            record = step();
        }
        finally
        {
            spans = backend.EndTrace();
        }

        Write(record.Laps, spans);
    }

    // ph X: a complete event, times in microseconds.
    private void Write(IReadOnlyList<(string Name, double Start, double Seconds)> phases, IReadOnlyList<(string Name, double Start, double Seconds)> spans)
    {
        object Event(int thread, (string Name, double Start, double Seconds) span) =>
            new { name = span.Name, ph = "X", ts = Math.Round(span.Start * 1e6, 3), dur = Math.Round(span.Seconds * 1e6, 3), pid = 1, tid = thread };
        object Name(int thread, string name) => new { name = "thread_name", ph = "M", pid = 1, tid = thread, args = new { name } };
        var events = new[] { Name(Host, "phases"), Name(Device, backend.Name) }.Concat(phases.Select(phase => Event(Host, phase))).Concat(spans.Select(span => Event(Device, span)));
        AtomicFile.WriteText(file, JsonSerializer.Serialize(new { traceEvents = events, displayTimeUnit = "ms" }));
    }
}
