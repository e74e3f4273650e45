using System.Text.Json.Nodes;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn;

[TestFixture]
internal sealed class TrainLogTests
{
    [Test]
    public void AnInterruptedRunsLogsReadAsIfItHadNeverStopped([Values(0, 1, 3, 6)] int checkpoint)
    {
        var (undisturbed, interrupted) = (TestFiles.NewFolder(), TestFiles.NewFolder());
        Log(undisturbed, 1, 8);
        Log(interrupted, 1, 6);
        File.AppendAllText(Path.Combine(interrupted, "metrics.jsonl"), """{"step":7,"lo""");
        Log(interrupted, checkpoint + 1, 8);

        foreach (var name in new[] { "metrics.jsonl", "completions.jsonl" })
        {
            Assert.That(File.ReadAllBytes(Path.Combine(interrupted, name)), Is.EqualTo(File.ReadAllBytes(Path.Combine(undisturbed, name))), name);
        }

        Assert.That(
            TensorBoardTests.Read(interrupted).SelectMany(e => e.Values.Select(value => (e.Step, value))),
            Is.EqualTo(TensorBoardTests.Read(undisturbed).SelectMany(e => e.Values.Select(value => (e.Step, value)))));
    }

    [Test]
    public void TensorBoardHasEveryNumberAndLeavesOutWhatIsUnknown()
    {
        var folder = TestFiles.NewFolder();
        using (var log = new TrainLog(folder, 0))
        {
            log.Metrics(new JsonObject { ["step"] = 1, ["loss"] = 0.5, ["kl"] = null, ["num_tokens"] = 17L, ["completions/min_length"] = 3 });
        }

        var events = TensorBoardTests.Read(folder);
        Assert.That(events[^1].Step, Is.EqualTo(1));
        Assert.That(events[^1].Values, Is.EqualTo(new[] { ("train/loss", 0.5f), ("train/num_tokens", 17f), ("train/completions/min_length", 3f) }));
    }

    [Test]
    public void MetricsAreReadBackWithoutALineCutShort()
    {
        var folder = TestFiles.NewFolder();
        Assert.That(TrainLog.ReadMetrics(folder), Is.Empty);
        Log(folder, 1, 2);
        File.AppendAllText(Path.Combine(folder, "metrics.jsonl"), """{"step":3,""");
        Assert.That(TrainLog.ReadMetrics(folder).Select(line => (int)line["step"]!), Is.EqualTo(new[] { 1, 2 }));
    }

    [Test]
    public void LogsThatCannotBeWrittenAreAnError()
    {
        var folder = TestFiles.NewFolder();
        Directory.CreateDirectory(Path.Combine(folder, "completions.jsonl"));
        Assert.That(() => new TrainLog(folder, 0), Throws.InstanceOf<InputException>().With.Message.Contains(folder));
        Assert.That(() => File.Delete(Path.Combine(folder, "metrics.jsonl")), Throws.Nothing);
    }

    private static void Log(string folder, int first, int last)
    {
        using var log = new TrainLog(folder, first - 1);
        for (var step = first; step <= last; step++)
        {
            log.Metrics(new JsonObject { ["step"] = step, ["loss"] = 1.0 / step, ["kl"] = null });
            log.Completions([new JsonObject { ["step"] = step, ["completion"] = "<think>größer & 'ok'</think>" }, new JsonObject { ["step"] = step, ["completion"] = "\n\u2028" }]);
        }
    }
}
