using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>References and overlaps, on folders of small files whose contents are known.</summary>
[TestFixture]
internal sealed class TestSetTests
{
    private static readonly string[] Layout =
        ["nut/train/good/0.png", "nut/train/good/1.png", "nut/train/good/2.png", "nut/test/good/3.png", "nut/test/bent/4.png", "bolt/test/good/5.png", "bolt/test/good/6.png", "bolt/test/crack/7.png"];

    [Test]
    public void AReferenceComesFromTheTrainSplitElseFromTheTestAndIsNotJudged()
    {
        var root = Folder(Layout);
        var set = Read(new DataSource(root, Split: "test"), "auto");
        Assert.Multiple(() =>
        {
            Assert.That(set.References["nut"], Does.StartWith(Path.Combine(root, "nut", "train", "good")));
            Assert.That(set.References["bolt"], Does.StartWith(Path.Combine(root, "bolt", "test", "good")), "bolts have no train split");
            Assert.That(Names(set).Append(Path.GetFileName(set.References["bolt"])), Is.EquivalentTo(new[] { "3.png", "4.png", "5.png", "6.png", "7.png" }));
            Assert.That(set.Hashes, Has.Count.EqualTo(set.Samples.Count));
        });
    }

    [Test]
    public void WhereAllIsJudgedATrainImageIsLeftOut()
    {
        var root = Folder(Layout);
        var set = Read(new DataSource(root), "auto");
        Assert.That(set.References["nut"], Does.Contain(Path.Combine("nut", "train")));
        Assert.That(Names(set), Has.Length.EqualTo(6).And.No.Member(Path.GetFileName(set.References["nut"])).And.No.Member(Path.GetFileName(set.References["bolt"])));
    }

    [Test]
    public void TheChoiceFollowsFromTheSeedAndTheCategoryAlone()
    {
        var root = Folder(Layout);
        string Nut(ulong seed, params string[]? these) => Read(new DataSource(root, Split: "test", Categories: these), "auto", seed).References["nut"];
        Assert.That(Nut(4, null), Is.EqualTo(Nut(4, "nut")));
        Assert.That(Enumerable.Range(0, 30).Select(seed => Nut((ulong)seed, null)).Distinct().Count(), Is.EqualTo(3), "each has its turn");
    }

    [Test]
    public void ACopyOfTheReferenceIsNotJudgedEither()
    {
        var root = Folder(Layout);
        var copy = Path.Combine(TestFiles.NewFolder(), "other.png");
        File.Copy(Path.Combine(root, "nut", "test", "good", "3.png"), copy);
        var set = Read(new DataSource(root, Split: "test", Categories: ["nut"]), copy);
        Assert.That((set.References["nut"], string.Join(' ', Names(set))), Is.EqualTo((copy, "4.png")));
    }

    [Test]
    public void ALimitCountsWhatIsJudged() => Assert.That(TestSet.Read(new DataSource(Folder(Layout)), "auto", 0, 5, default).Samples, Has.Count.EqualTo(5));

    [Test]
    public void WhatIsWrongIsTold()
    {
        var root = Folder("nut/good/0.png", "nut/bent/1.png", "bolt/defect/2.png");
        string Message(string reference, params string[]? these) => Assert.Throws<InputException>(() => Read(new DataSource(root, Categories: these), reference))!.Message;
        Assert.Multiple(() =>
        {
            Assert.That(Message("auto", null), Does.Contain("'bolt'").And.Contain("--without-categories"));
            Assert.That(Message("some.png", null), Does.Contain("2 categories").And.Contain("--categories"));
            Assert.That(Message("no-such.png", "nut"), Does.Contain("no-such.png"));
        });
    }

    [Test]
    public void OverlapWithTrainingIsByContent()
    {
        var set = Read(new DataSource(Folder(Layout), Split: "test"), null);
        var adapter = TestFiles.NewFolder();
        Assert.That((set.OverlapWith((string?)null), set.OverlapWith(adapter)!.Checked, set.OverlapWith(adapter)!.Images), Is.EqualTo(((TrainingOverlap?)null, false, (int?)null)));
        Assert.That(set.OverlapWith(adapter)!.Reason, Does.Contain(ImageHashes.FileName));

        // Contents are the names' numbers: 3 and 7 are under test here, 0 is not.
        var trained = ImageHashes.Of([.. Directory.GetFiles(Folder("x/0.png", "x/3.png", "x/7.png", "x/9.png"), "*", SearchOption.AllDirectories)], default).Values;
        AtomicFile.Write(Path.Combine(adapter, ImageHashes.FileName), stream => ImageHashes.Write(stream, trained));
        Assert.That((set.OverlapWith(adapter)!.Checked, set.OverlapWith(adapter)!.Images), Is.EqualTo((true, (int?)2)));
    }

    private static TestSet Read(DataSource source, string? reference, ulong seed = 0) => TestSet.Read(source, reference, seed, 0, default);

    private static string[] Names(TestSet set) => [.. set.Samples.Select(sample => Path.GetFileName(sample.ImagePath))];

    private static string Folder(params string[] files)
    {
        var root = TestFiles.NewFolder();
        foreach (var file in files)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(root, file))!);
            File.WriteAllText(Path.Combine(root, file), "image " + Path.GetFileNameWithoutExtension(file));
        }

        return root;
    }
}
