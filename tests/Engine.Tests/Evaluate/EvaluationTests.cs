using System.Text.Json;
using System.Text.Json.Nodes;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>An evaluation of the sample model on a few images: what it writes, with the golden adapter and without.</summary>
[TestFixture]
internal sealed class EvaluationTests
{
    private readonly string _data = TestFiles.NewFolder();
    private const string Fields = "image_path object gt_label pred_label pred_score explanation completion valid";
    private string _output = "";
    private EvalResult _result = null!;

    [OneTimeSetUp]
    public void Evaluate()
    {
        // Gears with a damaged file among them; of tiles normal ones alone.
        Copy("gear", "good", 2);
        Copy("gear", "crack", 2);
        Copy("tile", "good", 2);
        File.WriteAllBytes(Path.Combine(_data, "gear", "test", "crack", "zzz.png"), [0x89, 0x50, 0x4E, 0x47]);
        (_result, _output) = Run(adapter: null);
    }

    [Test]
    public void ABadImageIsListedAndTheRestJudged() => Assert.Multiple(() =>
    {
        Assert.That(_result.Pooled.N, Is.EqualTo(6));
        Assert.That(_result.Skipped.Single().ImagePath, Does.EndWith("zzz.png"));
    });

    [Test]
    public void ACategoryWithoutDefectsHasNulls()
    {
        var tile = JsonNode.Parse(File.ReadAllText(Path.Combine(_output, "metrics.json")))!["classes"]!["tile"]!.AsObject();
        foreach (var name in new[] { "recall", "balanced_accuracy", "f1_macro", "auroc", "average_precision" })
        {
            Assert.That(tile.ContainsKey(name) && tile[name] is null, name);
        }

        Assert.That((int)tile["n"]!, Is.EqualTo(2));
    }

    [Test]
    public void MetricsHaveTheNamesOthersRelyOn()
    {
        var metrics = JsonNode.Parse(File.ReadAllText(Path.Combine(_output, "metrics.json")))!.AsObject();
        string[] figures = ["n", "tp", "tn", "fp", "fn", "invalid", "accuracy", "f1_macro", "balanced_accuracy", "recall", "specificity", "precision", "auroc", "average_precision"];
        Assert.Multiple(() =>
        {
            Assert.That(metrics.Select(field => field.Key), Is.SupersetOf(new[]
            {
                "pooled", "balanced_accuracy_interval", "intervals", "classes", "baselines", "invalid_kinds", "contradictions", "named_defects", "thresholded", "training_overlap", "skipped", "settings",
            }));
            Assert.That(metrics["pooled"]!.AsObject().Select(field => field.Key), Is.EqualTo(figures));
            Assert.That(metrics["baselines"]!["always_normal"]!.AsObject().Select(field => field.Key), Is.EqualTo(figures));
            Assert.That(metrics["skipped"]![0]!.AsObject().Select(field => field.Key), Is.EqualTo(new[] { "image_path", "reason" }));
        });
    }

    [Test]
    public void ALineOfPredictionsForEveryImage()
    {
        var lines = File.ReadLines(Path.Combine(_output, "predictions.jsonl")).Select(line => JsonNode.Parse(line)!.AsObject()).ToArray();
        Assert.That(lines, Has.Length.EqualTo(6));
        Assert.That(lines.Select(line => string.Join(' ', line.Select(field => field.Key))), Is.EqualTo(new[]
        {
            Fields + " defect_type", Fields + " defect_type", Fields, Fields, Fields, Fields,
        }));
        Assert.That(lines.Select(line => (int)line["gt_label"]!), Is.EqualTo(new[] { 1, 1, 0, 0, 0, 0 }));
    }

    [Test]
    public void TheReportIsThereAndMetricsAreReadBack()
    {
        Assert.That(File.ReadAllText(Path.Combine(_output, "report.html")), Does.Contain("passed over").And.Contain("zzz.png"));
        var read = Evaluation.Read(Path.Combine(_output, "metrics.json"));
        Assert.That(JsonSerializer.Serialize(read, Evaluation.Json), Is.EqualTo(JsonSerializer.Serialize(_result, Evaluation.Json)));
        Assert.That(Directory.GetFileSystemEntries(_output).Select(Path.GetFileName).Order(), Is.EqualTo(new[] { "metrics.json", "predictions.jsonl", "report.html" }));
    }

