using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>A GPU and this process's hold on it: its primary context, one stream in whose order everything happens, and memory from the driver's pool.</summary>
internal sealed class CudaContext : IDisposable
{
    private const int PoolReleaseThreshold = 4;
    private const int PoolUsedHigh = 8;

    private readonly int _device;
    private readonly nint _context;
    private readonly nint _pool;
    private bool _disposed;

    /// <param name="ordinal">Which GPU.</param>
    /// <exception cref="CudaException">There is none, or it cannot be used; <see cref="Unavailable"/> says so without an exception.</exception>
    public unsafe CudaContext(int ordinal = 0)
    {
        Check(Driver.cuInit(0), "cuInit");
        Check(Driver.cuDeviceGet(out _device, ordinal), $"cuDeviceGet({ordinal})");
        var name = stackalloc byte[256];
        Check(Driver.cuDeviceGetName(name, 256, _device), "cuDeviceGetName");
        Name = Marshal.PtrToStringUTF8((nint)name) ?? "";
        ComputeCapability = (Attribute(CudaDeviceAttribute.ComputeCapabilityMajor) * 10) + Attribute(CudaDeviceAttribute.ComputeCapabilityMinor);
        Multiprocessors = Attribute(CudaDeviceAttribute.MultiprocessorCount);
        Check(Driver.cuDevicePrimaryCtxRetain(out _context, _device), "cuDevicePrimaryCtxRetain");
        MakeCurrent();

        // Freed memory stays with the process: buffers come and go without asking the driver.
        Check(Driver.cuDeviceGetDefaultMemPool(out _pool, _device), "cuDeviceGetDefaultMemPool");
        Check(Driver.cuMemPoolSetAttribute(_pool, PoolReleaseThreshold, ulong.MaxValue), "cuMemPoolSetAttribute");
        Stream = new CudaStream();
    }

    /// <summary>What the vendor calls the GPU.</summary>
    public string Name { get; }

    /// <summary>Compute capability as one number: 90 for an H100.</summary>
    public int ComputeCapability { get; }

    /// <summary>Streaming multiprocessors.</summary>
    public int Multiprocessors { get; }

    /// <summary>The stream that all work goes to.</summary>
    public CudaStream Stream { get; }

    /// <summary>Why there is no GPU to work with here, or null if there is one.</summary>
    /// <param name="computeCapability">The least that will do, as one number: 80 for Ampere.</param>
    public static string? Unavailable(int computeCapability = 0)
    {
        try
        {
            var result = Driver.cuInit(0);
            if (result != CudaResult.Success)
            {
                return result == CudaResult.NoDevice ? "the CUDA driver sees no GPU" : Of(result, "cuInit").Message;
            }

            Check(Driver.cuDeviceGetCount(out var count), "cuDeviceGetCount");
            if (count == 0)
            {
                return "the CUDA driver sees no GPU";
            }

            Check(Driver.cuDeviceGet(out var device, 0), "cuDeviceGet(0)");
            Check(Driver.cuDeviceGetAttribute(out var major, CudaDeviceAttribute.ComputeCapabilityMajor, device), "cuDeviceGetAttribute");
            Check(Driver.cuDeviceGetAttribute(out var minor, CudaDeviceAttribute.ComputeCapabilityMinor, device), "cuDeviceGetAttribute");
            return (major * 10) + minor < computeCapability
                ? $"the GPU is of CUDA compute capability {major}.{minor}; {computeCapability / 10}.{computeCapability % 10} is the least that will do"
                : null;
        }
        catch (CudaException e)
        {
            return e.Message;
        }
        catch (DllNotFoundException)
        {
            return "no CUDA driver is installed (libcuda.so.1 cannot be loaded)";
        }
    }

    /// <summary>Lets the calling thread use the GPU.</summary>
    public void MakeCurrent() => Check(Driver.cuCtxSetCurrent(_context), "cuCtxSetCurrent");

    /// <summary>Free and total bytes of device memory; what the pool keeps for later counts as used.</summary>
    public (long Free, long Total) Memory()
    {
        Check(Driver.cuMemGetInfo(out var free, out var total), "cuMemGetInfo");
        return ((long)free, (long)total);
    }

    /// <summary>The most bytes that were allocated at one time so far, or since <see cref="ForgetPeak"/>.</summary>
    public long PeakBytes()
    {
        Check(Driver.cuMemPoolGetAttribute(_pool, PoolUsedHigh, out var bytes), "cuMemPoolGetAttribute");
        return (long)bytes;
    }

    /// <summary>Has <see cref="PeakBytes"/> begin with what is allocated now.</summary>
    public void ForgetPeak() => Check(Driver.cuMemPoolSetAttribute(_pool, PoolUsedHigh, 0), "cuMemPoolSetAttribute");

    /// <summary>Memory in the stream's order; 0 where there is not enough.</summary>
    public nint Allocate(long bytes)
    {
        var result = Driver.cuMemAllocAsync(out var address, (nuint)bytes, Stream.Handle);
        if (result == CudaResult.OutOfMemory)
        {
            // What was freed may still lie in the pool in pieces of other sizes.
            Stream.Synchronize();
            Check(Driver.cuMemPoolTrimTo(_pool, 0), "cuMemPoolTrimTo");
            result = Driver.cuMemAllocAsync(out address, (nuint)bytes, Stream.Handle);
        }

        if (result == CudaResult.OutOfMemory)
        {
            return 0;
        }

        Check(result, $"cuMemAllocAsync({bytes:N0} bytes)");
        return address;
    }

    /// <summary>Gives memory back once everything asked for so far has been done. Any thread may call it, a finalizer's too.</summary>
    public void Free(nint address)
    {
        if (!_disposed)
        {
            _ = Driver.cuCtxSetCurrent(_context);
            _ = Driver.cuMemFreeAsync(address, Stream.Handle);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        Stream.Dispose();
        _ = Driver.cuMemPoolTrimTo(_pool, 0);
        _ = Driver.cuDevicePrimaryCtxRelease(_device);
    }

    private int Attribute(CudaDeviceAttribute attribute)
    {
        Check(Driver.cuDeviceGetAttribute(out var value, attribute, _device), $"cuDeviceGetAttribute({attribute})");
        return value;
    }
}
