using System.Formats.Tar;
using System.IO.Compression;
using System.Text.Json;

namespace LrIad.Engine.Tests.Data;

/// <summary>One image of images.tar.gz with what Pillow reads from it and resizes it to.</summary>
internal sealed record PillowVector(string Name, byte[] File, int Width, int Height, byte[] Pixels, IReadOnlyList<(int Width, int Height, byte[] Pixels)> Resized)
{
    private static readonly Lazy<IReadOnlyList<PillowVector>> Loaded = new(Load);

    public static IReadOnlyList<PillowVector> All => Loaded.Value;

    /// <summary>The image as a file in a new folder.</summary>
    public string Write() => Files.Write(Path.Combine(TestFiles.NewFolder(), Name), File);

    public override string ToString() => Name;

    private static List<PillowVector> Load()
    {
        var members = new Dictionary<string, byte[]>();
        using var unpacked = new GZipStream(System.IO.File.OpenRead(TestFiles.GoldenFile("images/images.tar.gz")), CompressionMode.Decompress);
        using var archive = new TarReader(unpacked);
        while (archive.GetNextEntry() is { } entry)
        {
            using var content = new MemoryStream();
            entry.DataStream?.CopyTo(content);
            members[entry.Name] = content.ToArray();
        }

        using var index = JsonDocument.Parse(members["index.json"]);
        return [.. index.RootElement.EnumerateArray().Select(item => new PillowVector(
            item.GetProperty("file").GetString()!,
            members[item.GetProperty("file").GetString()!],
            item.GetProperty("width").GetInt32(),
            item.GetProperty("height").GetInt32(),
            members[item.GetProperty("pixels").GetString()!],
            [.. item.GetProperty("resized").EnumerateArray().Select(size => (size[0].GetInt32(), size[1].GetInt32(), members[size[2].GetString()!]))]))];
    }
}

/// <summary>Small help with files.</summary>
internal static class Files
{
    public static string Write(string file, byte[] content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllBytes(file, content);
        return file;
    }

    public static string Write(string file, string content) => Write(file, System.Text.Encoding.UTF8.GetBytes(content));
}