    [Test]
    public void BesideAnAdapterStandsTheProbeOfTheModelWithoutIt()
    {
        var (trained, _) = Run(Path.Combine(TestFiles.Goldens, "adapter"));
        Assert.Multiple(() =>
        {
            Assert.That(_result.Baselines.Keys, Is.EquivalentTo(new[] { "always_normal", "always_defect" }), "without one it is the model's own score");
            Assert.That(trained.Baselines["untrained_probe"].Auroc, Is.EqualTo(_result.Pooled.Auroc));
            Assert.That(trained.Baselines["untrained_probe"].AveragePrecision, Is.EqualTo(_result.Pooled.AveragePrecision));
        });
    }

    [Test]
    public void AThresholdIsChosenOnOtherImagesAndJudgesByTheScore()
    {
        // Chosen on fabrics, which the score tells apart well.
        var (result, output) = Run(adapter: null, config => config with { Data = config.Data with { Categories = ["gear"] }, Threshold = "balanced", ThresholdData = new DataSource(TestFiles.Sample("parts-mvtec"), Split: "test", Categories: ["fabric"]) });
        var thresholded = result.Thresholded!;
        var predictions = File.ReadLines(Path.Combine(output, "predictions.jsonl")).Select(line => JsonNode.Parse(line)!).ToArray();
        bool IsRight(JsonNode line) => (double)line["pred_score"]! >= thresholded.Threshold == ((int)line["gt_label"]! == 1);
        Assert.Multiple(() =>
        {
            Assert.That((thresholded.Rule, thresholded.ChosenOn.Split, thresholded.ChosenOn.Figures.N), Is.EqualTo(("balanced", "test", 24)));
            Assert.That(thresholded.ChosenOn.Figures.BalancedAccuracy, Is.EqualTo(1), "their AUROC is 1");
            Assert.That(thresholded.Pooled.TruePositives + thresholded.Pooled.TrueNegatives, Is.EqualTo(predictions.Count(IsRight)));
            Assert.That(thresholded.Pooled.Auroc, Is.EqualTo(result.Pooled.Auroc), "the ranking is the same");
            Assert.That(thresholded.Intervals.Classes["gear"].BalancedAccuracy, Has.Length.EqualTo(2));
            Assert.That(Evaluation.Read(Path.Combine(output, "metrics.json")).Thresholded!.Threshold, Is.EqualTo(thresholded.Threshold));
        });
    }

    [Test]
    public void TheScoreAloneIsThatOfAnInspection()
    {
        using var backend = new CpuBackend();
        using var policy = Policy.Load(TestFiles.TinyModel, null, backend);
        using var inspector = new Inspector(policy.Model, backend, null, new InspectionOptions { Votes = 3, Seed = 5, MaxCompletionLength = 32 });
        var images = Directory.GetFiles(Path.Combine(_data, "gear", "test", "good")).Select(file => inspector.Images.Process(file)).ToArray();
        var questions = inspector.Prompts.Encode(images).Select(features => new Question("gear", [features])).ToArray();
        Assert.That(inspector.Score(questions, 7, default), Is.EqualTo(inspector.Inspect(questions, 7, default).Select(verdict => verdict.Score)));
    }

