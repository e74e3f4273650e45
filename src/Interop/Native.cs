using System.Reflection;
using System.Runtime.InteropServices;

namespace LrIad.Interop;

/// <summary>The functions of the CUDA driver that are used, and no others. Codes come back as <see cref="CudaResult"/> and are checked by the callers.</summary>
internal static partial class Driver
{
    public const string Library = "cuda";

    [LibraryImport(Library)]
    public static partial CudaResult cuInit(uint flags);

    [LibraryImport(Library)]
    public static partial CudaResult cuDriverGetVersion(out int version);

    [LibraryImport(Library)]
    public static partial CudaResult cuDeviceGetCount(out int count);

    [LibraryImport(Library)]
    public static partial CudaResult cuDeviceGet(out int device, int ordinal);

    [LibraryImport(Library)]
    public static unsafe partial CudaResult cuDeviceGetName(byte* name, int length, int device);

    [LibraryImport(Library)]
    public static partial CudaResult cuDeviceGetAttribute(out int value, CudaDeviceAttribute attribute, int device);

    [LibraryImport(Library)]
    public static partial CudaResult cuDevicePrimaryCtxRetain(out nint context, int device);

    [LibraryImport(Library, EntryPoint = "cuDevicePrimaryCtxRelease_v2")]
    public static partial CudaResult cuDevicePrimaryCtxRelease(int device);

    [LibraryImport(Library)]
    public static partial CudaResult cuCtxSetCurrent(nint context);

    [LibraryImport(Library)]
    public static partial CudaResult cuCtxGetCurrent(out nint context);

    [LibraryImport(Library, EntryPoint = "cuMemGetInfo_v2")]
    public static partial CudaResult cuMemGetInfo(out nuint free, out nuint total);

    [LibraryImport(Library)]
    public static partial CudaResult cuDeviceGetDefaultMemPool(out nint pool, int device);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemPoolSetAttribute(nint pool, int attribute, in ulong value);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemPoolGetAttribute(nint pool, int attribute, out ulong value);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemPoolTrimTo(nint pool, nuint bytes);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemAllocAsync(out nint address, nuint bytes, nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemFreeAsync(nint address, nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemHostAlloc(out nint address, nuint bytes, uint flags);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemFreeHost(nint address);

    [LibraryImport(Library, EntryPoint = "cuMemcpyHtoDAsync_v2")]
    public static partial CudaResult cuMemcpyHtoDAsync(nint to, nint from, nuint bytes, nint stream);

    [LibraryImport(Library, EntryPoint = "cuMemcpyDtoHAsync_v2")]
    public static partial CudaResult cuMemcpyDtoHAsync(nint to, nint from, nuint bytes, nint stream);

    [LibraryImport(Library, EntryPoint = "cuMemcpyDtoDAsync_v2")]
    public static partial CudaResult cuMemcpyDtoDAsync(nint to, nint from, nuint bytes, nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuMemsetD8Async(nint to, byte value, nuint bytes, nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuStreamCreate(out nint stream, uint flags);

    [LibraryImport(Library, EntryPoint = "cuStreamDestroy_v2")]
    public static partial CudaResult cuStreamDestroy(nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuStreamSynchronize(nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuEventCreate(out nint handle, uint flags);

    [LibraryImport(Library, EntryPoint = "cuEventDestroy_v2")]
    public static partial CudaResult cuEventDestroy(nint handle);

    [LibraryImport(Library)]
    public static partial CudaResult cuEventRecord(nint handle, nint stream);

    [LibraryImport(Library)]
    public static partial CudaResult cuEventSynchronize(nint handle);

    [LibraryImport(Library, EntryPoint = "cuEventElapsedTime")]
    public static partial CudaResult cuEventElapsedTime(out float milliseconds, nint start, nint end);

    [LibraryImport(Library)]
    public static unsafe partial CudaResult cuModuleLoadData(out nint module, byte* image);

    [LibraryImport(Library)]
    public static partial CudaResult cuModuleUnload(nint module);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    public static partial CudaResult cuModuleGetFunction(out nint function, nint module, string name);

    [LibraryImport(Library, EntryPoint = "cuModuleGetGlobal_v2", StringMarshalling = StringMarshalling.Utf8)]
    public static partial CudaResult cuModuleGetGlobal(out nint address, out nuint bytes, nint module, string name);

    [LibraryImport(Library)]
    public static partial CudaResult cuFuncSetAttribute(nint function, int attribute, int value);

    [LibraryImport(Library)]
    public static unsafe partial CudaResult cuLaunchKernelEx(LaunchConfig* config, nint function, void** arguments, void** extra);

    [LibraryImport(Library)]
    public static unsafe partial CudaResult cuTensorMapEncodeTiled(
        void* map, int type, uint rank, nint address, ulong* sizes, ulong* strides, uint* box, uint* elementStrides, int interleave, int swizzle, int promotion, int outside);

    [LibraryImport(Library)]
    public static partial CudaResult cuGetErrorName(CudaResult code, out nint name);

    [LibraryImport(Library)]
    public static partial CudaResult cuGetErrorString(CudaResult code, out nint text);

    // An assembly has one resolver; cuBLASLt is asked for after the driver, always.
    static Driver() => NativeLibrary.SetDllImportResolver(typeof(Driver).Assembly, (name, assembly, path) => name switch
    {
        Library => First(assembly, path, OperatingSystem.IsWindows() ? ["nvcuda.dll"] : ["libcuda.so.1", "libcuda.so"]),
        Blas.Library => First(assembly, path, OperatingSystem.IsWindows()
            ? ["cublasLt64_13.dll", "cublasLt64_12.dll"]
            : ["libcublasLt.so.13", "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.12"]),
        _ => 0,
    });

    private static nint First(Assembly assembly, DllImportSearchPath? path, string[] names)
    {
        foreach (var name in names)
        {
            if (NativeLibrary.TryLoad(name, assembly, path, out var handle))
            {
                return handle;
            }
        }

        return 0;
    }
}

/// <summary>CUlaunchConfig.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct LaunchConfig
{
    public uint GridX;
    public uint GridY;
    public uint GridZ;
    public uint BlockX;
    public uint BlockY;
    public uint BlockZ;
    public uint SharedBytes;
    public nint Stream;
    public LaunchAttribute* Attributes;
    public uint AttributeCount;
}

/// <summary>CUlaunchAttribute: an id and 64 bytes of value, of which one flag is used.</summary>
[StructLayout(LayoutKind.Sequential, Size = 72)]
internal struct LaunchAttribute
{
    public const int ProgrammaticStreamSerialization = 6;

    public int Id;
    public int Padding;
    public int Allowed;
}

/// <summary>Properties of a device that are asked for; the numbers are the driver's.</summary>
internal enum CudaDeviceAttribute
{
    MultiprocessorCount = 16,
    ComputeCapabilityMajor = 75,
    ComputeCapabilityMinor = 76,
}
