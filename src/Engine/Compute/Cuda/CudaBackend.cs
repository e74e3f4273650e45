using System.Buffers;
using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

/// <summary>
/// The GPU: bfloat16 weights, activations and cache; sums, norms, soft-maxes, rotary angles, logits and log-probs in float32. Own kernels, and cuBLASLt for
/// large products. Everything goes to one stream in order; nothing waits but downloads and <see cref="Synchronize"/>.
/// </summary>
internal sealed unsafe partial class CudaBackend : Backend
{
    private readonly CudaContext _context;
    private readonly CudaStream _stream;
    private readonly CublasLt _blas;
    private readonly Kernels _kernels;
    private readonly StepProgram _program;
    private readonly ConcurrentQueue<nint> _released = [];
    private readonly Dictionary<Scratch, Storage> _scratch = [];
    private readonly ConditionalWeakTable<Rotary, RotaryTables> _rotary = [];

    /// <summary>Opens the first GPU.</summary>
    /// <exception cref="InputException">There is none that can be used; says why.</exception>
    public CudaBackend()
    {
        if (Unavailable() is { } reason)
        {
            throw new InputException($"--device cuda: {reason}. Use --device cpu, or leave it out.");
        }

        try
        {
            _context = new CudaContext();
            _stream = _context.Stream;
            _kernels = new Kernels(_context);
            _blas = new CublasLt(_context);
            _program = new StepProgram(_context, _kernels.Steps, CreateStorage);
        }
        catch (CudaException e)
        {
            throw new InputException($"--device cuda: {e.Message}. Use --device cpu, or leave it out.", e);
        }
    }

    /// <summary>Why there is no such backend here, or null if there is one.</summary>
    public static string? Unavailable() => CudaContext.Unavailable(Kernels.Ampere) ?? Kernels.Unavailable() ?? CublasLt.Unavailable();

    /// <summary>Buffers that operations borrow for their duration; each grows to its largest use and stays.</summary>
    private enum Scratch
    {
        Normed,
        Qkv,
        DNormed,
        LowRank,
        FactorPartials,
        Mask,
        Rounded,
        Hidden,
        Activated,
        PartialO,
        PartialLogSumExp,
        BackwardStats,
        PartialKv,
        Logits,
        DLogits,
        HeadParts,
        HeadFloor,
        HeadLastTied,
    }

    /// <inheritdoc/>
    public override string Name => "cuda";

    /// <inheritdoc/>
    public override ElementType ActivationType => ElementType.BFloat16;

    /// <inheritdoc/>
    public override long? FreeBytes => _context.Memory().Free;

    /// <inheritdoc/>
    public override bool KeepsAttentionOutput => false;

    /// <summary>The GPU, for measuring.</summary>
    public CudaContext Context => _context;

    /// <summary>The stream, after everything that was gathered in a program.</summary>
    private CudaStream Stream
    {
        get
        {
            _program.Run();
            while (_released.TryDequeue(out var address))
            {
                _context.Free(address);
            }

            return _stream;
        }
    }

    /// <inheritdoc/>
    protected internal override Storage CreateStorage(long bytes, string purpose)
    {
        _context.MakeCurrent();
        var storage = DeviceStorage.TryCreate(this, bytes);
        if (storage is null)
        {
            var (free, total) = _context.Memory();
            throw new OutOfMemoryException(
                $"Not enough memory on {_context.Name}: {bytes / 1048576.0:N0} MiB are needed for {purpose}, {free / 1048576.0:N0} of {total / 1048576.0:N0} MiB are free. "
                + "Lower --prompts-per-step, --num-generations, --max-completion-length, --votes or --batch-size, or take a smaller model.");
        }

        _stream.Clear(storage.Address, bytes);
        return storage;
    }

    /// <inheritdoc/>
    public override Tensor[] Import(params Tensor[] hostWeights)
    {
        ArgumentNullException.ThrowIfNull(hostWeights);
        var storage = CreateStorage(Math.Max(256, hostWeights.Sum(weight => weight.Length * weight.ElementBytes)), "the model's weights");
        var imported = new Tensor[hostWeights.Length];
        long offset = 0;
        for (var i = 0; i < hostWeights.Length; i++)
        {
            var bytes = hostWeights[i].Length * hostWeights[i].ElementBytes;
            imported[i] = hostWeights[i] with { Storage = storage, Offset = offset };
            Stream.Upload(hostWeights[i].Address, imported[i].Address, bytes);
            offset += bytes;
        }

        return imported;
    }

