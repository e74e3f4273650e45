using LrIad.Engine.Config;
using LrIad.Engine.Data;

namespace LrIad.Engine.Tests.Data;

/// <summary>Folders as people have them, right and wrong.</summary>
internal sealed class ImageFolderTests
{
    private static string Folder(params string[] images)
    {
        var root = TestFiles.NewFolder();
        foreach (var image in images)
        {
            Pictures.WritePng(Path.Combine(root, image));
        }

        return root;
    }

    // "path: object, defect or normal, split" of every sample, paths relative to the root.
    private static string[] Describe(string root, DataSet data) =>
        [.. data.Samples.Select(sample => $"{Path.GetRelativePath(root, sample.ImagePath)}: {sample.Object}, {(sample.Defect ? "defect" : "normal")}, {sample.Split}")];

    private static string Fails(string path, string layout = "auto", string split = "all") =>
        Assert.Throws<InputException>(() => ImageFolder.Read(new DataSource(path, layout, split)))!.Message;

    private static readonly string[] Mvtec = ["nut/train/good/0.png", "nut/test/good/1.PNG", "nut/test/bent/2.jpeg", "nut/test/bent/notes.txt", "bolt/test/crack/3.tiff", "bolt/train/good/4.bmp"];

    [TestCase("auto")]
    [TestCase("mvtec")]
    public void Mvtec_LabelsComeFromFolders(string layout)
    {
        var root = Folder(Mvtec);
        var data = ImageFolder.Read(new DataSource(root, layout));
        Assert.That(data.Layout, Is.EqualTo("mvtec"));
        Assert.That(data.Problems, Is.Empty);
        Assert.That(Describe(root, data), Is.EqualTo(new[]
        {
            "bolt/test/crack/3.tiff: bolt, defect, test", "bolt/train/good/4.bmp: bolt, normal, train",
            "nut/test/bent/2.jpeg: nut, defect, test", "nut/test/good/1.PNG: nut, normal, test", "nut/train/good/0.png: nut, normal, train",
        }));
        Assert.That(Describe(root, ImageFolder.Read(new DataSource(root, layout, "train"))), Is.EqualTo(new[] { "bolt/train/good/4.bmp: bolt, normal, train", "nut/train/good/0.png: nut, normal, train" }));
        Assert.That(ImageFolder.Read(new DataSource(root, layout, "test")).Samples, Has.Count.EqualTo(3));
    }

    [Test]
    public void Mvtec_ACategoryAloneIsADataSet()
    {
        var root = Folder(Mvtec);
        var category = Path.Combine(root, "nut") + Path.DirectorySeparatorChar;
        var data = ImageFolder.Read(new DataSource(category));
        Assert.That((data.Layout, data.Samples.Count), Is.EqualTo(("mvtec", 3)));
        Assert.That(data.Samples.Select(sample => sample.Object), Is.All.EqualTo("nut"));
    }

    [Test]
    public void Mvtec_NormalIsAsGoodAsGood()
    {
        var root = Folder("nut/train/normal/0.png", "nut/test/normal/1.png", "nut/test/defect/2.png");
        Assert.That(ImageFolder.Read(new DataSource(root)).Samples.Count(sample => sample.Defect), Is.EqualTo(1));
    }

    [Test]
    public void Mvtec_AFolderThatIsNoCategoryIsTold()
    {
        var root = Folder([.. Mvtec, "stray/5.png"]);
        var problem = ImageFolder.Read(new DataSource(root)).Problems.Single();
        Assert.That((Path.GetFileName(problem.ImagePath), problem.Reason), Is.EqualTo(("stray", "it is no category of this layout")));
    }

    private static readonly string[] Visa = ["pcb/Data/Images/Normal/0.JPG", "pcb/Data/Images/Normal/1.JPG", "pcb/Data/Images/Anomaly/0.JPG", "gum/Data/Images/Anomaly/2.JPG"];

    [Test]
    public void Visa_WithoutItsCsvHasNoSplits()
    {
        var root = Folder(Visa);
        var data = ImageFolder.Read(new DataSource(root));
        Assert.That(data.Layout, Is.EqualTo("visa"));
        Assert.That(Describe(root, data), Is.EqualTo(new[]
        {
            "gum/Data/Images/Anomaly/2.JPG: gum, defect, all", "pcb/Data/Images/Anomaly/0.JPG: pcb, defect, all",
            "pcb/Data/Images/Normal/0.JPG: pcb, normal, all", "pcb/Data/Images/Normal/1.JPG: pcb, normal, all",
        }));
        Assert.That(Fails(root, split: "train"), Does.Contain("no images of split 'train', only of 'all'").And.Contain("--split all"));
        Assert.That(ImageFolder.Read(new DataSource(Path.Combine(root, "pcb"))).Samples.Select(sample => sample.Object), Is.EqualTo(new[] { "pcb", "pcb", "pcb" }));
    }

