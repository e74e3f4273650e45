using System.Text.Json.Nodes;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Learn;
using LrIad.Learn;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>Images that are both trained and tested on: refused, or said; and known from the adapter alone.</summary>
[TestFixture]
internal sealed class TrainingOverlapTests
{
    [Test]
    public void RefusedBeforeTheFirstStepByContent()
    {
        var (train, test) = (Data("gear", 2), Data("gear", 3));
        var config = Config(train, test);
        var message = Assert.Throws<InputException>(() => Run(config))!.Message;
        Assert.Multiple(() =>
        {
            Assert.That(message, Does.Contain("4 of the 6 images of --eval-data").And.Contain(test).And.Contain("and 1 more").And.Contain("--allow-overlap"));
            Assert.That(Directory.Exists(config.Out), Is.False, "nothing is written");
        });
    }

    [Test]
    public void AllowedItIsSaidAndTheCheckpointKnows()
    {
        var (train, test) = (Data("gear", 2), Data("gear", 3));
        var config = Config(train, test) with { AllowOverlap = true };
        var summary = Run(config);
        var manifest = JsonNode.Parse(File.ReadAllText(Path.Combine(summary.Checkpoint, "manifest.json")))!.AsObject();
        Assert.Multiple(() =>
        {
            Assert.That((summary.Before!.TrainingOverlap!.Checked, summary.After!.TrainingOverlap!.Images), Is.EqualTo((true, (int?)4)));
            Assert.That(manifest.ContainsKey(ImageHashes.FileName));
            Assert.That(CheckpointStore.Problem(summary.Checkpoint), Is.Null);
            Assert.That(ImageHashes.Read(summary.Checkpoint), Has.Count.EqualTo(4));
            Assert.That(Evaluate(summary.Checkpoint, test).Images, Is.EqualTo(4));
            Assert.That(Evaluate(summary.Checkpoint, Data("tile", 2)).Images, Is.Zero);
        });

        // Resumed on other data, the run has learned from both.
        var resumed = Run(config with { Data = [new DataSource(Data("tile", 2))], Steps = 2 }, resume: true);
        Assert.That(ImageHashes.Read(resumed.Checkpoint), Has.Count.EqualTo(8));
        Assert.That((Evaluate(resumed.Checkpoint, test).Images, Evaluate(resumed.Checkpoint, Data("tile", 2)).Images), Is.EqualTo((4, 4)));
    }

    [Test]
    public void AnAdapterWithoutTheFileIsEvaluatedAndTheReasonTold()
    {
        var summary = Run(Config(Data("gear", 2), eval: null));
        var old = TestFiles.NewFolder();
        foreach (var file in Directory.GetFiles(summary.Checkpoint).Where(file => Path.GetFileName(file) != ImageHashes.FileName))
        {
            File.Copy(file, Path.Combine(old, Path.GetFileName(file)));
        }

        var overlap = Evaluate(old, Data("gear", 2));
        Assert.That((overlap.Checked, overlap.Images), Is.EqualTo((false, (int?)null)));
        Assert.That(overlap.Reason, Does.Contain(ImageHashes.FileName));
    }

    [Test]
    public void CancelledWhileHashingNothingIsWritten()
    {
        var config = Config(Data("gear", 2), eval: null);
        using var backend = new CpuBackend();
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Assert.That(() => Training.Run(config, backend, PolicyLearner.Create, false, null, null, cancelled.Token), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(Directory.Exists(config.Out), Is.False);
    }

    private static TrainConfig Config(string train, string? eval) => new()
    {
        Model = TestFiles.TinyModel,
        Data = [new DataSource(train)],
        EvalData = eval is null ? null : new DataSource(eval),
        Out = Path.Combine(TestFiles.NewFolder(), "run"),
        Steps = 1,
        PromptsPerStep = 2,
        NumGenerations = 2,
        MaxPromptLength = 256,
        Sampling = new SamplingOptions { MaxCompletionLength = 8 },
        Objective = new ObjectiveOptions { Beta = 0 },
    };

    private static TrainingSummary Run(TrainConfig config, bool resume = false)
    {
        using var backend = new CpuBackend();
        return Training.Run(config, backend, PolicyLearner.Create, resume, null, null, CancellationToken.None);
    }

    private static TrainingOverlap Evaluate(string adapter, string data)
    {
        using var backend = new CpuBackend();
        var config = new EvalConfig { Model = TestFiles.TinyModel, Adapter = adapter, Data = new DataSource(data), Out = Path.Combine(TestFiles.NewFolder(), "out"), MaxCompletionLength = 4 };
        return Evaluation.Run(config, backend, null, CancellationToken.None).TrainingOverlap!;
    }

    // So many good and so many cracked or chipped ones, under names of their own.
    private static string Data(string category, int each)
    {
        var folder = TestFiles.NewFolder();
        foreach (var (kind, from) in new[] { ("normal", new[] { "good" }), ("defect", ["crack", "chip"]) })
        {
            Directory.CreateDirectory(Path.Combine(folder, kind));
            foreach (var (i, file) in from.SelectMany(name => Directory.GetFiles(Path.Combine(TestFiles.Sample("parts-mvtec"), category, "test", name)).Order(StringComparer.Ordinal)).Take(each).Index())
            {
                File.Copy(file, Path.Combine(folder, kind, $"{i}-{Guid.NewGuid():N}.png"));
            }
        }

        return folder;
    }
}
