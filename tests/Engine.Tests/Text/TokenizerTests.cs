using System.IO.Compression;
using System.Text.Json;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

internal sealed class TokenizerTests
{
    private static readonly Lazy<Tokenizer> Full = new(LoadFull);

    [Test]
    public void Every_golden_string_has_the_golden_ids()
    {
        using var stream = new GZipStream(File.OpenRead(TestFiles.GoldenFile("tokenizer/strings.json.gz")), CompressionMode.Decompress);
        using var strings = JsonDocument.Parse(stream);
        var wrong = new List<string>();
        var count = 0;
        foreach (var entry in strings.RootElement.EnumerateArray())
        {
            var text = entry.GetProperty("text").GetString()!;
            var expected = entry.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32());
            count++;
            if (!Full.Value.EncodeWithSpecial(text).SequenceEqual(expected))
            {
                wrong.Add($"{JsonSerializer.Serialize(text)}: {string.Join(" ", Full.Value.EncodeWithSpecial(text))} instead of {string.Join(' ', expected)}");
            }
        }

        using (Assert.EnterMultipleScope())
        {
            Assert.That(count, Is.EqualTo(1031));
            Assert.That(wrong, Is.Empty);
        }
    }

    internal static Tokenizer LoadFull()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "tokenizer.json");
        using (var packed = new GZipStream(File.OpenRead(TestFiles.GoldenFile("tokenizer/qwen2-vl.tokenizer.json.gz")), CompressionMode.Decompress))
        using (var unpacked = File.Create(file))
        {
            packed.CopyTo(unpacked);
        }

        return Tokenizer.Load(file);
    }
}
