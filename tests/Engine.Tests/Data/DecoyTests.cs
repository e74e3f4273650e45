using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Data;

/// <summary>Masks lie beside the images, where data sets keep them; the kernel tells whether anything opened one, or the folder it is in.</summary>
internal sealed class DecoyTests
{
    private static void Plant(string image, params string[] masks)
    {
        Pictures.WritePng(image);
        foreach (var mask in masks)
        {
            Files.Write(mask, "no mask: who opens this is caught");
        }
    }

    private static string Mvtec()
    {
        var root = TestFiles.NewFolder();
        foreach (var category in new[] { "nut", "bolt" })
        {
            Plant(Path.Combine(root, category, "train/good/0.png"));
            Plant(Path.Combine(root, category, "test/good/0.png"), Path.Combine(root, category, "ground_truth/good/0_mask.png"));
            Plant(Path.Combine(root, category, "test/bent/0.png"), Path.Combine(root, category, "ground_truth/bent/0_mask.png"));
        }

        return root;
    }

    private static string Visa(bool csv)
    {
        var root = TestFiles.NewFolder();
        Plant(Path.Combine(root, "pcb/Data/Images/Normal/0.JPG"));
        Plant(Path.Combine(root, "pcb/Data/Images/Anomaly/0.JPG"), Path.Combine(root, "pcb/Data/Masks/Anomaly/0.png"));
        if (csv)
        {
            Files.Write(Path.Combine(root, "split_csv/1cls.csv"), "object,split,label,image,mask\npcb,test,normal,pcb/Data/Images/Normal/0.JPG,\npcb,test,anomaly,pcb/Data/Images/Anomaly/0.JPG,pcb/Data/Masks/Anomaly/0.png\n");
        }

        return root;
    }

    private static string Plain()
    {
        var root = TestFiles.NewFolder();
        Plant(Path.Combine(root, "good/0.png"));
        Plant(Path.Combine(root, "dent/0.png"), Path.Combine(root, "ground_truth/0.png"), Path.Combine(root, "masks/0.png"));
        return root;
    }

    private static IEnumerable<TestCaseData> Layouts()
    {
        yield return new TestCaseData((Func<string>)Mvtec, 6).SetArgDisplayNames("mvtec");
        yield return new TestCaseData(() => Path.Combine(Mvtec(), "nut"), 3).SetArgDisplayNames("mvtec, one category");
        yield return new TestCaseData(() => Visa(csv: true), 2).SetArgDisplayNames("visa");
        yield return new TestCaseData(() => Visa(csv: false), 2).SetArgDisplayNames("visa without csv");
        yield return new TestCaseData((Func<string>)Plain, 2).SetArgDisplayNames("plain");
    }

    [TestCaseSource(nameof(Layouts))]
    public void ReadingNeverOpensAMask(Func<string> make, int images)
    {
        var root = make();
        using var watch = new OpenWatch(root);
        var data = ImageFolder.Read(new DataSource(root));
        Assert.That(data.Samples, Has.Count.EqualTo(images));
        foreach (var sample in data.Samples)
        {
            ImageFile.Read(sample.ImagePath);
        }

        watch.ExpectNone();
    }

    [Test]
    public void EvaluationNeverOpensAMask()
    {
        var root = Mvtec();
        using var watch = new OpenWatch(root);
        using var backend = new CpuBackend();
        var config = new EvalConfig { Model = TestFiles.TinyModel, Data = new DataSource(root), Out = Path.Combine(TestFiles.NewFolder(), "out"), MaxCompletionLength = 4 };
        var result = Evaluation.Run(config, backend, null, CancellationToken.None);
        Assert.That((result.Pooled.N, result.Skipped.Count), Is.EqualTo((6, 0)));
        watch.ExpectNone();
    }
}
