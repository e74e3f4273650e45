namespace LrIad.Cli.Tests;

/// <summary>Where the project's own files lie.</summary>
internal static class Project
{
    public static string Root { get; } = FindRoot();

    public static string Sample(string name) => Path.Combine(Root, "samples", name);

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