    [Test]
    public void AReferenceIsShownAndNotJudged()
    {
        var (result, output) = Run(adapter: null, config => config with { Reference = "auto" });
        var lines = File.ReadLines(Path.Combine(output, "predictions.jsonl")).Select(line => JsonNode.Parse(line)!).ToArray();
        var references = JsonNode.Parse(File.ReadAllText(Path.Combine(output, "metrics.json")))!["settings"]!["references"]!;
        var alone = File.ReadLines(Path.Combine(_output, "predictions.jsonl")).Select(line => JsonNode.Parse(line)!).ToDictionary(line => (string)line["image_path"]!, line => (double)line["pred_score"]!);
        Assert.Multiple(() =>
        {
            Assert.That(result.Pooled.N, Is.EqualTo(4), "a good gear and a good tile less");
            Assert.That(lines.Select(line => (string)line["reference"]!), Is.EqualTo(lines.Select(line => (string)references[(string)line["object"]!]!)));
            Assert.That(lines.Select(line => (string)line["image_path"]!), Has.No.Member((string)references["gear"]!).And.No.Member((string)references["tile"]!));
            Assert.That(lines.Select(line => (double)line["pred_score"]!), Is.Not.EqualTo(lines.Select(line => alone[(string)line["image_path"]!])), "it is seen");
        });
    }

    [Test]
    public void WhatAThresholdNeedsIsToldBeforeAnythingIsWritten()
    {
        string Message(Func<EvalConfig, EvalConfig> change)
        {
            var output = Path.Combine(TestFiles.NewFolder(), "out");
            using var backend = new CpuBackend();
            var message = Assert.Throws<InputException>(() => Evaluation.Run(change(new EvalConfig { Model = TestFiles.TinyModel, Data = new DataSource(_data), Out = output }), backend, null, default))!.Message;
            Assert.That(Directory.Exists(output), Is.False);
            return message;
        }

        Assert.Multiple(() =>
        {
            Assert.That(Message(config => config with { Threshold = "f1" }), Does.Contain("--threshold-data"));
            Assert.That(Message(config => config with { ThresholdData = new DataSource(TestFiles.Sample("parts-visa")) }), Does.Contain("--threshold "));
            Assert.That(Message(config => config with { Threshold = "best", ThresholdData = new DataSource(TestFiles.Sample("parts-visa")) }), Does.Contain("'best'"));
            Assert.That(Message(config => config with { Threshold = "f1", ThresholdData = new DataSource(TestFiles.Sample("parts-mvtec")) }), Does.Match("6 of the 240 images of --threshold-data .*png"));
        });
    }

    [Test]
    public void MetricsThatCannotBeReadAreAnError()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "metrics.json");
        File.WriteAllText(file, "{\"pooled\":");
        Assert.That(() => Evaluation.Read(file), Throws.InstanceOf<InputException>().With.Message.Contains(file));
    }

    [Test]
    public void AChangeHasTheIntervalOfBoth()
    {
        EvalResult Of(double balanced, double half) => _result with { Pooled = _result.Pooled with { BalancedAccuracy = balanced }, BalancedAccuracyInterval = [balanced - half, balanced + half] };
        var (change, low, high) = Of(0.75, 0.04).ChangeSince(Of(0.625, 0.03))!.Value;
        Assert.That(new[] { change, low, high }, Is.EqualTo(new[] { 0.125, 0.075, 0.175 }).Within(1e-12));
        Assert.That(Of(0.75, 0.04).ChangeSince(_result with { Pooled = _result.Pooled with { BalancedAccuracy = null } }), Is.Null);
    }

    private (EvalResult Result, string Output) Run(string? adapter, Func<EvalConfig, EvalConfig>? change = null)
    {
        var output = TestFiles.NewFolder();
        using var backend = new CpuBackend();
        var config = new EvalConfig { Model = TestFiles.TinyModel, Adapter = adapter, Data = new DataSource(_data, Split: "test"), Out = output, BatchSize = 4, MaxCompletionLength = 64 };
        return (Evaluation.Run(change?.Invoke(config) ?? config, backend, null, CancellationToken.None), output);
    }

    private void Copy(string category, string kind, int count)
    {
        var target = Path.Combine(_data, category, "test", kind);
        Directory.CreateDirectory(target);
        foreach (var file in Directory.GetFiles(Path.Combine(TestFiles.Sample("parts-mvtec"), category, "test", kind)).Order(StringComparer.Ordinal).Take(count))
        {
            File.Copy(file, Path.Combine(target, Path.GetFileName(file)));
        }
    }
}
