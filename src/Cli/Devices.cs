using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;

namespace LrIad.Cli;

/// <summary>Where a model runs.</summary>
internal static class Devices
{
    public const string Help = "auto (a GPU where there is one, else the CPU), cpu or cuda";

    /// <summary>Why <c>--device cuda</c> would not work here, or null if it would.</summary>
    public static string? CudaUnavailable => CudaBackend.Unavailable();

    /// <summary>Opens a device by name.</summary>
    public static Backend Open(string device) => Backends.Open(device);

    /// <summary>Checks a name.</summary>
    public static string Parse(Values values) => values.OneOf("auto", "cpu", "cuda");
}