    [Test]
    public void Visa_TheRowsOfItsCsvDecide()
    {
        var root = Folder(Visa);
        Files.Write(Path.Combine(root, "split_csv", "1cls.csv"), """
            object,split,label,image,mask
            pcb,train,normal,pcb/Data/Images/Normal/0.JPG,
            pcb,test,anomaly,pcb/Data/Images/Anomaly/0.JPG,pcb/Data/Masks/Anomaly/0.png
            pcb,test,anomaly,pcb/Data/Images/Anomaly/7.JPG,pcb/Data/Masks/Anomaly/7.png
            """);
        var data = ImageFolder.Read(new DataSource(root));
        Assert.That(Describe(root, data), Is.EqualTo(new[] { "pcb/Data/Images/Anomaly/0.JPG: pcb, defect, test", "pcb/Data/Images/Normal/0.JPG: pcb, normal, train" }));
        Assert.That(data.Problems.Single(), Is.EqualTo(new Skipped(Path.Combine(root, "pcb/Data/Images/Anomaly/7.JPG"), "line 4: the file does not exist")));
        Assert.That(Describe(root, ImageFolder.Read(new DataSource(root, Split: "train"))), Is.EqualTo(new[] { "pcb/Data/Images/Normal/0.JPG: pcb, normal, train" }));
    }

    [TestCase("normal", "defect")]
    [TestCase("good", "bad")]
    [TestCase("OK", "NG")]
    [TestCase("good", "scratched lid")]
    [TestCase("Normal", "Anomaly")]
    public void Plain_NamesOfFoldersAreLabels(string normal, string defect)
    {
        var root = Folder($"{normal}/0.webp", $"{normal}/1.png", $"{defect}/2.tif");
        var data = ImageFolder.Read(new DataSource(root));
        Assert.That((data.Layout, data.Samples.Count), Is.EqualTo(("folder", 3)));
        Assert.That(data.Samples.Single(sample => sample.Defect).ImagePath, Does.EndWith("2.tif"));
        Assert.That(data.Samples.Select(sample => (sample.Object, sample.Split)), Is.All.EqualTo((Path.GetFileName(root), "all")));
    }

    [Test]
    public void Plain_WithAFolderACategory()
    {
        var root = Folder("lid/normal/0.png", "lid/defect/1.png", "cap/good/0.png", "cap/dent/1.png", "cap/masks/1.png", "odd/defect/0.png", "odd/what/1.png");
        var data = ImageFolder.Read(new DataSource(root));
        Assert.That(Describe(root, data), Is.EqualTo(new[]
        {
            "cap/dent/1.png: cap, defect, all", "cap/good/0.png: cap, normal, all", "lid/defect/1.png: lid, defect, all", "lid/normal/0.png: lid, normal, all", "odd/defect/0.png: odd, defect, all",
        }));
        Assert.That(data.Problems.Single(), Is.EqualTo(new Skipped(Path.Combine(root, "odd", "what"), "its name is no known label")));
    }

    [Test]
    public void NothingToReadIsAnErrorThatSaysWhatWasLookedFor()
    {
        Assert.That(Fails(TestFiles.NewFolder()), Does.Contain("MVTec-AD").And.Contain("VisA").And.Contain("plain").And.Contain("manifest"));
        Assert.That(Fails(Folder("some/thing/0.png")), Does.Contain("none of the known layouts"));
        Assert.That(Fails("/no/such/folder"), Does.Contain("/no/such/folder does not exist"));
        Assert.That(Fails(Folder("good/readme.txt", "bad/notes.md")), Does.Contain("no labelled images").And.Contain("'folder'"));
        Assert.That(Fails(Folder(Mvtec), layout: "visa"), Does.Contain("no labelled images").And.Contain("'visa'").And.Contain("no category"));
        Assert.That(Fails(Folder(Mvtec), layout: "coco"), Does.Contain("Unknown layout 'coco'"));
        Assert.That(Fails(Folder(Mvtec), split: "val"), Does.Contain("Unknown split 'val'"));
        Assert.That(Fails(Folder([.. Mvtec, .. Visa])), Does.Contain("both").And.Contain("--layout"));
    }

    [Test]
    public void LinksThatLeadRoundInCirclesDoNot()
    {
        var root = Folder(Mvtec);
        Directory.CreateSymbolicLink(Path.Combine(root, "again"), root);
        Directory.CreateSymbolicLink(Path.Combine(root, "nut", "test", "again"), Path.Combine(root, "nut"));
        Directory.CreateSymbolicLink(Path.Combine(root, "self"), Path.Combine(root, "self"));
        File.CreateSymbolicLink(Path.Combine(root, "nut", "test", "bent", "gone.png"), Path.Combine(root, "gone.png"));
        var data = ImageFolder.Read(new DataSource(root));
        Assert.That(data.Samples, Has.Count.EqualTo(6));
        var gone = data.Samples.Single(sample => sample.ImagePath.EndsWith("gone.png", StringComparison.Ordinal));
        Assert.Throws<InputException>(() => ImageFile.Read(gone.ImagePath));
    }

