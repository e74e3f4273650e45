using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>Compiled kernels, loaded.</summary>
public sealed class CudaModule : SafeHandle
{
    /// <param name="image">A fatbin; the driver picks what fits the GPU.</param>
    public unsafe CudaModule(ReadOnlySpan<byte> image)
        : base(0, ownsHandle: true)
    {
        fixed (byte* bytes = image)
        {
            Check(Driver.cuModuleLoadData(out handle, bytes), "cuModuleLoadData");
        }
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>A kernel by its name.</summary>
    /// <param name="name">As declared extern "C".</param>
    /// <param name="sharedBytes">Dynamic shared memory of a block.</param>
    public CudaKernel Kernel(string name, int sharedBytes = 0)
    {
        Check(Driver.cuModuleGetFunction(out var function, handle, name), $"cuModuleGetFunction({name})");
        return new CudaKernel(name, function, sharedBytes);
    }

    /// <summary>Address and size of a global variable in device memory.</summary>
    public (nint Address, long Bytes) Global(string name)
    {
        Check(Driver.cuModuleGetGlobal(out var address, out var bytes, handle, name), $"cuModuleGetGlobal({name})");
        return (address, (long)bytes);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Driver.cuModuleUnload(handle) == CudaResult.Success;
}

/// <summary>A kernel. It takes one struct; a launch allocates nothing.</summary>
public sealed class CudaKernel
{
    private const int MaxDynamicSharedBytes = 8;
    private const int DefaultSharedBytes = 48 << 10;

    private readonly nint _function;
    private readonly uint _sharedBytes;

    internal CudaKernel(string name, nint function, int sharedBytes)
    {
        (Name, _function, _sharedBytes) = (name, function, (uint)sharedBytes);
        if (sharedBytes > DefaultSharedBytes)
        {
            Check(Driver.cuFuncSetAttribute(function, MaxDynamicSharedBytes, sharedBytes), $"cuFuncSetAttribute({name}, {sharedBytes} bytes of shared memory)");
        }
    }

    /// <summary>Its name in the module.</summary>
    public string Name { get; }

    /// <summary>Asks for one run over a grid of <paramref name="gridX"/> × <paramref name="gridY"/> blocks.</summary>
    public unsafe void Launch<T>(CudaStream stream, in T arguments, int gridX, int gridY, int threads)
        where T : unmanaged
    {
        ArgumentNullException.ThrowIfNull(stream);
        fixed (T* argument = &arguments)
        {
            var pointer = (void*)argument;
            var result = Driver.cuLaunchKernel(_function, (uint)gridX, (uint)gridY, 1, (uint)threads, 1, 1, _sharedBytes, stream.Handle, &pointer, null);
            if (result != CudaResult.Success)
            {
                throw Of(result, $"{Name}<<<({gridX}, {gridY}), {threads}>>>");
            }
        }
    }
}
