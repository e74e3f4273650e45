using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Compute.Cuda;

namespace LrIad.Engine.Compute;

/// <summary>The backends by name.</summary>
internal static class Backends
{
    /// <summary>Opens one: auto (a GPU where there is one, else the CPU), cpu or cuda.</summary>
    /// <exception cref="InputException">There is none of this name, or no GPU for it.</exception>
    public static Backend Open(string device) => device switch
    {
        "cpu" => new CpuBackend(),
        "auto" when CudaBackend.Unavailable() is not null => new CpuBackend(),
        "auto" or "cuda" => CudaBackend.Unavailable() is { } reason ? throw new InputException($"--device cuda cannot be used: {reason}.") : new CudaBackend(),
        _ => throw new InputException($"There is no device '{device}'; there are auto, cpu and cuda."),
    };
}
