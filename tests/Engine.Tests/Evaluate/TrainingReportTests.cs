using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Tests.Learn;
using LrIad.Learn;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>A short run with evaluations, stopped and resumed: report and summary still know how it stood before the first step.</summary>
[TestFixture]
internal sealed class TrainingReportTests
{
    [Test]
    public void AResumedRunReportsFromTheBeginningOn()
    {
        var output = Path.Combine(TestFiles.NewFolder(), "run");
        var config = new TrainConfig
        {
            Model = TestFiles.TinyModel,
            Data = [new DataSource(Data())],
            EvalData = new DataSource(Data()),
            AllowOverlap = true,
            EvalSteps = 1,
            Out = output,
            Steps = 2,
            PromptsPerStep = 2,
            NumGenerations = 2,
            MaxPromptLength = 256,
            Sampling = new SamplingOptions { MaxCompletionLength = 12 },
            Objective = new ObjectiveOptions { Beta = 0 },
        };
        var first = Run(config, resume: false);
        var report = File.ReadAllText(Path.Combine(output, "report.html"));
        Assert.That(report, Does.Contain("before training").And.Contain("on these images").And.Contain("2 steps;"));

        // A later evaluation of a past that will be repeated is not taken in.
        Directory.CreateDirectory(Path.Combine(output, "eval-3"));
        File.WriteAllText(Path.Combine(output, "eval-3", "metrics.json"), "from another past");
        var resumed = Run(config with { Steps = 3 }, resume: true);
        report = File.ReadAllText(Path.Combine(output, "report.html"));
        Assert.Multiple(() =>
        {
            Assert.That(resumed.Before!.Settings["adapter"]!.ToString(), Is.EqualTo(first.Before!.Settings["adapter"]!.ToString()).And.EndsWith("step 0"));
            Assert.That(resumed.After!.Settings["adapter"]!.ToString(), Does.EndWith("step 3"));
            Assert.That(report, Does.Contain("before training").And.Contain("3 steps;"));
            Assert.That(TensorBoardTests.Read(output).Select(e => e.Step), Is.EqualTo(new long[] { 0, 1, 2, 3 }));
        });
    }

    private static TrainingSummary Run(TrainConfig config, bool resume)
    {
        using var backend = new CpuBackend();
        return Training.Run(config, backend, PolicyLearner.Create, resume, null, null, CancellationToken.None);
    }

    private static string Data()
    {
        var folder = TestFiles.NewFolder();
        foreach (var (kind, count) in new[] { ("good", 2), ("crack", 2) })
        {
            Directory.CreateDirectory(Path.Combine(folder, kind));
            foreach (var file in Directory.GetFiles(Path.Combine(TestFiles.Sample("parts-mvtec"), "gear", "test", kind)).Order(StringComparer.Ordinal).Take(count))
            {
                File.Copy(file, Path.Combine(folder, kind, Path.GetFileName(file)));
            }
        }

        return folder;
    }
}
