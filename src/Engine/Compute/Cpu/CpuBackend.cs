using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace LrIad.Engine.Compute.Cpu;

/// <summary>
/// The reference: managed, vectorised, all cores; bfloat16 weights read in place, float32 arithmetic. A row's result is the same to the last bit whatever
/// else is in the batch and however many threads there are.
/// </summary>
internal sealed unsafe partial class CpuBackend : Backend
{
    private const int RowsPerTask = 16;

    private readonly CpuThreads _threads;
    private readonly float** _matMulScratch;
    private readonly Dictionary<Scratch, HostStorage> _scratch = [];
    private readonly ConditionalWeakTable<Rotary, RotaryTable> _rotaryTables = [];

    /// <param name="threads">Threads to compute with; 0: one a core.</param>
    public CpuBackend(int threads = 0)
    {
        _threads = new CpuThreads(threads > 0 ? threads : Environment.ProcessorCount);
        _matMulScratch = (float**)NativeMemory.AlignedAlloc((nuint)(_threads.Count * sizeof(float*)), 64);
        for (var worker = 0; worker < _threads.Count; worker++)
        {
            _matMulScratch[worker] = (float*)NativeMemory.AlignedAlloc(MatMul.ScratchFloats * sizeof(float), 64);
        }
    }

    /// <summary>Buffers that operations borrow for their duration; each grows to its largest use and stays.</summary>
    private enum Scratch
    {
        Normed,
        Dropped,
        Key,
        Value,
        LowRank,
        Hidden,
        Gradient,
        Gradient2,
        Gradient3,
        Weights,
        Weights2,
        Logits,
        Attention,
        Partials,
        HeadRows,
        Gather,
        Mask,
    }

    /// <inheritdoc/>
    public override string Name => "cpu";

    /// <inheritdoc/>
    public override ElementType ActivationType => ElementType.Float32;

    /// <summary>Threads it computes with.</summary>
    public int ThreadCount => _threads.Count;

    /// <inheritdoc/>
    protected internal override Storage CreateStorage(long bytes, string purpose)
    {
        try
        {
            return new HostStorage(bytes);
        }
        catch (OutOfMemoryException e)
        {
            throw new OutOfMemoryException($"Not enough memory: {bytes / 1048576.0:F0} MiB are needed for {purpose}.", e);
        }
    }

    /// <inheritdoc/>
    public override Tensor[] Import(params Tensor[] hostWeights) => hostWeights;

    /// <inheritdoc/>
    public override void Upload<T>(ReadOnlySpan<T> source, View<T> destination) => source.CopyTo(new Span<T>((void*)destination.Address, destination.Length));

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor destination)
    {
        if (source.Length != destination.Length)
        {
            throw new ArgumentException($"Upload: {source.Length} values do not fill {destination}.");
        }

        if (destination.Type == ElementType.Float32)
        {
            source.CopyTo(new Span<float>((void*)destination.Address, source.Length));
            return;
        }

        Numbers.ToBFloat16(source, new Span<ushort>((void*)destination.Address, source.Length));
    }

    /// <inheritdoc/>
    public override void Download<T>(View<T> source, Span<T> destination) => new ReadOnlySpan<T>((void*)source.Address, source.Length).CopyTo(destination);

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> destination)
    {
        if (source.Type == ElementType.Float32)
        {
            new ReadOnlySpan<float>((void*)source.Address, checked((int)source.Length)).CopyTo(destination);
            return;
        }

        Numbers.FromBFloat16((ushort*)source.Address, destination[..checked((int)source.Length)]);
    }

    /// <inheritdoc/>
    public override void Copy(Tensor source, Tensor destination)
    {
        Check.Same(source, destination, nameof(destination));
        var bytes = source.Length * source.ElementBytes;
        Buffer.MemoryCopy((void*)source.Address, (void*)destination.Address, bytes, bytes);
    }

    /// <inheritdoc/>
    public override void Clear(Tensor tensor) => NativeMemory.Clear((void*)tensor.Address, (nuint)(tensor.Length * tensor.ElementBytes));

    /// <inheritdoc/>
    public override void Synchronize()
    {
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
        {
            return;
        }

        _threads.Dispose();
        foreach (var storage in _scratch.Values)
        {
            storage.Dispose();
        }

        for (var worker = 0; worker < _threads.Count; worker++)
        {
            NativeMemory.AlignedFree(_matMulScratch[worker]);
        }

        NativeMemory.AlignedFree(_matMulScratch);
    }

    private float* Borrow(Scratch which, long floats)
    {
        ref var storage = ref CollectionsMarshal.GetValueRefOrAddDefault(_scratch, which, out _);
        if (storage is null || storage.Bytes < floats * sizeof(float))
        {
            storage?.Dispose();
            storage = new HostStorage(Math.Max(4096, floats * sizeof(float) * 5 / 4));
        }

        return (float*)storage.Address;
    }

    /// <summary>A weight vector as floats, or null where it is absent.</summary>
    private float* Floats(Tensor vector, Scratch which)
    {
        if (vector.IsEmpty)
        {
            return null;
        }

        if (vector.Type == ElementType.Float32)
        {
            return (float*)vector.Address;
        }

        var floats = Borrow(which, vector.Length);
        Numbers.FromBFloat16((ushort*)vector.Address, new Span<float>(floats, (int)vector.Length));
        return floats;
    }

    private static Left Rows(Tensor x) => new((float*)x.Address, x.Columns);

    private static Right TransposedWeight(Tensor weight) => new((void*)weight.Address, weight.Columns, transposed: true, weight.Type == ElementType.BFloat16);

    private static Right Weight(Tensor weight) => new((void*)weight.Address, weight.Columns, transposed: false, weight.Type == ElementType.BFloat16);

    private void Multiply(Left a, Right b, Start start, float* c, long stride, int m, int n, int k) =>
        MatMul.Run(_threads, _matMulScratch, a, b, start, c, stride, m, n, k);

    /// <summary>y[m, outputs] = x·Wᵀ + b (+ residual).</summary>
    private void Apply(Linear linear, Left x, int m, float* y, long stride, float* residual = null, long residualStride = 0) =>
        Multiply(x, TransposedWeight(linear.Weight), new Start(Floats(linear.Bias, Scratch.Weights2), residual, residualStride), y, stride, m, linear.Outputs, linear.Inputs);

    private void ForRows(int rows, delegate*<void*, int, int, void> body, void* state) => _threads.Run((rows + RowsPerTask - 1) / RowsPerTask, body, state);

    [SuppressMessage("Performance", "CA1812", Justification = "Made by CreateStorage.")]
    private sealed class HostStorage : Storage
    {
        public HostStorage(long bytes)
            : base(bytes)
        {
            SetHandle((nint)NativeMemory.AlignedAlloc(checked((nuint)bytes), 64));
            NativeMemory.Clear((void*)handle, (nuint)bytes);
        }

        protected override bool ReleaseHandle()
        {
            NativeMemory.AlignedFree((void*)handle);
            return true;
        }
    }
}
