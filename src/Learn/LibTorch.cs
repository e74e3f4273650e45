using System.Runtime.InteropServices;
using LrIad.Engine;
using TorchSharp;

namespace LrIad.Learn;

/// <summary>Whether libtorch, which training alone needs, can be loaded here.</summary>
internal static class LibTorch
{
    private const string Fix =
        "it was built for a newer libstdc++ (Debian 13, Ubuntu 24.04 and later have it). On Debian 12 run: sudo ./build.sh setup";

    /// <summary>Its version, or what is wrong and how to mend it.</summary>
    public static (bool Works, string Words) Check()
    {
        try
        {
            // Asked for directly first: on failure TorchSharp's own loader prints to standard output and copies libtorch beside the program, without naming the cause.
            NativeLibrary.Load("torch_cpu", typeof(torch).Assembly, null);
            NativeLibrary.Load("LibTorchSharp", typeof(torch).Assembly, null);
            using var probe = torch.zeros(1);
            return (true, $"libtorch {torch.__version__} through TorchSharp {typeof(torch).Assembly.GetName().Version?.ToString(3)}");
        }
        catch (Exception e) when (e is TypeInitializationException or NotSupportedException or DllNotFoundException or BadImageFormatException or EntryPointNotFoundException)
        {
            var lines = (e.InnerException ?? e).Message.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
            var tooOld = lines.FirstOrDefault(line => line.Contains("GLIBCXX", StringComparison.Ordinal));
            return (false, $"Training needs libtorch, which cannot be loaded: {(tooOld is null ? lines[0] : Fix)} ({tooOld ?? e.GetType().Name}). Verbs that do not train work without it.");
        }
    }

    /// <summary>Throws in words where it cannot.</summary>
    internal static void Require()
    {
        if (Check() is (false, var words))
        {
            throw new InputException(words);
        }
    }
}
