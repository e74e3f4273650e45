using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Cli.Tests;

/// <summary>Each verb once, as users start it, on a few images.</summary>
[TestFixture]
internal sealed class VerbTests
{
    private static string Model => Project.Sample("tiny-qwen2-vl");

    private static string Image => Directory.GetFiles(Project.Sample("parts-mvtec"), "*.png", SearchOption.AllDirectories).Order(StringComparer.Ordinal).First();

    [Test]
    public void TokenizeParsesSpecialTokens()
    {
        var outcome = Cli.RunWithInput("{\"text\":\"<answer>A</answer><|im_end|>\"}\n\n{\"text\":\"\"}\n", "tokenize", "--model", Model);
        var ids = outcome.Output.Trim().Split('\n').Select(line => JsonNode.Parse(line)!["ids"]!.AsArray().Select(id => (int)id!).ToArray()).ToArray();
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.Zero, outcome.Error);
            Assert.That(ids, Has.Length.EqualTo(2));
            Assert.That(ids[0], Has.Length.GreaterThan(2));
            Assert.That(ids[1], Is.Empty);
        });
    }

    [Test]
    public void TokenizeNamesTheLineThatIsWrong()
    {
        var outcome = Cli.RunWithInput("{\"text\":\"a\"}\n{\"txt\":\"b\"}\n", "tokenize", "--model", Model);
        Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
        Assert.That(outcome.Error, Does.Contain("line 2"));
    }

    [Test]
    public void DataStatsCountsTheSample()
    {
        var outcome = Cli.Run("data", "stats", "--data", Project.Sample("parts-visa"), "--json");
        var json = JsonNode.Parse(outcome.Output)!;
        Assert.That(((int)json["defect"]!, (int)json["normal"]!, (string)json["layout"]!), Is.EqualTo((60, 200, "visa")));
    }

    [Test]
    public void DataStatsAsATable() => Assert.That(Cli.Run("data", "stats", "--data", Project.Sample("parts-visa")).Output, Does.Match(@"cookie\s+12\s+40\s+23\.1%"));

    [Test]
    public void DataStatsBySplitWithNamedDefects() => Assert.That(
        Cli.Run("data", "stats", "--data", Project.Sample("parts-mvtec"), "--categories", "gear,tile", "--without-categories", "tile").Output,
        Does.Match(@"gear\s+12\s+36\s+25\.0%\n\s+train\s+0\s+24\s+0\.0%\n\s+test\s+12\s+12\s+50\.0%\n\s+chip 2, crack 2,").And.Not.Contains("tile"));

    [Test]
    public void EvalWithReferenceAndThreshold()
    {
        var output = Scratch.NewPath();
        var outcome = Cli.Run(
            "eval", "--model", Model, "--data", Project.Sample("parts-mvtec"), "--split", "test", "--categories", "washer", "--reference", "auto", "--out", output,
            "--threshold", "recall=0.9", "--threshold-data", Project.Sample("parts-visa"), "--threshold-split", "test", "--max-completion-length", "64");
        Assert.That(outcome.ExitCode, Is.Zero, outcome.Error);
        var metrics = JsonNode.Parse(File.ReadAllText(Path.Combine(output, "metrics.json")))!;
        Assert.Multiple(() =>
        {
            Assert.That(outcome.Output, Does.Contain("score by threshold").And.Contain("by recall=0.9 on 110 images").And.Contain("right kind"));
            Assert.That(outcome.Error, Does.Contain("scoring 110 images to choose the threshold on"));
            Assert.That((double)metrics["thresholded"]!["chosen_on"]!["figures"]!["recall"]!, Is.GreaterThanOrEqualTo(0.9));
            Assert.That((string)metrics["settings"]!["references"]!["washer"]!, Does.Contain("train"));
            Assert.That(metrics["training_overlap"], Is.Null);
        });
    }

    [Test]
    public void InspectWithAThresholdSaysWhoseVerdictItIs()
    {
        string[] arguments = ["inspect", Image, "--model", Model, "--object", "capsule", "--threshold"];
        var (low, high) = (Cli.Run([.. arguments, "-100"]), Cli.Run([.. arguments, "100"]));
        var json = JsonNode.Parse(Cli.Run([.. arguments, "-100", "--json"]).Output)!;
        Assert.Multiple(() =>
        {
            Assert.That(low.Output, Does.Contain("defect by its score").And.Contain("threshold -100").And.Contain("own answer"));
            Assert.That(high.Output, Does.Contain("normal by its score"));
            Assert.That(((int)json["pred_label"]!, (double)json["threshold"]!), Is.EqualTo((1, -100.0)));
            Assert.That(json.AsObject().ContainsKey("answer_label"));
        });
    }

    [Test]
    public void DoctorSaysWhatRuns()
    {
        var outcome = Cli.Run("doctor");
        Assert.Multiple(() =>
        {
            Assert.That(outcome.ExitCode, Is.Zero, outcome.Error);
            Assert.That(outcome.Output, Does.Contain("runs:").And.Contain("train").And.Contain("on the CPU"));
        });
    }

    [Test]
    public void ScoreSumsToWhatTheCompletionWasDrawnWith()
    {
        var inspected = Cli.Run("inspect", Image, "--model", Model, "--object", "capsule", "--json");
        var completion = (string)JsonNode.Parse(inspected.Output)!["completion"]!;
        var scored = Cli.Run("score", "--image", Image, "--model", Model, "--object", "capsule", "--completion", completion + "<|im_end|>", "--json");
        var json = JsonNode.Parse(scored.Output)!;
        var logProbs = json["logprobs"]!.AsArray().Select(value => (double)value!).ToArray();
        Assert.Multiple(() =>
        {
            Assert.That(json["tokens"]!.AsArray(), Has.Count.EqualTo(logProbs.Length));
            Assert.That((int)json["prompt_tokens"]!, Is.GreaterThan(100));

            // What was decoded greedily is likely at every token, another answer is not.
            Assert.That(logProbs.Min(), Is.GreaterThan(Math.Log(0.02)));
            Assert.That(logProbs, Is.All.LessThanOrEqualTo(0));
        });
    }

    [Test]
    public void EvalWritesItsFilesAndListsABadImage()
    {
        var (data, output) = (Scratch.NewData(normal: 3, defect: 2), Scratch.NewPath());
        var bad = Path.Combine(data, "normal", "bad.png");
        File.WriteAllText(bad, "not an image");
        var outcome = Cli.Run("eval", "--model", Model, "--data", data, "--out", output);
        Assert.That(outcome.ExitCode, Is.Zero, outcome.Error);
        using var metrics = JsonDocument.Parse(File.ReadAllText(Path.Combine(output, "metrics.json")));
        Assert.Multiple(() =>
        {
            Assert.That(metrics.RootElement.GetProperty("pooled").GetProperty("n").GetInt32(), Is.EqualTo(5));
            Assert.That(metrics.RootElement.GetProperty("skipped")[0].GetProperty("image_path").GetString(), Is.EqualTo(bad));
            Assert.That(File.ReadLines(Path.Combine(output, "predictions.jsonl")).Count(), Is.EqualTo(5));
            Assert.That(outcome.Output, Does.Contain("balanced accuracy").And.Contain("1 images were passed over"));
            Assert.That(outcome.Error, Does.Contain(bad));
        });
    }

    [Test]
    public void TrainEvalAndInspectWithTheAdapterItMade()
    {
        var (data, output) = (Scratch.NewData(normal: 4, defect: 4), Scratch.NewPath());
        var trained = Cli.Run(
            "train", "--model", Model, "--data", data, "--out", output, "--steps", "2", "--prompts-per-step", "2", "--num-generations", "2", "--max-completion-length", "16", "--learning-rate", "1e-3");
        Assert.That(trained.ExitCode, Is.Zero, trained.Error);
        var adapter = Path.Combine(output, "checkpoint-2");
        var inspected = Cli.Run("inspect", Image, "--model", Model, "--adapter", adapter, "--object", "capsule", "--quiet");
        Assert.Multiple(() =>
        {
            Assert.That(trained.Output, Does.Contain("2 steps of 2 prompts × 2 completions").And.Contain(adapter));
            Assert.That(trained.Error, Does.Contain("step 2/2"));
            Assert.That(File.ReadLines(Path.Combine(output, "metrics.jsonl")).Count(), Is.EqualTo(2));
            Assert.That(inspected.ExitCode, Is.Zero, inspected.Error);
            Assert.That(inspected.Error, Is.Empty);
        });

        var evaluated = Cli.Run("eval", "--model", Model, "--adapter", adapter, "--data", data, "--out", Scratch.NewPath(), "--max-completion-length", "8");
        Assert.That(evaluated.Output, Does.Contain("8 of the images were trained on"), evaluated.Error);
    }
}
