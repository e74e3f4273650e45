using LrIad.Engine;
using TorchSharp;

namespace LrIad.Learn;

/// <summary>Whether libtorch, which training alone needs, can be loaded here.</summary>
public static class LibTorch
{
    private const string Fix =
        "Training needs libtorch, whose native part needs a libstdc++ with GLIBCXX_3.4.32 (Debian 13, Ubuntu 24.04 and later have it). On Debian 12 run: sudo ./build.sh setup. All other verbs work without it.";

    /// <summary>Its version, or what is wrong and how to mend it.</summary>
    public static (bool Works, string Words) Check()
    {
        try
        {
            using var probe = torch.zeros(1);
            return (true, $"libtorch through TorchSharp {typeof(torch).Assembly.GetName().Version}");
        }
        catch (Exception e) when (e is TypeInitializationException or NotSupportedException or DllNotFoundException or BadImageFormatException or EntryPointNotFoundException)
        {
            return (false, $"{Fix} ({(e.InnerException ?? e).Message.Split('\n')[0]})");
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
