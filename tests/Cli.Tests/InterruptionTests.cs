using System.Diagnostics;
using System.Text.Json.Nodes;

namespace LrIad.Cli.Tests;

/// <summary>A run that was interrupted and resumed ends as one that was not: adapter, optimizer and logs, times aside, bit for bit.</summary>
[TestFixture]
[Platform(Exclude = "Win", Reason = "signals")]
internal sealed class InterruptionTests
{
    private const int Steps = 8;

    private string _data = "";
    private Ending _undisturbed = null!;
    private TimeSpan _time;

    [OneTimeSetUp]
    public void RunUndisturbed()
    {
        _data = Scratch.NewData(normal: 5, defect: 3);
        var output = Scratch.NewPath();
        var clock = Stopwatch.StartNew();
        var outcome = Cli.Run(Arguments(output));
        _time = clock.Elapsed;
        Assert.That(outcome.ExitCode, Is.Zero, outcome.Error);
        _undisturbed = Ending.Read(output);
    }

    [Test]
    public void CtrlCLeavesSomethingToGoOnFrom()
    {
        var output = Scratch.NewPath();
        using var process = Cli.Start(Arguments(output));
        while (process.StandardError.ReadLine() is { } line && !line.StartsWith("step 3/", StringComparison.Ordinal))
        {
        }

        // The shell's own kill: not every machine has the program.
        Process.Start("sh", ["-c", $"kill -INT {process.Id}"])!.WaitForExit();
        var error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.That(process.ExitCode, Is.EqualTo(130), error);
        Assert.That(error, Does.Contain("--resume"));

        var resumed = Cli.Run([.. Arguments(output), "--resume"]);
        Assert.That(resumed.ExitCode, Is.Zero, resumed.Error);
        Assert.That(resumed.Error, Does.Contain("going on from"));
        AssertUndisturbed(output);
    }

    [Test]
    public void KilledAtRandomMoments() => KillAndResume(kills: 5);

    [Test]
    [Category("Full")]
    public void KilledAtManyRandomMoments() => KillAndResume(kills: 100);

    private void KillAndResume(int kills)
    {
        var random = new Random(kills);
        var (output, killed) = (Scratch.NewPath(), 0);
        while (killed < kills)
        {
            using var process = StartOrResume(output);
            var drained = process.StandardError.ReadToEndAsync();
            if (!process.WaitForExit(_time * random.NextDouble()))
            {
                process.Kill();
                process.WaitForExit();
                killed++;
            }
            else
            {
                Assert.That(process.ExitCode, Is.Zero, drained.Result);
                AssertUndisturbed(output);
                output = Scratch.NewPath();
            }
        }

        using var last = StartOrResume(output);
        var error = last.StandardError.ReadToEndAsync();
        last.WaitForExit();
        Assert.That(last.ExitCode, Is.Zero, error.Result);
        AssertUndisturbed(output);
    }

    // Before its first checkpoint a run has nothing to go on from, and starts again.
    private Process StartOrResume(string output)
    {
        var resume = Directory.Exists(output) && Directory.GetDirectories(output, "checkpoint-*").Any(folder => File.Exists(Path.Combine(folder, "manifest.json")));
        if (!resume && Directory.Exists(output))
        {
            Directory.Delete(output, recursive: true);
        }

        return Cli.Start(resume ? [.. Arguments(output), "--resume"] : Arguments(output));
    }

    private string[] Arguments(string output) =>
    [
        "train", "--model", Project.Sample("tiny-qwen2-vl"), "--data", _data, "--out", output, "--steps", $"{Steps}", "--save-steps", "1", "--prompts-per-step", "2",
        "--num-generations", "2", "--max-completion-length", "12", "--learning-rate", "1e-3",
    ];

    private void AssertUndisturbed(string output)
    {
        var ending = Ending.Read(output);
        Assert.Multiple(() =>
        {
            Assert.That(ending.Adapter, Is.EqualTo(_undisturbed.Adapter), "adapter");
            Assert.That(ending.Optimizer, Is.EqualTo(_undisturbed.Optimizer), "optimizer");
            Assert.That(ending.Metrics, Is.EqualTo(_undisturbed.Metrics), "metrics.jsonl");
            Assert.That(ending.Completions, Is.EqualTo(_undisturbed.Completions), "completions.jsonl");
            Assert.That(Directory.GetFileSystemEntries(output, "*.partial"), Is.Empty, "unfinished files");
        });
    }

    private sealed record Ending(byte[] Adapter, byte[] Optimizer, string[] Metrics, string[] Completions)
    {
        public static Ending Read(string output)
        {
            var checkpoint = Path.Combine(output, $"checkpoint-{Steps}");
            return new Ending(
                File.ReadAllBytes(Path.Combine(checkpoint, "adapter_model.safetensors")),
                File.ReadAllBytes(Path.Combine(checkpoint, "optimizer.safetensors")),
                [.. File.ReadLines(Path.Combine(output, "metrics.jsonl")).Select(WithoutTimes)],
                File.ReadAllLines(Path.Combine(output, "completions.jsonl")));
        }

        private static string WithoutTimes(string line)
        {
            var metrics = JsonNode.Parse(line)!.AsObject();
            foreach (var name in metrics.Select(field => field.Key).Where(name => name == "step_time" || name.StartsWith("time/", StringComparison.Ordinal)).ToArray())
            {
                metrics.Remove(name);
            }

            return metrics.ToJsonString();
        }
    }
}
