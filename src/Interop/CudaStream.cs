using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>Work that the GPU does in order.</summary>
internal sealed class CudaStream : SafeHandle
{
    private const uint NonBlocking = 1;

    /// <summary>From here on it pays to go through page-locked memory.</summary>
    private const long StagedBytes = 1 << 20;

    private PinnedStaging? _staging;

    internal CudaStream()
        : base(0, ownsHandle: true)
    {
        Check(Driver.cuStreamCreate(out handle, NonBlocking), "cuStreamCreate");
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>The driver's handle.</summary>
    public nint Handle => handle;

    /// <summary>What times everything, where something does.</summary>
    internal CudaTrace? Trace { get; set; }

    /// <summary>Waits until all of it has been done.</summary>
    public void Synchronize() => Check(Driver.cuStreamSynchronize(handle), "cuStreamSynchronize (an earlier kernel may have failed)");

    /// <summary>Host memory to the device. Pageable memory has been read when the call returns.</summary>
    public void Upload(nint from, nint to, long bytes)
    {
        using var span = Timed("upload");
        if (bytes >= StagedBytes)
        {
            _staging ??= new PinnedStaging();
            _staging.Upload(this, from, to, bytes);
            return;
        }

        Check(Driver.cuMemcpyHtoDAsync(to, from, (nuint)bytes, handle), $"cuMemcpyHtoDAsync({bytes:N0} bytes)");
    }

    /// <summary>Device memory to the host; complete after <see cref="Synchronize"/>.</summary>
    public void Download(nint from, nint to, long bytes)
    {
        using var span = Timed("download");
        if (bytes >= StagedBytes)
        {
            _staging ??= new PinnedStaging();
            _staging.Download(this, from, to, bytes);
            return;
        }

        Check(Driver.cuMemcpyDtoHAsync(to, from, (nuint)bytes, handle), $"cuMemcpyDtoHAsync({bytes:N0} bytes)");
    }

    /// <summary>Device memory to device memory.</summary>
    public void Copy(nint from, nint to, long bytes)
    {
        using var span = Timed("copy");
        Check(Driver.cuMemcpyDtoDAsync(to, from, (nuint)bytes, handle), $"cuMemcpyDtoDAsync({bytes:N0} bytes)");
    }

    /// <summary>Zeros.</summary>
    public void Clear(nint to, long bytes)
    {
        using var span = Timed("clear");
        Check(Driver.cuMemsetD8Async(to, 0, (nuint)bytes, handle), $"cuMemsetD8Async({bytes:N0} bytes)");
    }

    internal CudaTrace.Span Timed(string name) => Trace is null ? default : Trace.Begin(name);

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _staging?.Dispose();
        return Driver.cuStreamDestroy(handle) == CudaResult.Success;
    }
}

/// <summary>A point in a stream; two of them measure the time between.</summary>
internal sealed class CudaEvent : SafeHandle
{
    /// <summary>An event that has not been recorded yet.</summary>
    public CudaEvent()
        : base(0, ownsHandle: true)
    {
        Check(Driver.cuEventCreate(out handle, 0), "cuEventCreate");
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>Marks the end of what the stream has been asked for so far.</summary>
    public void Record(CudaStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Check(Driver.cuEventRecord(handle, stream.Handle), "cuEventRecord");
    }

    /// <summary>Waits until what was asked for before it has been done; an event that was never recorded has nothing to wait for.</summary>
    public void Wait() => Check(Driver.cuEventSynchronize(handle), "cuEventSynchronize");

    /// <summary>Milliseconds from an earlier event to this one; waits for this one.</summary>
    public float Since(CudaEvent start)
    {
        ArgumentNullException.ThrowIfNull(start);
        Wait();
        Check(Driver.cuEventElapsedTime(out var milliseconds, start.handle, handle), "cuEventElapsedTime");
        return milliseconds;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Driver.cuEventDestroy(handle) == CudaResult.Success;
}
