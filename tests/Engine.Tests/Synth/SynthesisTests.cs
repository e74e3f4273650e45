using System.Security.Cryptography;
using System.Text.Json;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Synth;
using LrIad.Engine.Tests.Data;

namespace LrIad.Engine.Tests.Synth;

/// <summary>Synthetic data sets from the bundled images: what is in them, what is said of them, and that they can be made again.</summary>
internal sealed class SynthesisTests
{
    private static readonly string Parts = TestFiles.Sample("parts-visa");

    // JPEG images of objects.
    private static SynthConfig Config(string method) => new()
    {
        Data = new DataSource(Parts),
        Method = method,
        Categories = ["cookie", "pcb"],
        PerImage = 0.3,
        Seed = 5,
        Out = Path.Combine(TestFiles.NewFolder(), "set"),
    };

    private static SynthRecord Run(SynthConfig config) => Synthesis.Run(config, null, CancellationToken.None);

    private static string Fails(SynthConfig config)
    {
        var message = Assert.Throws<InputException>(() => Run(config))!.Message;
        Assert.That(Directory.Exists(config.Out) && Directory.EnumerateFileSystemEntries(config.Out).Any(), Is.False, "nothing is written");
        Assert.That(Directory.Exists(config.Out + AtomicFile.TemporarySuffix), Is.False, "nothing is left");
        return message;
    }

