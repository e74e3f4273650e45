using System.Security.Cryptography;
using LrIad.Engine.Data;

namespace LrIad.Engine.Tests.Data;

[TestFixture]
internal sealed class ImageHashesTests
{
    [Test]
    public void OfEachFileOnceAndOfNoneThatCannotBeRead()
    {
        var folder = TestFiles.NewFolder();
        var random = new Random(1);
        var files = Enumerable.Range(0, 40).ToDictionary(i => Path.Combine(folder, $"{i}.png"), i =>
        {
            var bytes = new byte[i * 7919];
            random.NextBytes(bytes);
            return bytes;
        });
        foreach (var (file, bytes) in files)
        {
            File.WriteAllBytes(file, bytes);
        }

        var hashes = ImageHashes.Of([.. files.Keys, .. files.Keys.Take(3), Path.Combine(folder, "gone.png")], default);
        Assert.That(hashes, Is.EquivalentTo(files.ToDictionary(file => file.Key, file => Convert.ToHexStringLower(SHA256.HashData(file.Value)))));
    }

    [Test]
    public void SharedByContent() => Assert.That(
        ImageHashes.Shared(new Dictionary<string, string> { ["b"] = "1", ["a"] = "2", ["c"] = "3", ["d"] = "1" }, ["1", "3", "4"]), Is.EqualTo(new[] { "b", "c", "d" }));

    [Test]
    public void WrittenAndReadBack()
    {
        var folder = TestFiles.NewFolder();
        string[] hashes = [new('b', 64), new('a', 64), new('b', 64)];
        Assert.That(ImageHashes.Read(folder), Is.Null);
        using (var stream = File.Create(Path.Combine(folder, ImageHashes.FileName)))
        {
            ImageHashes.Write(stream, hashes);
        }

        Assert.That(ImageHashes.Read(folder), Is.EqualTo(new[] { hashes[1], hashes[0] }));
        File.AppendAllText(Path.Combine(folder, ImageHashes.FileName), "crooked\n");
        Assert.That(() => ImageHashes.Read(folder), Throws.InstanceOf<InputException>().With.Message.Contains("line 3"));
    }

    [Test]
    public void CancelledItStops()
    {
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Assert.That(() => ImageHashes.Of(["a.png"], cancelled.Token), Throws.InstanceOf<OperationCanceledException>());
    }
}
