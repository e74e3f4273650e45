using LrIad.Engine;

namespace LrIad.Cli;

/// <summary>The model and data that come with the project.</summary>
internal static class BundledSample
{
    /// <summary>A folder of samples/, looked for beside the program and in the folders above it, then in those above the working folder.</summary>
    public static string Find(string name) => TryFind(name)
        ?? throw new InputException($"--sample: samples/{name} was not found beside the program or above the working folder. Run it from a clone of the project.");

    public static string? TryFind(string name) =>
        Above(AppContext.BaseDirectory).Concat(Above(Directory.GetCurrentDirectory())).Select(folder => Path.Combine(folder, "samples", name)).FirstOrDefault(Directory.Exists) is { } found
            ? Path.GetRelativePath(Directory.GetCurrentDirectory(), found)
            : null;

    private static IEnumerable<string> Above(string folder)
    {
        for (var current = new DirectoryInfo(folder); current is not null; current = current.Parent)
        {
            yield return current.FullName;
        }
    }
}
