using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>
/// The fast way of large data to the device: through page-locked buffers, which several threads fill while the copy engine empties others. The driver alone copies
/// pageable memory with one thread.
/// </summary>
internal sealed unsafe class PinnedStaging : SafeHandle
{
    private const int Buffers = 16;
    private const int BufferBytes = 256 << 10;
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

    /// <summary>Copies before what the stream is asked for next; the source has been read when the call returns.</summary>
    public void Upload(CudaStream stream, nint from, nint to, long bytes)
    {
        var pieces = (bytes + BufferBytes - 1) / BufferBytes;
        var taken = -1L;
        Parallel.For(0, (int)Math.Min(pieces, Math.Min(Environment.ProcessorCount, MostThreads)), _ =>
        {
            Check(Driver.cuCtxSetCurrent(_context), "cuCtxSetCurrent");
            for (long piece; (piece = Interlocked.Increment(ref taken)) < pieces;)
            {
                UploadPiece(stream, from, to, piece * BufferBytes, bytes);
            }
        });
    }

    private void UploadPiece(CudaStream stream, nint from, nint to, long first, long bytes)
    {
        var which = (int)(first / BufferBytes % Buffers);
        var (count, buffer, emptied) = (Math.Min(BufferBytes, bytes - first), handle + (which * BufferBytes), _emptied[which]);
        lock (emptied)
        {
            emptied.Wait();
            Buffer.MemoryCopy((void*)(from + (nint)first), (void*)buffer, count, count);
            Check(Driver.cuMemcpyHtoDAsync(to + (nint)first, buffer, (nuint)count, stream.Handle), $"cuMemcpyHtoDAsync({count:N0} bytes)");
            emptied.Record(stream);
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
