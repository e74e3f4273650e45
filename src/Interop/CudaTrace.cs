namespace LrIad.Interop;

/// <summary>What the GPU did, and when.</summary>
/// <param name="Name">The kernel, product or copy.</param>
/// <param name="Start">Milliseconds since the trace began.</param>
/// <param name="Milliseconds">How long it took.</param>
internal readonly record struct CudaSpan(string Name, double Start, double Milliseconds);

/// <summary>
/// Times everything that a stream is asked to do while it is the stream's trace, by an event in front of and behind each piece of work. Kernels that would start
/// before the one in front has finished no longer do, so the whole takes a little longer than without.
/// </summary>
internal sealed class CudaTrace : IDisposable
{
    private readonly CudaStream _stream;
    private readonly CudaEvent _origin = new();
    private readonly List<(string Name, CudaEvent Start, CudaEvent End)> _work = [];

    /// <summary>Begins now: what was asked for before has been done.</summary>
    public CudaTrace(CudaStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        _stream = stream;
        stream.Synchronize();
        _origin.Record(stream);
        _origin.Wait();
        stream.Trace = this;
    }

    /// <summary>Waits for the last piece of work and tells of all in order.</summary>
    public IReadOnlyList<CudaSpan> Read() => [.. _work.Select(work => new CudaSpan(work.Name, work.Start.Since(_origin), work.End.Since(work.Start)))];

    /// <inheritdoc/>
    public void Dispose()
    {
        _stream.Trace = null;
        foreach (var (_, start, end) in _work)
        {
            start.Dispose();
            end.Dispose();
        }

        _origin.Dispose();
    }

    internal Span Begin(string name)
    {
        var (start, end) = (new CudaEvent(), new CudaEvent());
        _work.Add((name, start, end));
        start.Record(_stream);
        return new Span(end, _stream);
    }

    /// <summary>A piece of work from here to its disposal.</summary>
    internal readonly ref struct Span(CudaEvent end, CudaStream stream)
    {
        public void Dispose() => end?.Record(stream);
    }
}
