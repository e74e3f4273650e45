using System.Diagnostics;
using System.Text.Json.Nodes;

namespace LrIad.Cli.Tests;

/// <summary><c>data synth</c> as users run it.</summary>
[TestFixture]
[Parallelizable(ParallelScope.All)]
internal sealed class DataSynthTests
{
    private static string Data => Project.Sample("parts-visa");

    [TestCase("cutpaste", "--scars 1 --jitter 0 --size 0.05..0.1")]
    [TestCase("nsa", "--gradients source --on-object 0.8 --min-change 5")]
    public void MakesADataSetToTrainOn(string method, string options)
    {
        var output = Scratch.NewPath();
        var outcome = Cli.Run(["data", "synth", "--data", Data, "--out", output, "--method", method, "--categories", "cookie", "pcb", "--count", "4", "--seed", "3", .. options.Split(' ')]);
        Assert.That(outcome.ExitCode, Is.Zero, outcome.Error);
        Assert.That(outcome.Output, Does.Contain("60 images of defects are left out").And.Contain(output));
        Assert.That(outcome.Error, Does.Contain("images/s"), "progress");

        var stats = JsonNode.Parse(Cli.Run("data", "stats", "--data", output, "--json").Output)!;
        Assert.That(((string?)stats["layout"], (int)stats["defect"]!, (int)stats["normal"]!), Is.EqualTo(("mvtec", 8, 80)));
        var settings = JsonNode.Parse(File.ReadAllText(Path.Combine(output, "synth.json")))!["settings"]!;
        Assert.That(((string?)settings["method"], (int)settings["count"]!, (int)settings["seed"]!), Is.EqualTo((method, 4, 3)));

        var trained = Cli.Run("train", "--model", Project.Sample("tiny-qwen2-vl"), "--data", output, "--out", Scratch.NewPath(), "--steps", "1", "--prompts-per-step", "2", "--num-generations", "2", "--max-completion-length", "8");
        Assert.That(trained.ExitCode, Is.Zero, trained.Error);
    }

    [TestCase("--method blur", "--method")]
    [TestCase("", "--method")]
    [TestCase("--method nsa --size 0.3", "--size")]
    [TestCase("--method nsa --size 0.3..0.1", "--size")]
    [TestCase("--method nsa --size 0.1..0.9", "--size")]
    [TestCase("--method nsa --per-image 0", "--per-image")]
    [TestCase("--method nsa --count 0", "--count")]
    [TestCase("--method nsa --on-object 2", "--on-object")]
    [TestCase("--method nsa --min-change 0", "--min-change")]
    [TestCase("--method nsa --scars -1", "--scars")]
    [TestCase("--method nsa --jitter 3", "--jitter")]
    [TestCase("--method nsa --gradients steep", "--gradients")]
    [TestCase("--method nsa --categories gear", "gear")]
    [TestCase("--method nsa --data no/such/folder", "no/such/folder")]
    [TestCase("--method cutpaste --min-change 255 --count 1", "--min-change")]
    public void IsToldWhatIsWrong(string options, string culprit)
    {
        var folder = Scratch.NewFolder();
        var data = options.Contains("--data", StringComparison.Ordinal) ? [] : new[] { "--data", Data };
        var outcome = Cli.Run(["data", "synth", "--out", Path.Combine(folder, "set"), .. data, .. options.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
            Assert.That(outcome.Error, Does.Contain(culprit).And.Not.Contain("   at "));
            Assert.That(outcome.Output, Is.Empty);
            Assert.That(Directory.GetFileSystemEntries(folder), Is.Empty, "nothing is written");
        });
    }

    [Test]
    [Platform(Exclude = "Win", Reason = "signals")]
    public void CtrlCLeavesNothing()
    {
        var folder = Scratch.NewFolder();
        using var process = StartUntilItWrites(folder);
        Process.Start("sh", ["-c", $"kill -INT {process.Id}"])!.WaitForExit();
        var error = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(TimeSpan.FromMinutes(1)))
        {
            process.Kill();
            Assert.Fail("It did not stop; tests that are started with SIGINT ignored, as in the background, cannot see it do so.");
        }

        Assert.That(process.ExitCode, Is.EqualTo(130), error.Result);
        Assert.That(Directory.GetFileSystemEntries(folder), Is.Empty);
    }

    [Test]
    public void KilledItLeavesNothingThatLooksDone()
    {
        var folder = Scratch.NewFolder();
        using (var process = StartUntilItWrites(folder))
        {
            process.Kill();
            process.WaitForExit();
        }

        Assert.That(Directory.GetFileSystemEntries(folder).Select(Path.GetFileName), Is.EqualTo(new[] { "set.partial" }));
        var again = Cli.Run("data", "synth", "--data", Data, "--out", Path.Combine(folder, "set"), "--method", "cutpaste", "--categories", "pcb", "--count", "2");
        Assert.That(again.ExitCode, Is.Zero, again.Error);
        Assert.That(Directory.GetFileSystemEntries(folder).Select(Path.GetFileName), Is.EqualTo(new[] { "set" }));
        Assert.That(Directory.GetDirectories(Path.Combine(folder, "set")).Select(Path.GetFileName), Is.EqualTo(new[] { "pcb" }));
    }

    // Enough work for it not to be done before it is stopped.
    private static Process StartUntilItWrites(string folder)
    {
        var process = Cli.Start("data", "synth", "--data", Data, "--out", Path.Combine(folder, "set"), "--method", "nsa", "--per-image", "50");
        while (process.StandardError.ReadLine() is { } line && !line.Contains("images/s", StringComparison.Ordinal))
        {
        }

        return process;
    }
}
