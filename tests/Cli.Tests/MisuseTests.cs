using LrIad.Engine.Learn;

namespace LrIad.Cli.Tests;

/// <summary>What people do wrong: exit code 2, the culprit named on standard error, nothing written.</summary>
[TestFixture]
[Parallelizable(ParallelScope.All)]
internal sealed class MisuseTests
{
    private static string Model => Project.Sample("tiny-qwen2-vl");

    private static string Image => Directory.GetFiles(Project.Sample("parts-mvtec"), "*.png", SearchOption.AllDirectories)[0];

    [TestCase("train --no-such-option 3", "--no-such-option")]
    [TestCase("trian", "trian")]
    [TestCase("", "--help")]
    [TestCase("train --sample --out X --steps many", "--steps")]
    [TestCase("train --sample --out X --num-generations 1", "--num-generations")]
    [TestCase("train --sample --out X --reward format,kindness", "kindness")]
    [TestCase("train --sample --out X --preset mine", "lr-iad")]
    [TestCase("train --sample", "--out")]
    [TestCase("eval --model M --data D", "--out")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data no/such/folder --out X", "no/such/folder")]
    [TestCase("eval --model no/such/model --data samples/parts-visa --out X", "no/such/model")]
    [TestCase("eval --model samples/tiny-qwen2-vl --adapter samples --data samples/parts-visa --out X", "adapter_config.json")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --categories gear,nut", "capsule, fabric, gear, tile, washer")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --without-categories nut", "'nut'")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --categories gear --without-categories gear", "none is left")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --categories ,", "--categories")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --threshold f1", "--threshold-data")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --threshold-data samples/parts-visa", "recall=R")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --threshold recall=2 --threshold-data samples/parts-visa", "recall=2")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --threshold f1 --threshold-data samples/parts-mvtec --threshold-split test", "120 of the 120 images of --threshold-data")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --threshold f1 --threshold-data samples/parts-visa --threshold-split some", "--threshold-split")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --reference README.md", "5 categories")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --categories gear --reference README.md", "README.md")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-mvtec --out X --categories gear --reference gone.png", "gone.png")]
    [TestCase("train --sample --out X --eval-data samples/parts-visa-large --eval-split test", "250 of the 250 images of --eval-data")]
    [TestCase("train --sample --out X --categories nut", "'nut'")]
    [TestCase("train --sample --out X --eval-categories nut", "'nut'")]
    [TestCase("inspect samples/parts-mvtec/gear/test/good/000.png --model samples/tiny-qwen2-vl --object gear --threshold high", "--threshold")]
    [TestCase("inspect --model samples/tiny-qwen2-vl --object gear", "IMAGE")]
    [TestCase("inspect no-such.png --model samples/tiny-qwen2-vl --object gear", "no-such.png")]
    [TestCase("inspect README.md --model samples/tiny-qwen2-vl --object gear", "README.md")]
    [TestCase("score --model samples/tiny-qwen2-vl --object gear --image README.md", "--completion")]
    [TestCase("tokenize", "--model")]
    [TestCase("tokenize --tokenizer README.md", "README.md")]
    [TestCase("data stats --data no/such/folder", "no/such/folder")]
    [TestCase("data stats --data samples/parts-visa --layout spiral", "--layout")]
    [TestCase("data stats --data samples/parts-visa --categories nut", "bottle_cap, cable, candle, cookie, pcb")]
    [TestCase("bench spiral", "spiral")]
    [TestCase("study --sample --out X --arms fokal", "fokal")]
    [TestCase("study --sample --out X --seeds one", "--seeds")]
    [TestCase("study --model samples/tiny-qwen2-vl --data samples/parts-visa --out X", "--eval-data")]
    [TestCase("study --model samples/tiny-qwen2-vl --data samples/parts-visa --eval-data samples/parts-mvtec", "--out")]
    [TestCase("study --sample --out X --resume", "--resume")]
    [TestCase("compare", "NAME=FILE")]
    [TestCase("compare no/such.csv", "no/such.csv")]
    [TestCase("compare a=README.md b=README.md", "README.md")]
    [TestCase("compare a=x.csv a=y.csv", "called a")]
    [TestCase("bench --json no/such/folder/rows.json", "--json")]
    public void IsToldWhatIsWrong(string arguments, string culprit)
    {
        var outcome = Cli.Run([.. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
            Assert.That(outcome.Error, Does.Contain(culprit));
            Assert.That(outcome.Error, Does.Not.Contain("   at "), "no stack trace");
            Assert.That(outcome.Output, Is.Empty);
            Assert.That(Directory.Exists(Path.Combine(Project.Root, "X")), Is.False, "nothing is written");
        });
    }

    [TestCase("bench")]
    [TestCase("bench ops --json bench.json")]
    [TestCase("eval --model samples/tiny-qwen2-vl --data samples/parts-visa --out X --device cuda")]
    [TestCase("train --sample --out X --device cuda")]
    public void AMachineWithoutAGpuIsToldSo(string arguments)
    {
        if (Engine.Compute.Cuda.CudaBackend.Unavailable() is null)
        {
            Assert.Ignore("This machine has a GPU.");
        }

        var outcome = Cli.Run(arguments.Split(' '));
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
            Assert.That(outcome.Error, Does.Contain("--device cuda").And.Not.Contain("   at "));
            Assert.That(Directory.Exists(Path.Combine(Project.Root, "X")), Is.False, "nothing is written");
        });
    }

    [Test]
    public void AnEmptyDataFolder()
    {
        var (data, output) = (Scratch.NewFolder(), Scratch.NewPath());
        Refused(Cli.Run("eval", "--model", Model, "--data", data, "--out", output), data, output);
    }

    [Test]
    public void DataFoldersWithoutImages()
    {
        var (data, output) = (Scratch.NewData(normal: 0, defect: 0), Scratch.NewPath());
        Refused(Cli.Run("train", "--model", Model, "--data", data, "--out", output), data, output);
    }

    [Test]
    public void TrainingDataOfOneClass()
    {
        var (data, output) = (Scratch.NewData(normal: 4, defect: 0), Scratch.NewPath());
        Refused(Cli.Run("train", "--model", Model, "--data", data, "--out", output, "--steps", "1"), "defect", output);
    }

    [Test]
    public void AnOutputFolderThatHoldsResults()
    {
        var (data, output) = (Scratch.NewData(normal: 2, defect: 2), Scratch.NewFolder());
        var kept = Path.Combine(output, "metrics.json");
        File.WriteAllText(kept, "{}");
        foreach (var verb in new[] { "train", "eval" })
        {
            var outcome = Cli.Run(verb, "--model", Model, "--data", data, "--out", output);
            Assert.Multiple(() =>
            {
                Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
                Assert.That(outcome.Error, Does.Contain(output));
                Assert.That(Directory.GetFileSystemEntries(output), Is.EqualTo(new[] { kept }));
                Assert.That(File.ReadAllText(kept), Is.EqualTo("{}"));
            });
        }
    }

    [Test]
    public void AnOutputFolderThatAnotherRunUses()
    {
        var (data, output) = (Scratch.NewData(normal: 2, defect: 2), Scratch.NewPath());
        using var other = RunFolder.Open(output, mayHoldResults: false);
        var outcome = Cli.Run("train", "--model", Model, "--data", data, "--out", output, "--steps", "1");
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
            Assert.That(outcome.Error, Does.Contain(output).And.Contain("in use"));
            Assert.That(Directory.GetFiles(output).Select(Path.GetFileName), Is.SubsetOf(new[] { ".lock" }), "nothing is written");
        });
    }

    [Test]
    public void NothingToResumeFrom()
    {
        var (data, output) = (Scratch.NewData(normal: 2, defect: 2), Scratch.NewPath());
        var outcome = Cli.Run("train", "--model", Model, "--data", data, "--out", output, "--steps", "1", "--resume");
        Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
        Assert.That(outcome.Error, Does.Contain("resume"));
    }

    [Test]
    public void AnImageThatIsNoneLeavesTheOthersTheirVerdicts()
    {
        var bad = Scratch.NewFile("bad.png", "not an image");
        var outcome = Cli.Run("inspect", Image, bad, Image, "--model", Model, "--object", "gear", "--json");
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.EqualTo(2));
            Assert.That(outcome.Error, Does.Contain(bad));
            Assert.That(outcome.Output.Trim().Split('\n'), Has.Length.EqualTo(2).And.All.Contains(Image));
        });
    }

    private static void Refused(Outcome outcome, string culprit, string output) => Assert.Multiple(() =>
    {
        Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
        Assert.That(outcome.Error, Does.Contain(culprit));
        Assert.That(outcome.Output, Is.Empty);
        Assert.That(Directory.Exists(output), Is.False, "nothing is written");
    });
}
