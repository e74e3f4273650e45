using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn;

[TestFixture]
internal sealed class RunFolderTests
{
    [Test]
    public void AFolderIsMadeAndHeldByOne([Values] bool resume)
    {
        var path = Path.Combine(TestFiles.NewFolder(), "a", "b");
        using (var held = RunFolder.Open(path, mayHoldResults: false))
        {
            Assert.That(() => RunFolder.Open(path, resume), Throws.InstanceOf<InputException>().With.Message.Contains(path).And.Message.Contains("in use"));
            File.WriteAllText(held.File("metrics.jsonl"), "");
            Assert.That(() => RunFolder.Open(path, resume), Throws.InstanceOf<InputException>().With.Message.Contains("in use"));
        }

        Assert.That(Directory.GetFileSystemEntries(path), Has.Length.EqualTo(1), "no lock is left");
        using var again = RunFolder.Open(path, mayHoldResults: true);
        Assert.That(again.Path, Is.EqualTo(path));
    }

    [Test]
    public void ResultsAreNotWrittenOver()
    {
        var path = TestFiles.NewFolder();
        File.WriteAllText(Path.Combine(path, "notes.txt"), "mine");
        Assert.That(() => RunFolder.Open(path, mayHoldResults: false), Throws.InstanceOf<InputException>().With.Message.Contains("not empty"));
        Assert.That(Directory.GetFileSystemEntries(path), Has.Length.EqualTo(1));
        RunFolder.Open(path, mayHoldResults: true).Dispose();
    }

    [Test]
    public void AFileInThePlaceOfTheFolderIsAnError()
    {
        var path = Path.Combine(TestFiles.NewFolder(), "file");
        File.WriteAllText(path, "");
        Assert.That(() => RunFolder.Open(path, mayHoldResults: false), Throws.InstanceOf<InputException>().With.Message.Contains(path));
    }

    [TestCase("")]
    [TestCase(" ")]
    public void NoFolderIsAnError(string path) => Assert.That(() => RunFolder.Open(path, false), Throws.InstanceOf<InputException>().With.Message.Contains("--out"));

    [Test]
    public void AFileIsWrittenWholeOrNotAtAll()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "metrics.json");
        AtomicFile.WriteText(file, "before");
        Assert.That(
            () => AtomicFile.Write(file, stream =>
            {
                stream.Write("half"u8);
                throw new IOException("No space left on device.");
            }),
            Throws.InstanceOf<InputException>().With.Message.Contains(file));
        Assert.That(File.ReadAllText(file), Is.EqualTo("before"));
        Assert.That(Directory.GetFiles(Path.GetDirectoryName(file)!), Has.Length.EqualTo(1));
        AtomicFile.WriteText(file, "after");
        Assert.That(File.ReadAllText(file), Is.EqualTo("after"));
    }
}