    [Test]
    public void TheSamplesAreWhole()
    {
        var (visa, mvtec, large) = (Read("parts-visa"), Read("parts-mvtec"), Read("parts-visa-large"));
        Assert.That((visa.Layout, visa.Samples.Count, mvtec.Layout, mvtec.Samples.Count, large.Layout, large.Samples.Count), Is.EqualTo(("visa", 260, "mvtec", 240, "visa", 1250)));
        Assert.That(visa.Problems.Concat(mvtec.Problems).Concat(large.Problems), Is.Empty);
        Assert.That(DataStats.Of(large.Samples).All.Counts.DefectShare, Is.EqualTo(0.12).Within(0.001));

        static DataSet Read(string name) => ImageFolder.Read(new DataSource(TestFiles.Sample(name)));
    }

    [Test]
    public void StatsCountClassesAndCategories()
    {
        var stats = DataStats.Of([new("a", "nut", true, "all"), new("b", "nut", false, "all"), new("c", "nut", false, "all"), new("d", "bolt", false, "all")]);
        Assert.That((stats.All.Counts, stats.All.Counts.DefectShare), Is.EqualTo((new ClassCounts(1, 3), 0.25)));
        Assert.That(stats.Categories.Select(category => (category.Key, category.Value.Counts)), Is.EqualTo(new[] { ("bolt", new ClassCounts(0, 1)), ("nut", new ClassCounts(1, 2)) }));
        Assert.That(DataStats.Of([]).All.Counts.DefectShare, Is.Null);
    }

    [Test]
    public void StatsCountSplitsAndNamedDefects()
    {
        var stats = DataStats.Of(ImageFolder.Read(new DataSource(TestFiles.Sample("parts-mvtec"), Categories: ["gear", "tile"])).Samples);
        Assert.Multiple(() =>
        {
            Assert.That(stats.All.Splits, Is.EqualTo(new Dictionary<string, ClassCounts> { ["train"] = new(0, 48), ["test"] = new(24, 24) }));
            Assert.That(stats.Categories["gear"].Splits["test"], Is.EqualTo(new ClassCounts(12, 12)));
            Assert.That(stats.Categories["gear"].DefectTypes, Has.Count.EqualTo(6).And.ContainKey("crack").WithValue(2));
        });
    }

    [Test]
    public void DefectsAreNamedWhereFoldersAre()
    {
        (string?, string?)[] Types(params string[] images) => [.. ImageFolder.Read(new DataSource(Folder(images))).Samples.Select(sample => (Path.GetFileName(sample.ImagePath), sample.DefectType))!];
        Assert.That(Types(Mvtec), Is.EqualTo(new[] { ("3.tiff", "crack"), ("4.bmp", null), ("2.jpeg", "bent"), ("1.PNG", null), ("0.png", (string?)null) }));
        Assert.That(Types("good/0.png", "hole/1.png", "bad/2.png"), Is.EqualTo(new[] { ("2.png", null), ("0.png", null), ("1.png", (string?)"hole") }));
    }

    [TestCase(new[] { "nut" }, null, new[] { "nut" })]
    [TestCase(null, new[] { "nut" }, new[] { "bolt" })]
    [TestCase(new[] { "bolt", "nut" }, new[] { "bolt" }, new[] { "nut" })]
    [TestCase(null, null, new[] { "bolt", "nut" })]
    public void Categories(string[]? these, string[]? without, string[] left) =>
        Assert.That(ImageFolder.Read(new DataSource(Folder(Mvtec), Categories: these, WithoutCategories: without)).Samples.Select(sample => sample.Object).Distinct(), Is.EqualTo(left));

    [Test]
    public void ACategoryMayBeInOneOfSeveralFolders()
    {
        var (mvtec, visa) = (Folder(Mvtec), Folder(Visa));
        var data = ImageFolder.Read([new DataSource(mvtec, Categories: ["nut", "pcb"]), new DataSource(visa, Categories: ["nut", "pcb"])]);
        Assert.That(data.Samples.Select(sample => sample.Object).Distinct(), Is.EqualTo(new[] { "nut", "pcb" }));
    }

    [Test]
    public void UnknownCategoriesAreToldWithThoseThereAre()
    {
        var root = Folder(Mvtec);
        string Message(DataSource source) => Assert.Throws<InputException>(() => ImageFolder.Read(source))!.Message;
        Assert.That(Message(new DataSource(root, Categories: ["nut", "screw"])), Does.Contain("'screw'").And.Contain("bolt, nut"));
        Assert.That(Message(new DataSource(root, WithoutCategories: ["Nut"])), Does.Contain("'Nut'").And.Contain("bolt, nut"));
        Assert.That(Message(new DataSource(root, Categories: ["nut"], WithoutCategories: ["nut"])), Does.Contain("none is left").And.Contain(root));
    }
}
