namespace LrIad.Cli;

/// <summary>Checks of files that results go to: what would fail after minutes of work is told before.</summary>
internal static class Files
{
    /// <summary>A file that could be written.</summary>
    public static string Writable(Values values) =>
        Directory.Exists(Path.GetDirectoryName(Path.GetFullPath(values.Text))) && !Directory.Exists(values.Text) ? values.Text : throw values.Bad($"must name a file in a folder that exists, not '{values.Text}'");
}
