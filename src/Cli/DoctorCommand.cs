using System.CommandLine;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Learn;

namespace LrIad.Cli;

/// <summary>What this machine has, what runs on it, and how to mend what does not.</summary>
internal static class DoctorCommand
{
    public static Command Create(Host host)
    {
        var command = new Command("doctor", "Tells what this machine has, what will and will not run, and how to fix it.");
        command.SetAction(parsed => Run(host.Session(parsed).Screen));
        return command;
    }

    private static int Run(Screen screen)
    {
        foreach (var (name, value) in Machine.Facts())
        {
            screen.Result($"{name,-12}{value}");
        }

        var (trains, torch) = LibTorch.Check();
        var sample = BundledSample.TryFind("tiny-qwen2-vl");
        screen.Result($"{"libtorch",-12}{(trains ? torch : "not usable")}");
        screen.Result($"{"sample",-12}{sample ?? "not found: --sample works in a clone of the project alone"}");
        foreach (var (name, geometry) in new[] { ("Qwen2-VL-2B", ModelGeometry.Qwen2Vl2B), ("Qwen2-VL-7B", ModelGeometry.Qwen2Vl7B) })
        {
            screen.Result($"{"training",-12}{name} by default settings on a GPU: {MemoryPlan.For(geometry, new TrainConfig(), ElementType.BFloat16, null).Describe(null)}");
        }

        screen.Result();
        var (verbs, cuda) = ("eval, inspect, score" + (trains ? ", train" : ""), Devices.CudaUnavailable);
        screen.Result($"runs:         {verbs}, tokenize, data stats on the CPU");
        if (cuda is null)
        {
            screen.Result($"              {verbs}, bench on the GPU");
        }

        var missing = new[] { trains ? null : "train", cuda is null ? null : $"--device cuda and bench: {cuda}" }.OfType<string>().ToArray();
        if (missing.Length > 0)
        {
            screen.Result($"does not run: {string.Join("; ", missing)}");
        }

        if (!trains)
        {
            screen.Result($"to mend it:   {torch}");
        }

        return 0;
    }
}
