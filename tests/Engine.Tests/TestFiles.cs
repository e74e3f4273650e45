using System.Formats.Tar;
using System.IO.Compression;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests;

/// <summary>Where tests find the project's own files, and the golden archive, unpacked once.</summary>
[SetUpFixture]
internal sealed class TestFiles
{
    private static readonly Lazy<string> UnpackedGoldens = new(Unpack);
    private static readonly Lazy<string> FoundRoot = new(FindRoot);

    // Not before it is asked for: the tests of the GPU run from a bundle too, without the project around them.
    public static string Root => FoundRoot.Value;

    public static string TinyModel => Path.Combine(Root, "samples", "tiny-qwen2-vl");

    public static string Sample(string name) => Path.Combine(Root, "samples", name);

    public static string GoldenFile(string name) => Path.Combine(Root, "tests", "Engine.Tests", "Golden", name);

    /// <summary>The folder of tiny.tar.gz: case0 … case5, adapter, manifest.json.</summary>
    public static string Goldens => UnpackedGoldens.Value;

    public static SafeTensors Golden(string folder) => SafeTensors.Open(Path.Combine(Goldens, folder, "golden.safetensors"));

    /// <summary>A new, empty folder that goes with the test run.</summary>
    public static string NewFolder()
    {
        var folder = Path.Combine(Scratch, Guid.NewGuid().ToString("N"));
        Directory.CreateDirectory(folder);
        return folder;
    }

    private static string Scratch { get; } = Path.Combine(Path.GetTempPath(), $"lriad-tests-{Environment.ProcessId}");

    [OneTimeTearDown]
    public void RemoveScratch()
    {
        if (Directory.Exists(Scratch))
        {
            Directory.Delete(Scratch, recursive: true);
        }
    }

    private static string Unpack()
    {
        var folder = NewFolder();
        using var archive = new GZipStream(File.OpenRead(GoldenFile("tiny.tar.gz")), CompressionMode.Decompress);
        TarFile.ExtractToDirectory(archive, folder, overwriteFiles: true);
        return folder;
    }

    private static string FindRoot()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "LrIad.sln")))
            {
                return folder.FullName;
            }
        }

        throw new FileNotFoundException($"No LrIad.sln above {AppContext.BaseDirectory}.");
    }
}
