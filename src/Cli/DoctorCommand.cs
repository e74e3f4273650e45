using System.CommandLine;
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
        screen.Result();
        screen.Result("runs:         eval, inspect, score, tokenize, data stats on the CPU" + (trains ? "; train on the CPU" : ""));
        var cuda = Devices.CudaUnavailable;
        if (cuda is null)
        {
            screen.Result("              eval, inspect, score on the GPU");
        }

        screen.Result("does not run: train on the GPU" + (cuda is null ? "" : $"; --device cuda at all: {cuda}") + (trains ? "" : "; train"));
        if (!trains)
        {
            screen.Result($"to mend it:   {torch}");
        }

        return 0;
    }
}
