using LrIad.Engine;
using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;

namespace LrIad.Cli;

/// <summary>Where a model runs.</summary>
internal static class Devices
{
    public const string Help = "auto, cpu or cuda";

    /// <summary>Opens a device by name.</summary>
    public static Backend Open(string device) => device switch
    {
        "cuda" => throw new InputException("--device cuda: this build has no CUDA backend yet. Use --device cpu, or leave it out."),
        _ => new CpuBackend(),
    };

    /// <summary>Checks a name.</summary>
    public static string Parse(Values values) => values.OneOf("auto", "cpu", "cuda");
}
