using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>
/// The fast way of large data to the device: through page-locked buffers, which several threads fill while the copy engine empties others. The driver alone copies
/// pageable memory with one thread.
/// </summary>
internal sealed unsafe class PinnedStaging : SafeHandle
{
    private const int Buffers = 4;
    private const int Slices = 4;
    private const int BufferBytes = 2 << 20;

    private readonly CudaEvent[] _emptied = [.. Enumerable.Range(0, Buffers).Select(_ => new CudaEvent())];
    private int _next;

    public PinnedStaging()
        : base(0, ownsHandle: true)
    {
        Check(Driver.cuMemHostAlloc(out handle, Buffers * BufferBytes, 0), $"cuMemHostAlloc({Buffers * BufferBytes:N0} bytes)");
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>Copies in the stream's order; the source has been read when the call returns.</summary>
    public void Upload(CudaStream stream, nint from, nint to, long bytes)
    {
        for (long done = 0; done < bytes; done += BufferBytes)
        {
            var count = (int)Math.Min(BufferBytes, bytes - done);
            var (buffer, source) = (handle + (_next * BufferBytes), from + (nint)done);
            _emptied[_next].Wait();
            var slice = (count + Slices - 1) / Slices;
            Parallel.For(0, Slices, i =>
            {
                var (first, end) = (Math.Min(count, i * slice), Math.Min(count, (i + 1) * slice));
                Buffer.MemoryCopy((void*)(source + first), (void*)(buffer + first), end - first, end - first);
            });
            Check(Driver.cuMemcpyHtoDAsync(to + (nint)done, buffer, (nuint)count, stream.Handle), $"cuMemcpyHtoDAsync({count:N0} bytes)");
            _emptied[_next].Record(stream);
            _next = (_next + 1) % Buffers;
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        foreach (var emptied in _emptied)
        {
            emptied.Dispose();
        }

        return Driver.cuMemFreeHost(handle) == CudaResult.Success;
    }
}
