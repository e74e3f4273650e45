using System.IO.Compression;
using System.Text.Json;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

/// <summary>Qwen2-VL's full tokenizer, unpacked and loaded once.</summary>
internal static class QwenTokenizer
{
    private static readonly Lazy<string> Unpacked = new(Unpack);
    private static readonly Lazy<Tokenizer> Loaded = new(() => Tokenizer.Load(Unpacked.Value));

    public static string File => Unpacked.Value;

    public static Tokenizer Full => Loaded.Value;

    /// <summary>A gzipped JSON file of Golden/tokenizer.</summary>
    public static T Golden<T>(string name)
    {
        using var stream = new GZipStream(System.IO.File.OpenRead(TestFiles.GoldenFile(Path.Combine("tokenizer", name))), CompressionMode.Decompress);
        return JsonSerializer.Deserialize<T>(stream, JsonSerializerOptions.Web)!;
    }

    private static string Unpack()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "tokenizer.json");
        using var packed = new GZipStream(System.IO.File.OpenRead(TestFiles.GoldenFile("tokenizer/qwen2-vl.tokenizer.json.gz")), CompressionMode.Decompress);
        using var plain = System.IO.File.Create(file);
        packed.CopyTo(plain);
        return file;
    }
}
