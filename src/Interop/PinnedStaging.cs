using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>
/// The fast way of large data to the device and back: through page-locked buffers, which several threads fill while the copy engine empties others, or the other way
/// round. The driver alone copies pageable memory with one thread.
/// </summary>
internal sealed unsafe class PinnedStaging : SafeHandle
{
    private const int Buffers = 8;
    private const int BufferBytes = 512 << 10;
    private const int MostThreads = 16;

    private readonly CudaEvent[] _emptied = [.. Enumerable.Range(0, Buffers).Select(_ => new CudaEvent())];
    private readonly nint _context;

    public PinnedStaging()
        : base(0, ownsHandle: true)
    {
        Check(Driver.cuCtxGetCurrent(out _context), "cuCtxGetCurrent");
        Check(Driver.cuMemHostAlloc(out handle, Buffers * BufferBytes, 0), $"cuMemHostAlloc({Buffers * BufferBytes:N0} bytes)");
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>Copies to the device before what the stream is asked for next; the source has been read when the call returns.</summary>
    public void Upload(CudaStream stream, nint from, nint to, long bytes) => Copy(bytes, (first, count, buffer, free) =>
    {
        Buffer.MemoryCopy((void*)(from + (nint)first), (void*)buffer, count, count);
        Check(Driver.cuMemcpyHtoDAsync(to + (nint)first, buffer, (nuint)count, stream.Handle), $"cuMemcpyHtoDAsync({count:N0} bytes)");
        free.Record(stream);
    });

    /// <summary>Copies to the host, after what the stream has been asked for; all is there when the call returns.</summary>
    public void Download(CudaStream stream, nint from, nint to, long bytes) => Copy(bytes, (first, count, buffer, free) =>
    {
        Check(Driver.cuMemcpyDtoHAsync(buffer, from + (nint)first, (nuint)count, stream.Handle), $"cuMemcpyDtoHAsync({count:N0} bytes)");
        free.Record(stream);
        free.Wait();
        Buffer.MemoryCopy((void*)buffer, (void*)(to + (nint)first), count, count);
    });

    // copy(first byte, bytes, buffer, what tells that the buffer is free again) for every piece.
    private void Copy(long bytes, Action<long, long, nint, CudaEvent> copy)
    {
        var pieces = (bytes + BufferBytes - 1) / BufferBytes;
        var taken = -1L;
        Parallel.For(0, (int)Math.Min(pieces, Math.Min(Environment.ProcessorCount, MostThreads)), _ =>
        {
            Check(Driver.cuCtxSetCurrent(_context), "cuCtxSetCurrent");
            for (long piece; (piece = Interlocked.Increment(ref taken)) < pieces;)
            {
                var (which, first) = ((int)(piece % Buffers), piece * BufferBytes);
                lock (_emptied[which])
                {
                    _emptied[which].Wait();
                    copy(first, Math.Min(BufferBytes, bytes - first), handle + (which * BufferBytes), _emptied[which]);
                }
            }
        });
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
