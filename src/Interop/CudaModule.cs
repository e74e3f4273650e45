using System.Runtime.InteropServices;
using static LrIad.Interop.CudaException;

namespace LrIad.Interop;

/// <summary>Compiled kernels, loaded.</summary>
internal sealed class CudaModule : SafeHandle
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
    /// <param name="startsEarly">Whether it may start before the kernel in front has finished, and itself waits for what it needs.</param>
    public CudaKernel Kernel(string name, int sharedBytes = 0, bool startsEarly = false)
    {
        Check(Driver.cuModuleGetFunction(out var function, handle, name), $"cuModuleGetFunction({name})");
        return new CudaKernel(name, function, sharedBytes, startsEarly);
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
internal sealed class CudaKernel
{
    private const int MaxDynamicSharedBytes = 8;
    private const int DefaultSharedBytes = 48 << 10;

    private readonly nint _function;
    private readonly uint _sharedBytes;

    private readonly bool _startsEarly;

    internal CudaKernel(string name, nint function, int sharedBytes, bool startsEarly)
    {
        (Name, _function, _sharedBytes, _startsEarly) = (name, function, (uint)sharedBytes, startsEarly);
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
            var early = new LaunchAttribute { Id = LaunchAttribute.ProgrammaticStreamSerialization, Allowed = 1 };
            var config = new LaunchConfig
            {
                GridX = (uint)gridX,
                GridY = (uint)gridY,
                GridZ = 1,
                BlockX = (uint)threads,
                BlockY = 1,
                BlockZ = 1,
                SharedBytes = _sharedBytes,
                Stream = stream.Handle,
                Attributes = &early,
                AttributeCount = _startsEarly ? 1u : 0u,
            };
            using var span = stream.Timed(Name);
            var result = Driver.cuLaunchKernelEx(&config, _function, &pointer, null);
            if (result != CudaResult.Success)
            {
                throw Of(result, $"{Name}<<<({gridX}, {gridY}), {threads}>>>");
            }
        }
    }
}
