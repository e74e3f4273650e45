using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>The project's own small model, and images to ask it about.</summary>
internal static class Sample
{
    private static readonly string Root = FindRoot();

    /// <summary>The folder of the images.</summary>
    public static string Folder { get; } = Path.Combine(Root, "samples", "parts-mvtec");

    /// <summary>Some images.</summary>
    public static IReadOnlyList<byte[]> Images { get; } =
        [.. Directory.GetFiles(Folder, "*.png", SearchOption.AllDirectories).Order(StringComparer.Ordinal).Where((_, i) => i % 12 == 0).Select(File.ReadAllBytes)];

    /// <summary>The model on the CPU.</summary>
    public static InferenceEngine Load(EngineLimits? limits = null) =>
        InferenceEngine.Load(new EngineOptions { Model = Path.Combine(Root, "samples", "tiny-qwen2-vl"), Device = "cpu", Limits = limits ?? new EngineLimits() });

    private static string FindRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "LrIad.sln")))
        {
            folder = folder.Parent;
        }

        return folder?.FullName ?? throw new FileNotFoundException($"No LrIad.sln above {AppContext.BaseDirectory}.");
    }
}
