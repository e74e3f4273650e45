using LrIad.Engine.Bench;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

internal sealed unsafe partial class CudaBackend
{
    private const int CeilingRepeats = 10;

    private CudaTrace? _trace;

    /// <inheritdoc/>
    public override void BeginTrace()
    {
        _context.MakeCurrent();
        _trace = new CudaTrace(Stream);
    }

    /// <inheritdoc/>
    public override IReadOnlyList<(string Name, double Start, double Seconds)> EndTrace()
    {
        _ = Stream;
        using var trace = _trace ?? throw new InvalidOperationException("No trace has begun.");
        _trace = null;
        return [.. trace.Read().Select(span => (span.Name, span.Start / 1e3, span.Milliseconds / 1e3))];
    }

    /// <summary>Milliseconds that the GPU takes for some operations.</summary>
    public double Measure(Action operations)
    {
        ArgumentNullException.ThrowIfNull(operations);
        _context.MakeCurrent();
        using var start = new CudaEvent();
        using var end = new CudaEvent();
        start.Record(Stream);
        operations();
        end.Record(Stream);
        return end.Since(start);
    }

    /// <summary>How fast this GPU reads memory and multiplies matrices when it does nothing else.</summary>
    public Ceilings MeasureCeilings()
    {
        const long bytes = 4L << 30;
        const int size = 8192;
        using var arena = CreateArena("measuring the GPU's ceilings");
        using var memory = CreateStorage(bytes, "measuring the GPU's ceilings");
        var sink = arena.Allocate<int>(1);
        var read = Best(() => _kernels.Read.Launch(Stream, new ReadArgs(memory.Address, sink.Address, bytes / 16), _context.Multiprocessors * 4, 1, 512));
        Tensor Matrix()
        {
            var matrix = arena.Allocate(ElementType.BFloat16, size, size);
            var random = new Random(size);
            var values = new float[matrix.Length];
            for (var i = 0; i < values.Length; i++)
            {
                values[i] = random.NextSingle() - 0.5f;
            }

            Upload(values, matrix);
            return matrix;
        }

        var (x, weight, y) = (Matrix(), Matrix(), arena.Allocate(ElementType.BFloat16, size, size));
        var multiply = Best(() => Multiply(new Linear(weight, default), x.Address, size, y.Address, size));
        return new Ceilings(bytes / read * 1e3, 2.0 * size * size * size / multiply * 1e3);

        double Best(Action operation) => Enumerable.Range(0, CeilingRepeats).Select(_ => Measure(operation)).Order().ElementAt(CeilingRepeats / 2);
    }
}
