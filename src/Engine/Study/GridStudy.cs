using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Study;

/// <summary>How far a study is.</summary>
/// <param name="Done">Runs finished, those of earlier calls included.</param>
/// <param name="Runs">Runs in all.</param>
/// <param name="Training">What the run under way reports while it trains, or null.</param>
/// <param name="Evaluating">What it reports while it is tested, or null.</param>
/// <param name="Note">Something to tell the user, or null.</param>
internal sealed record StudyProgress(int Done, int Runs, TrainingProgress? Training = null, EvalProgress? Evaluating = null, string? Note = null);

/// <summary>
/// Trains and tests every run of a grid and writes what the paper's Tables III to VI show. Each run is what <c>train</c> and <c>eval</c> do, in a folder of its own; a study
/// that was stopped anywhere goes on there.
/// </summary>
internal static class GridStudy
{
    private const string RowsName = "results.jsonl", SettingsName = "settings.json", TablesName = "study.md";

    private static readonly JsonSerializerOptions Line = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Runs what is missing of the grid; the rows of all that is finished come back.</summary>
    /// <exception cref="InputException">Settings, model, data or output folder are not as they must be.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; the same call goes on.</exception>
    public static IReadOnlyList<StudyRow> Run(StudyConfig config, Backend backend, LearnerFactory learners, IProgress<StudyProgress>? progress, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(config);
        var runs = config.Runs();
        RequireApart(config.Train, cancellation);
        using var folder = RunFolder.Open(config.Train.Out, mayHoldResults: File.Exists(Path.Combine(config.Train.Out, SettingsName)));
        RequireSameSettings(folder.File(SettingsName), config);
        var rows = Read(folder.File(RowsName));
        var done = runs.Count(run => rows.Any(row => row.Is(run)));
        foreach (var run in runs.Where(run => !rows.Any(row => row.Is(run))).ToArray())
        {
            progress?.Report(new StudyProgress(done, runs.Count, Note: FormattableString.Invariant($"run {done + 1} of {runs.Count}: {run.Title}")));
            var row = new OneRun(config, run, backend, learners, folder.File(run.Folder), (training, evaluating) => progress?.Report(new StudyProgress(done, runs.Count, training, evaluating))).Finish(cancellation);
            rows.Add(row);
            done++;
            AtomicFile.WriteText(folder.File(RowsName), string.Concat(rows.Select(each => JsonSerializer.Serialize(each, Line) + "\n")));
            AtomicFile.WriteText(folder.File(TablesName), StudyTables.Of(rows));
            progress?.Report(new StudyProgress(done, runs.Count, Note: FormattableString.Invariant($"{run.Title}: balanced accuracy {row.Pooled.BalancedAccuracy:F3}, recall {row.Pooled.Recall:F3}")));
        }

        AtomicFile.WriteText(folder.File(TablesName), StudyTables.Of(rows));
        return rows;
    }

    /// <summary>The rows of a results.jsonl; none where there is no such file.</summary>
    /// <exception cref="InputException">It is damaged.</exception>
    public static List<StudyRow> Read(string file)
    {
        if (!File.Exists(file))
        {
            return [];
        }

        try
        {
            return [.. File.ReadLines(file).Where(line => line.Length > 0).Select(line => JsonSerializer.Deserialize<StudyRow>(line, Line)!)];
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message} Move it away to run the study anew.", e);
        }
    }

    // Before hours of training, not after.
    private static void RequireApart(TrainConfig config, CancellationToken cancellation)
    {
        IReadOnlyDictionary<string, string> Hashes(IEnumerable<DataSource> sources) => ImageHashes.Of(sources.SelectMany(source => ImageFolder.Read(source).Samples.Select(sample => sample.ImagePath)), cancellation);
        if (!config.AllowOverlap && ImageHashes.Shared(Hashes([config.EvalData!]), Hashes(config.Data).Values) is { Count: > 0 } shared)
        {
            throw new InputException($"{shared.Count} images of --eval-data are images of --data too: {ImageHashes.Name(shared)}. Choose other ones (--split, --eval-split, --categories), or go on all the same with --allow-overlap.");
        }
    }

    private static void RequireSameSettings(string file, StudyConfig config)
    {
        var now = JsonSerializer.Serialize(config.Shared(), ConfigRules.Json);
        if (!File.Exists(file))
        {
            AtomicFile.WriteText(file, now);
            return;
        }

        string[] changed;
        try
        {
            changed = ConfigRules.Changed(JsonNode.Parse(File.ReadAllText(file))!, JsonNode.Parse(now)!);
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message} Give another --out to run the study anew.", e);
        }

        if (changed.Length > 0)
        {
            throw new InputException($"The study in {config.Train.Out} was begun with another {string.Join(", ", changed)}. Its runs could not stand in one table with these: give the same options, or another --out.");
        }
    }

    private sealed class OneRun(StudyConfig config, StudyRun run, Backend backend, LearnerFactory learners, string folder, Action<TrainingProgress?, EvalProgress?> report)
    {
        public StudyRow Finish(CancellationToken cancellation)
        {
            var (trained, history) = run.Arm.Change is { } change ? Train(change, cancellation) : (null, []);
            var tested = Path.Combine(folder, "eval");
            if (Directory.Exists(tested))
            {
                // A test that was not finished; a finished one has its row.
                Directory.Delete(tested, recursive: true);
            }

            var evaluation = new EvalConfig
            {
                Model = config.Train.Model,
                Adapter = trained?.Checkpoint,
                Data = run.Direction.Test,
                Out = tested,
                MaxPixels = config.Train.MaxPixels,
                PromptTemplate = config.Train.PromptTemplate,
                Strict = config.Train.Strict,
                BatchSize = config.BatchSize,
            };
            var result = Evaluation.Run(evaluation, backend, new Forward<EvalProgress>(progress => report(null, progress)), cancellation);
            return new StudyRow
            {
                Arm = run.Arm.Name,
                Seed = run.Seed,
                Direction = run.Direction.Name,
                Steps = trained?.Steps ?? 0,
                TrainingSeconds = Math.Round(history.Sum(step => (double)step["step_time"]!), 3),
                ZeroSpread = history.Length > 0 ? history.Average(step => (double)step["frac_reward_zero_std"]!) : null,
                Pooled = result.Pooled,
                BalancedAccuracyInterval = result.BalancedAccuracyInterval,
                Classes = result.Classes,
                Baselines = result.Baselines,
                Contradictions = result.Contradictions,
                TrainingImages = result.TrainingOverlap?.Images,
            };
        }

        private (TrainingSummary Summary, JsonObject[] History) Train(Func<TrainConfig, TrainConfig> change, CancellationToken cancellation)
        {
            var training = change(config.Train) with { Data = run.Direction.Train, EvalData = null, Seed = run.Seed, Out = Path.Combine(folder, "train") };
            var begun = Directory.Exists(training.Out) && new CheckpointStore(training.Out).FindNewest(_ => { }) is not null;
            if (!begun && Directory.Exists(training.Out))
            {
                // It was stopped before there was anything to go on from.
                Directory.Delete(training.Out, recursive: true);
            }

            var summary = Training.Run(training, backend, learners, begun, profile: null, new Forward<TrainingProgress>(progress => report(progress, null)), cancellation);
            return (summary, [.. TrainLog.ReadMetrics(training.Out)]);
        }
    }

    // Reports where it is called; Progress<T> would do so on another thread, later.
    private sealed class Forward<T>(Action<T> report) : IProgress<T>
    {
        public void Report(T value) => report(value);
    }
}
