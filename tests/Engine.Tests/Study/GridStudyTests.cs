using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Study;
using LrIad.Learn;

namespace LrIad.Engine.Tests.Study;

/// <summary>A grid of the shortest runs of the sample model.</summary>
[TestFixture]
internal sealed class GridStudyTests
{
    private static readonly CpuBackend Backend = new();
    private static string _data = "";

    [OneTimeSetUp]
    public static void FewImages()
    {
        // Two categories, three images of each class.
        var rows = from category in new[] { "gear", "tile" }
                   from kind in new[] { "good", "defect" }
                   from image in Directory.GetFiles(Path.Combine(TestFiles.Sample("parts-mvtec"), category, "test"), "*.png", SearchOption.AllDirectories)
                       .Where(file => Path.GetFileName(Path.GetDirectoryName(file)) == "good" == (kind == "good")).Order(StringComparer.Ordinal).Take(3)
                   select $"{image},{(kind == "good" ? "normal" : "defect")},{category}";
        _data = Path.Combine(TestFiles.NewFolder(), "few.csv");
        File.WriteAllLines(_data, rows.Prepend("image,label,object"));
    }

    [OneTimeTearDown]
    public static void Close() => Backend.Dispose();

    [Test]
    public void A_study_stopped_anywhere_goes_on_to_the_same_rows()
    {
        var whole = Config(TestFiles.NewFolder());
        var expected = GridStudy.Run(whole, Backend, PolicyLearner.Create, null, CancellationToken.None);
        Assert.That(expected.Select(row => (row.Arm, row.Seed)), Is.EqualTo(new[] { ("base", 0UL), ("accuracy", 4UL), ("focal", 4UL), ("accuracy", 5UL), ("focal", 5UL) }));
        Assert.That(expected.Select(row => row.Steps), Is.EqualTo(new[] { 0, 2, 2, 2, 2 }));

        var parts = Config(TestFiles.NewFolder());
        var (calls, reports) = (0, 3);
        for (var finished = false; !finished; calls++, reports += 2)
        {
            using var stop = new CancellationTokenSource();
            var countdown = reports;
            try
            {
                GridStudy.Run(parts, Backend, PolicyLearner.Create, new Told(_ => { if (--countdown == 0) { stop.Cancel(); } }), stop.Token);
                finished = true;
            }
            catch (OperationCanceledException)
            {
            }
        }

        var rows = GridStudy.Read(Path.Combine(parts.Train.Out, "results.jsonl"));
        Assert.Multiple(() =>
        {
            Assert.That(calls, Is.GreaterThan(3), "it was stopped several times");
            Assert.That(rows.Select(Comparable), Is.EqualTo(expected.Select(Comparable)));
            Assert.That(File.ReadAllText(Path.Combine(parts.Train.Out, "study.md")), Is.EqualTo(StudyTables.Of(rows)));
        });

        // What is finished is not done again; more seeds are added; other settings are refused.
        var notes = new List<string>();
        GridStudy.Run(parts with { Seeds = [4, 5, 6], Arms = ["focal"] }, Backend, PolicyLearner.Create, new Told(report => { if (report.Note is { } note) { notes.Add(note); } }), CancellationToken.None);
        Assert.That(notes[0], Does.StartWith("run 3 of 3: focal, seed 6"));
        Assert.That(
            () => GridStudy.Run(parts with { Train = parts.Train with { PromptsPerStep = 3 } }, Backend, PolicyLearner.Create, null, CancellationToken.None),
            Throws.TypeOf<InputException>().With.Message.Contains("prompts_per_step"));
    }

    [Test]
    public void Both_directions_change_the_data_round()
    {
        var config = Config("out") with { BothDirections = true, Train = Config("out").Train with { EvalData = new DataSource("other") }, Seeds = [0], Arms = ["base", "focal"] };
        var runs = config.Runs();
        Assert.Multiple(() =>
        {
            Assert.That(runs.Select(run => run.Title), Is.EqualTo(new[] { "base, few.csv → other", "focal, seed 0, few.csv → other", "base, other → few.csv", "focal, seed 0, other → few.csv" }));
            Assert.That(runs[^1].Direction.Train.Single().Path, Is.EqualTo("other"));
            Assert.That(runs.Select(run => run.Folder).Distinct().Count(), Is.EqualTo(4));
        });
    }

    [Test]
    public void Images_of_both_sides_are_refused_before_anything_is_trained()
    {
        var config = Config(TestFiles.NewFolder());
        Assert.That(
            () => GridStudy.Run(config with { Train = config.Train with { AllowOverlap = false } }, Backend, PolicyLearner.Create, null, CancellationToken.None),
            Throws.TypeOf<InputException>().With.Message.Contains("12 images").And.Message.Contains("--allow-overlap"));
        Assert.That(Directory.Exists(config.Train.Out), Is.False);
    }

    [Test]
    public void Damaged_settings_are_told()
    {
        var config = Config(TestFiles.NewFolder());
        Directory.CreateDirectory(config.Train.Out);
        var file = Path.Combine(config.Train.Out, "settings.json");
        File.WriteAllText(file, "{\"model\":");
        Assert.That(() => GridStudy.Run(config, Backend, PolicyLearner.Create, null, CancellationToken.None), Throws.TypeOf<InputException>().With.Message.Contains(file));
    }

    [Test]
    public void A_damaged_row_is_told()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "results.jsonl");
        File.WriteAllText(file, "{\"arm\":");
        Assert.That(() => GridStudy.Read(file), Throws.TypeOf<InputException>().With.Message.Contains(file));
    }

    private static StudyConfig Config(string folder) => new()
    {
        Arms = ["base", "accuracy", "focal"],
        Seeds = [4, 5],
        Train = new TrainConfig
        {
            Model = TestFiles.TinyModel,
            Data = [new DataSource(_data)],
            EvalData = new DataSource(_data),
            AllowOverlap = true,
            Out = Path.Combine(folder, "study"),
            Steps = 2,
            PromptsPerStep = 2,
            NumGenerations = 2,
            MaxPixels = 28 * 28 * 4,
            Sampling = new SamplingOptions { MaxCompletionLength = 12 },
            Optimizer = new OptimizerOptions { LearningRate = 1e-3 },
        },
    };

    // Times differ from run to run.
    private static string Comparable(StudyRow row) => System.Text.Json.JsonSerializer.Serialize(row with { TrainingSeconds = 0 });

    private sealed class Told(Action<StudyProgress> tell) : IProgress<StudyProgress>
    {
        public void Report(StudyProgress value) => tell(value);
    }
}