    private static Dictionary<string, string> Contents(string folder) => Directory.GetFiles(folder, "*", SearchOption.AllDirectories)
        .ToDictionary(file => Path.GetRelativePath(folder, file), file => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file))));

    [TestCase("cutpaste")]
    [TestCase("nsa")]
    public void TheSameSeedMakesTheSameBytes(string method)
    {
        var (alone, parallel, other, few) = (Config(method) with { Threads = 1 }, Config(method) with { Threads = 4 }, Config(method) with { Seed = 6 }, Config(method) with { Categories = ["pcb"] });
        foreach (var config in new[] { alone, parallel, other, few })
        {
            Run(config);
        }

        var (first, second) = (Contents(alone.Out), Contents(other.Out));
        Assert.That(Contents(parallel.Out), Is.EquivalentTo(first));
        var (defect, normal) = (Path.Combine("pcb", "test", method, "00000.png"), Path.Combine("pcb", "train", "good", "00000.png"));
        Assert.That(second[defect], Is.Not.EqualTo(first[defect]), "another seed");
        Assert.That(second[normal], Is.EqualTo(first[normal]));
        Assert.That(Contents(few.Out)[defect], Is.EqualTo(first[defect]), "whatever else is made");
    }

    [TestCase("cutpaste")]
    [TestCase("nsa")]
    public void OnlyThePatchIsChangedAndAllIsOnRecord(string method)
    {
        var config = Config(method);
        Run(config);
        var record = JsonSerializer.Deserialize<SynthRecord>(File.ReadAllBytes(Path.Combine(config.Out, "synth.json")), ConfigRules.Json)!;
        var files = record.Normal.Select(normal => normal.File).Concat(record.Defects.Select(defect => defect.File)).Append("synth.json");
        Assert.That(Contents(config.Out).Keys.Select(file => file.Replace('\\', '/')), Is.EquivalentTo(files));
        Assert.That((record.Tool, record.Settings.Method, record.Settings.Seed, record.Settings.PerImage), Is.EqualTo(("lriad-fast", method, 5UL, 0.3)));
        foreach (var normal in record.Normal)
        {
            Assert.That(ImageFile.Read(Path.Combine(config.Out, normal.File)).Data, Is.EqualTo(ImageFile.Read(Path.Combine(Parts, normal.Source)).Data), normal.File);
            Assert.That(normal.Sha256, Is.EqualTo(Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(Path.Combine(Parts, normal.Source))))));
            Assert.That(normal.Source, Does.Contain("/Normal/"));
        }

        var hashes = record.Normal.ToDictionary(normal => normal.Source, normal => normal.Sha256);
        foreach (var defect in record.Defects)
        {
            Assert.That((defect.TargetSha256, defect.SourceSha256), Is.EqualTo((hashes[defect.Target], hashes[defect.Source])));
            Assert.That(defect.Source == defect.Target, Is.EqualTo(method == "cutpaste"));
            Assert.That(Path.GetDirectoryName(defect.Source), Is.EqualTo(Path.GetDirectoryName(defect.Target)), "the same category");
            CheckPatch(Path.Combine(config.Out, defect.File), Path.Combine(Parts, defect.Target), defect.Patch, config);
        }
    }

    private static void CheckPatch(string file, string target, SynthPatch patch, SynthConfig config)
    {
        var (before, after) = (ImageFile.Read(target), ImageFile.Read(file));
        var region = Region.Inside(patch.Polygon, before.Width, before.Height);
        var change = 0.0;
        for (var i = 0; i < before.Data.Length; i++)
        {
            var difference = Math.Abs(before.Data[i] - after.Data[i]);
            change += difference;
            Assert.That(difference == 0 || region.Has(i / 3 % before.Width, i / 3 / before.Width), Is.True, $"{file} at {i}");
        }

        Assert.Multiple(() =>
        {
            Assert.That(new[] { region.X, region.Y, region.Width, region.Height, region.Count }, Is.EqualTo(patch.Box.Append(patch.Pixels)));
            Assert.That(patch.MeanChange, Is.EqualTo(change / (3 * region.Count)).Within(0.01).And.AtLeast(config.MinChange));
            var found = Foreground.Estimate(before);
            Assert.That(patch.OnObject, Is.EqualTo(region.Pixels().Count(pixel => found.Has(pixel.X, pixel.Y)) / (double)region.Count).Within(1e-3).And.AtLeast(config.OnObject));
        });
    }

    [Test]
    public void ARectangleIsThePixelsOfAnotherPlace()
    {
        var config = Config("cutpaste") with { Scars = 0, Jitter = 0 };
        foreach (var defect in Run(config).Defects)
        {
            var (before, after, patch) = (ImageFile.Read(Path.Combine(Parts, defect.Target)), ImageFile.Read(Path.Combine(config.Out, defect.File)), defect.Patch);
            var (dx, dy) = ((int)(patch.SourceCentre[0] - patch.TargetCentre[0]), (int)(patch.SourceCentre[1] - patch.TargetCentre[1]));
            var (area, ratio) = (patch.Box[2] * patch.Box[3] / (double)(before.Width * before.Height), patch.Box[2] / (double)patch.Box[3]);
            Assert.That((patch.Shape, patch.Pixels), Is.EqualTo(("rectangle", patch.Box[2] * patch.Box[3])));
            Assert.That(area, Is.InRange(0.018, 0.16), "the paper's areas, to whole pixels");
            Assert.That(ratio, Is.InRange(0.25, 3.8), "and ratios");
            foreach (var (x, y) in Region.Inside(patch.Polygon, before.Width, before.Height).Pixels())
            {
                Assert.That(after.Data.AsSpan(3 * ((y * after.Width) + x), 3).SequenceEqual(before.Data.AsSpan(3 * (((y + dy) * before.Width) + x + dx), 3)), Is.True, $"{defect.File}: {x}, {y}");
            }
        }
    }

    [Test]
    public void TheLayoutIsReadAsItWasMeant([Values("cutpaste", "nsa")] string method, [Values(null, 7)] int? count)
    {
        var config = Config(method) with { Count = count };
        var record = Run(config);
        var source = DataStats.Of(ImageFolder.Read(new DataSource(Parts)).Samples);
        foreach (var (category, figures) in DataStats.Of(ImageFolder.Read(new DataSource(config.Out)).Samples).Categories)
        {
            var normal = source.Categories[category].Counts.Normal;
            Assert.That(figures.Counts.Normal, Is.EqualTo(normal));
            Assert.That(figures.Counts.Defect + record.NotMade.Count(failure => failure.Category == category), Is.EqualTo(count ?? (int)Math.Ceiling(0.3 * normal)));
        }

        var data = ImageFolder.Read(new DataSource(config.Out, "mvtec"));
        Assert.That(data.Problems, Is.Empty);
        Assert.That(data.Samples.Select(sample => sample.Object).Distinct(), Is.EqualTo(new[] { "cookie", "pcb" }));
        Assert.That(data.Samples.All(sample => sample.Defect == (sample.Split == "test")), Is.True);
        Assert.That(record.DefectsLeftOut, Is.EqualTo(source.All.Counts.Defect));
    }

    [Test]
    public void MoreDefectsThanImagesUseEveryImageAlike()
    {
        var record = Run(Config("cutpaste") with { Categories = ["cookie"], PerImage = 2.5, MinChange = 1 });
        Assert.That(record.NotMade, Is.Empty);
        Assert.That(record.Defects.GroupBy(defect => defect.Target).Select(group => group.Count()), Has.Exactly(record.Normal.Count).Items.And.All.InRange(2, 3));
    }

    [Test]
    public void ATextureHasNoObject()
    {
        var record = Run(Config("nsa") with { Data = new DataSource(TestFiles.Sample("parts-mvtec")), Categories = ["fabric"], Count = 3, MinChange = 1 });
        Assert.That(record.Defects.Select(defect => defect.WholeImage), Has.Exactly(3).Items.And.All.True);
    }

    [Test]
    public void ImagesOfDifferentSizesAndBadOnes()
    {
        var root = TestFiles.NewFolder();
        for (var i = 0; i < 3; i++)
        {
            var side = 60 + (50 * i);
            Pictures.WritePng(Folder($"{i}.png"), side, side + 10, (x, y) => x > side / 4 && x < side * 3 / 4 && y > side / 4 && y < side ? ((byte)(40 + (60 * (x / 9 % 3))), (byte)(50 * (y / 7 % 4)), (byte)90) : ((byte)200, (byte)200, (byte)190));
        }

        Pictures.WritePng(Folder("small.png"));
        Files.Write(Folder("torn.png"), "no image");
        var config = new SynthConfig { Data = new DataSource(root), Method = "nsa", Count = 9, Out = Path.Combine(TestFiles.NewFolder(), "set") };
        var record = Run(config);
        Assert.That((record.Normal.Count, record.Defects.Count + record.NotMade.Count), Is.EqualTo((3, 9)));
        Assert.That(record.Defects, Is.Not.Empty);
        Assert.That(record.Skipped.Select(skipped => Path.GetFileName(skipped.ImagePath)), Is.EqualTo(new[] { "small.png", "torn.png" }));

        string Folder(string name) => Path.Combine(root, "nut", "train", "good", name);
    }

    [Test]
    public void OneImageIsEnoughToCutFromAndNotToBlendFrom()
    {
        var root = TestFiles.NewFolder();
        Directory.CreateDirectory(Path.Combine(root, "good"));
        File.Copy(Directory.GetFiles(Path.Combine(Parts, "pcb/Data/Images/Normal"))[0], Path.Combine(root, "good", "0.jpg"));
        Assert.That(Fails(Config("nsa") with { Data = new DataSource(root), Categories = [] }), Does.Contain("one normal image").And.Contain("cutpaste"));
        Assert.That(Run(Config("cutpaste") with { Data = new DataSource(root), Categories = [] }).Defects, Has.Count.EqualTo(1));
    }

    [Test]
    public void WhatCannotBeMadeIsSaid()
    {
        var root = TestFiles.NewFolder();
        Pictures.WritePng(Path.Combine(root, "nut/test/bent/0.png"));
        Assert.That(Fails(Config("cutpaste") with { Data = new DataSource(root), Categories = [] }), Does.Contain("'nut'").And.Contain("no normal image"));
        Pictures.WritePng(Path.Combine(root, "nut/train/good/0.png"));
        Assert.That(Fails(Config("cutpaste") with { Data = new DataSource(root), Categories = [] }), Does.Contain("no normal image that can be used"), "too small");
        Pictures.WritePng(Path.Combine(root, "nut/train/good/0.png"), 64, 64, (_, _) => (90, 90, 90));
        Assert.That(Fails(Config("cutpaste") with { Data = new DataSource(root), Categories = [], Jitter = 0 }), Does.Contain("No defect could be made").And.Contain("--min-change"), "nothing to see");
        Assert.That(Fails(Config("nsa") with { Categories = ["cookie", "gear"] }), Does.Contain("'gear'").And.Contain("bottle_cap"));
        var csv = Files.Write(Path.Combine(root, "list.csv"), "image,label,object\nnut/train/good/0.png,normal,../../nut\n");
        Assert.That(Fails(Config("cutpaste") with { Data = new DataSource(csv), Categories = [] }), Does.Contain("../../nut"));
    }

    [Test]
    public void AFolderThatHoldsSomethingIsLeftAlone()
    {
        var config = Config("cutpaste");
        Files.Write(Path.Combine(config.Out, "notes.txt"), "mine");
        Assert.That(Assert.Throws<InputException>(() => Run(config))!.Message, Does.Contain(config.Out).And.Contain("--out"));
        Assert.That(Directory.GetFileSystemEntries(config.Out).Select(Path.GetFileName), Is.EqualTo(new[] { "notes.txt" }));
    }

    [Test]
    public void StoppedAnywhereItLeavesNothing([Values(1, 20, 60)] int images)
    {
        var config = Config("nsa");
        using var stop = new CancellationTokenSource();
        var progress = new Stopper(report =>
        {
            if (report.Done == images)
            {
                stop.Cancel();
            }
        });
        Assert.Throws<OperationCanceledException>(() => Synthesis.Run(config, progress, stop.Token));
        Assert.That(Directory.GetFileSystemEntries(Path.GetDirectoryName(config.Out)!), Is.Empty);
    }

    [Test]
    public void WhatAKilledRunLeftIsCleared()
    {
        var config = Config("cutpaste");
        Files.Write(Path.Combine(config.Out + AtomicFile.TemporarySuffix, "gear", "train", "good", "00000.png"), "half");
        Run(config);
        Assert.That(Directory.GetDirectories(config.Out).Select(Path.GetFileName), Is.EquivalentTo(new[] { "cookie", "pcb" }));
        Assert.That(Directory.GetFileSystemEntries(Path.GetDirectoryName(config.Out)!), Is.EqualTo(new[] { config.Out }));
    }

    private sealed class Stopper(Action<EvalProgress> report) : IProgress<EvalProgress>
    {
        public void Report(EvalProgress value) => report(value);
    }
}
