using System.Runtime.InteropServices;

namespace LrIad.Interop;

/// <summary>What a call of the driver came to; the numbers are the driver's.</summary>
public enum CudaResult
{
    /// <summary>It did what was asked.</summary>
    Success = 0,

    /// <summary>Device memory is used up.</summary>
    OutOfMemory = 2,

    /// <summary>There is a driver, but no device that it can use.</summary>
    NoDevice = 100,
}

/// <summary>A call of CUDA or cuBLASLt that failed: which, and why.</summary>
public sealed class CudaException : Exception
{
    internal CudaException(string call, string why, CudaResult result = default)
        : base($"{call} failed: {why}") => Result = result;

    /// <summary>The driver's code, where the driver was asked.</summary>
    public CudaResult Result { get; }

    internal static void Check(CudaResult result, string call)
    {
        if (result != CudaResult.Success)
        {
            throw Of(result, call);
        }
    }

    internal static CudaException Of(CudaResult result, string call)
    {
        var name = Driver.cuGetErrorName(result, out var namePointer) == CudaResult.Success ? Marshal.PtrToStringUTF8(namePointer) : null;
        var text = Driver.cuGetErrorString(result, out var textPointer) == CudaResult.Success ? Marshal.PtrToStringUTF8(textPointer) : null;
        return new CudaException(call, $"{name ?? "error"} ({(int)result}), {text ?? "unknown to this driver"}", result);
    }
}
