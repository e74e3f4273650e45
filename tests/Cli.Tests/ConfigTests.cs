using LrIad.Engine;
using LrIad.Engine.Config;

namespace LrIad.Cli.Tests;

/// <summary>Defaults, preset, configuration file and command line, in this order.</summary>
[TestFixture]
internal sealed class ConfigTests
{
    [Test]
    public void WithoutAnythingTheDefaultsHold() => Assert.That(Resolve(), Is.EqualTo(new TrainConfig()).UsingPropertiesComparer());

    [Test]
    public void CommandLineOverridesFileOverridesPreset()
    {
        var file = Scratch.NewFile("run.yaml", "preset: lr-iad\nnum-generations: 6\nlearning-rate: 2e-4\nseed: 7\n");
        var config = Resolve("--config", file, "--seed", "9");
        Assert.Multiple(() =>
        {
            Assert.That(config.Objective.ScaleRewards, Is.EqualTo("group"), "from the preset");
            Assert.That(config.NumGenerations, Is.EqualTo(6), "from the file");
            Assert.That(config.Optimizer.LearningRate, Is.EqualTo(2e-4), "from the file");
            Assert.That(config.Seed, Is.EqualTo(9), "from the command line");
        });
    }

    [Test]
    public void APresetOnTheCommandLineStillYieldsToTheFile()
    {
        var file = Scratch.NewFile("run.yaml", "scale-rewards: none\n");
        Assert.That(Resolve("--preset", "lr-iad", "--config", file).Objective.ScaleRewards, Is.EqualTo("none"));
    }

    [Test]
    public void YamlAndJsonSayTheSame()
    {
        var yaml = Scratch.NewFile("run.yaml", "# a run\nreward: [format, accuracy]\nfocal-class-weights: 2,0.5\nbalance: true\nepsilon-low: 0.1\n");
        var json = Scratch.NewFile("run.json", "{\n\t\"reward\": [\"format\", \"accuracy\"],\n\t\"focal-class-weights\": [2, 0.5],\n\t\"balance\": true,\n\t\"epsilon-low\": 0.1\n}\n");
        var (one, other) = (Resolve("--config", yaml), Resolve("--config", json));
        Assert.Multiple(() =>
        {
            Assert.That(one.Reward.Names, Is.EqualTo(new[] { "format", "accuracy" }));
            Assert.That(other.Reward.Names, Is.EqualTo(one.Reward.Names));
            Assert.That((one.Reward.FocalClassWeights, one.Balance, one.Objective.EpsilonLow), Is.EqualTo(("2,0.5", true, 0.1)));
            Assert.That((other.Reward.FocalClassWeights, other.Balance, other.Objective.EpsilonLow), Is.EqualTo(("2,0.5", true, 0.1)));
        });
    }

    [TestCase("steps: many", 1, "steps must be a whole number, not 'many'")]
    [TestCase("steps: 5\nbeta: 1/2", 2, "beta must be a number, not '1/2'")]
    [TestCase("steps: 5\n\nbalance: yes", 3, "balance must be true or false, not 'yes'")]
    [TestCase("loss-type: ppo", 1, "loss-type must be grpo, dr_grpo, dapo or gspo, not 'ppo'")]
    [TestCase("seed: -1", 1, "seed must be a whole number from 0 on")]
    [TestCase("temperature: .nan", 1, "temperature must be a number")]
    [TestCase("num_generations: 4", 1, "it is written num-generations")]
    [TestCase("colour: red", 1, "colour is no setting")]
    [TestCase("steps:", 1, "steps has no value")]
    [TestCase("steps: [1, 2]", 1, "steps takes one value")]
    [TestCase("reward: {a: b}", 1, "reward must be a value or a list of values")]
    [TestCase("- a\n- b", 1, "must be a list of settings")]
    [TestCase("steps: 1\nsteps: 2", 2, "steps")]
    [TestCase("{\n \"steps\": 1,\n \"seed\": }", 3, "")]
    public void WhatIsWrongInAFileIsNamedWithFileAndLine(string text, int line, string problem)
    {
        var file = Scratch.NewFile("run.yaml", text);
        var error = Assert.Throws<InputException>(() => Resolve("--config", file))!;
        Assert.That(error.Message, Does.StartWith($"{file}, line {line}:").And.Contains(problem));
    }

    [Test]
    public void TheSampleSettingsCanBeOverridden()
    {
        var options = Parse("--sample", "--steps", "3", "--out", "somewhere");
        var config = options.Resolve();
        Assert.Multiple(() =>
        {
            Assert.That((config.Steps, config.PromptsPerStep, config.NumGenerations), Is.EqualTo((3, 16, 8)));
            Assert.That((config.Optimizer.LearningRate, config.Objective.Beta), Is.EqualTo((1.5e-3, 0.0)));
            Assert.That(config.Data.Single().Path, Does.EndWith("parts-visa-large"));
            Assert.That(config.EvalData!.Path, Does.EndWith("parts-mvtec"));
        });
    }

    [Test]
    public void EpochsReplaceStepsThatWereSetBefore()
    {
        var file = Scratch.NewFile("run.yaml", "steps: 10\n");
        Assert.That(Resolve("--config", file, "--epochs", "2"), Has.Property(nameof(TrainConfig.Steps)).EqualTo(0).And.Property(nameof(TrainConfig.Epochs)).EqualTo(2));
    }

    [Test]
    public void SeveralDataFoldersShareLayoutAndSplit()
    {
        var config = Parse("--data", "a", "b", "--data", "c", "--layout", "visa", "--model", "m", "--out", "o").Resolve();
        Assert.That(config.Data, Is.EqualTo(new[] { new DataSource("a", "visa"), new DataSource("b", "visa"), new DataSource("c", "visa") }));
    }

    [Test]
    public void EvaluationDataHaveASplitOfTheirOwn()
    {
        var config = Parse("--data", "a", "--split", "train", "--eval-data", "b", "--eval-split", "test", "--model", "m", "--out", "o").Resolve();
        Assert.That((config.Data[0].Split, config.EvalData), Is.EqualTo(("train", new DataSource("b", Split: "test"))));
    }

    private static TrainConfig Resolve(params string[] arguments) => Parse(arguments).Config;

    private static TrainOptions Parse(params string[] arguments)
    {
        TrainOptions? seen = null;
        var host = new Host(TextReader.Null, TextWriter.Null, TextWriter.Null, CancellationToken.None);
        var command = Verb.Create(host, "train", "", new TrainOptions(), TrainOptions.All, (options, _) => { seen = options; return 0; }, hasConfigFile: true);
        command.Parse(arguments).Invoke(new System.CommandLine.InvocationConfiguration { EnableDefaultExceptionHandler = false });
        return seen ?? throw new InvalidOperationException($"{string.Join(' ', arguments)} was not understood.");
    }
}
