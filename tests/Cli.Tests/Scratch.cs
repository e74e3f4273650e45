namespace LrIad.Cli.Tests;

/// <summary>Folders that go with the test run.</summary>
[SetUpFixture]
internal sealed class Scratch
{
    private static readonly string Root = Path.Combine(Path.GetTempPath(), $"lriad-cli-tests-{Environment.ProcessId}");

    public static string NewPath() => Path.Combine(Root, Guid.NewGuid().ToString("N"));

    public static string NewFolder() => Directory.CreateDirectory(NewPath()).FullName;

    public static string NewFile(string name, string text)
    {
        var file = Path.Combine(NewFolder(), name);
        File.WriteAllText(file, text);
        return file;
    }

    /// <summary>A plain data folder with so many of the sample's images of each class.</summary>
    public static string NewData(int normal, int defect)
    {
        var (folder, source) = (NewFolder(), Path.Combine(Project.Sample("parts-visa"), "cookie", "Data", "Images"));
        foreach (var (from, to, count) in new[] { ("Normal", "normal", normal), ("Anomaly", "defect", defect) })
        {
            Directory.CreateDirectory(Path.Combine(folder, to));
            foreach (var file in Directory.GetFiles(Path.Combine(source, from)).Order(StringComparer.Ordinal).Take(count))
            {
                File.Copy(file, Path.Combine(folder, to, Path.GetFileName(file)));
            }
        }

        return folder;
    }

    [OneTimeTearDown]
    public void Remove()
    {
        if (Directory.Exists(Root))
        {
            Directory.Delete(Root, recursive: true);
        }
    }
}