    /// <inheritdoc/>
    public override void Upload<T>(ReadOnlySpan<T> source, View<T> destination)
    {
        _context.MakeCurrent();
        fixed (T* from = source)
        {
            if (source.Length > 0)
            {
                Stream.Upload((nint)from, destination.Address, (long)source.Length * sizeof(T));
            }
        }
    }

    /// <inheritdoc/>
    public override void Upload(ReadOnlySpan<float> source, Tensor destination)
    {
        if (source.Length != destination.Length)
        {
            throw new ArgumentException($"Upload: {source.Length} values do not fill {destination}.");
        }

        if (destination.Type == ElementType.Float32)
        {
            Upload(source, new View<float>(destination.Storage, destination.Offset, source.Length));
            return;
        }

        var rounded = ArrayPool<ushort>.Shared.Rent(source.Length);
        Numbers.ToBFloat16(source, rounded);
        Upload<ushort>(rounded.AsSpan(0, source.Length), new View<ushort>(destination.Storage, destination.Offset, source.Length));
        ArrayPool<ushort>.Shared.Return(rounded);
    }

    /// <inheritdoc/>
    public override void Download<T>(View<T> source, Span<T> destination)
    {
        _context.MakeCurrent();
        fixed (T* to = destination[..source.Length])
        {
            if (source.Length > 0)
            {
                Stream.Download(source.Address, (nint)to, (long)source.Length * sizeof(T));
                Stream.Synchronize();
                _program.Idle = true;
            }
        }
    }

    /// <inheritdoc/>
    public override void Download(Tensor source, Span<float> destination)
    {
        var count = checked((int)source.Length);
        if (source.Type == ElementType.Float32)
        {
            Download(new View<float>(source.Storage, source.Offset, count), destination);
            return;
        }

        var rounded = ArrayPool<ushort>.Shared.Rent(count);
        Download(new View<ushort>(source.Storage, source.Offset, count), rounded);
        fixed (ushort* from = rounded)
        {
            Numbers.FromBFloat16(from, destination[..count]);
        }

        ArrayPool<ushort>.Shared.Return(rounded);
    }

    /// <inheritdoc/>
    public override void Copy(Tensor source, Tensor destination)
    {
        Check.Same(source, destination, nameof(destination));
        _context.MakeCurrent();
        Stream.Copy(source.Address, destination.Address, source.Length * source.ElementBytes);
    }

    /// <inheritdoc/>
    public override void Clear(Tensor tensor)
    {
        _context.MakeCurrent();
        Stream.Clear(tensor.Address, tensor.Length * tensor.ElementBytes);
    }

    /// <inheritdoc/>
    public override void Synchronize()
    {
        _context.MakeCurrent();
        Stream.Synchronize();
        _program.Idle = true;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
        {
            return;
        }

        _context.MakeCurrent();
        Stream.Synchronize();
        _program.Dispose();
        foreach (var storage in _scratch.Values)
        {
            storage.Dispose();
        }

        _blas.Dispose();
        _kernels.Dispose();
        _context.Dispose();
    }

    private nint Borrow(Scratch which, long bytes)
    {
        ref var storage = ref CollectionsMarshal.GetValueRefOrAddDefault(_scratch, which, out _);
        if (storage is null || storage.Bytes < bytes)
        {
            // What has been gathered may use the old one.
            _program.Run();
            storage?.Dispose();
            storage = null;
            storage = CreateStorage(Math.Max(4096, bytes), $"the scratch buffer {which}");
        }

        return storage.Address;
    }

    private static nint Address(Tensor tensor) => tensor.IsEmpty ? 0 : tensor.Address;

    private static int Blocks(long units, int threads) => (int)Math.Clamp((units + threads - 1) / threads, 1, 4096);

    // A finalizer may call it too: memory that gathered operations still name goes back when they have been run.
    private void Release(nint address)
    {
        if (_program.IsEmpty)
        {
            _context.Free(address);
        }
        else
        {
            _released.Enqueue(address);
        }
    }

    private sealed class DeviceStorage : Storage
    {
        private readonly CudaBackend _backend;

        private DeviceStorage(CudaBackend backend, long bytes, nint address)
            : base(bytes)
        {
            _backend = backend;
            SetHandle(address);
        }

        public static DeviceStorage? TryCreate(CudaBackend backend, long bytes)
        {
            var address = backend._context.Allocate(bytes);
            return address == 0 ? null : new DeviceStorage(backend, bytes, address);
        }

        protected override bool ReleaseHandle()
        {
            _backend.Release(handle);
            return true;
        }
    }

    private sealed class RotaryTables(View<int> axis, View<float> frequency)
    {
        public View<int> Axis => axis;

        public View<float> Frequency => frequency;
    }
}
