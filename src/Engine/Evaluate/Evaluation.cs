using System.Text.Json;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>How far an evaluation is.</summary>
/// <param name="Done">Images done.</param>
/// <param name="Total">Images in all.</param>
/// <param name="Note">Something to tell the user, or null.</param>
internal sealed record EvalProgress(int Done, int Total, string? Note = null);

/// <summary>Runs a model over labelled images.</summary>
internal static class Evaluation
{
    /// <summary>How results are written.</summary>
    public static JsonSerializerOptions Json { get; } = new() { WriteIndented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>How a line of predictions.jsonl is written.</summary>
    internal static JsonSerializerOptions Line { get; } = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Evaluates a model folder, with or without an adapter, and writes metrics.json, predictions.jsonl and report.html.</summary>
    /// <exception cref="InputException">The model, adapter, data or output folder is not as it must be.</exception>
    public static EvalResult Run(EvalConfig config, Backend backend, IProgress<EvalProgress>? progress, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(config);
        _ = Metrics.SaysDefect(new Judged("", false, AnswerKind.Invalid, null), config.Invalid);
        var rule = Rule(config);
        var test = TestSet.Read(config.Data, config.Reference, config.Seed, config.Limit, cancellation);
        var validation = rule is null ? null : TestSet.Read(config.ThresholdData!, config.Reference, config.Seed, limit: 0, cancellation);
        RequireApart(test, validation);
        var overlap = test.OverlapWith(config.Adapter);
        using var policy = Policy.Load(config.Model, config.Adapter, backend);
        using var inspector = new Inspector(policy.Model, backend, policy.Adapter, new InspectionOptions
        {
            MaxPixels = config.MaxPixels ?? policy.MaxPixels,
            MaxCompletionLength = config.MaxCompletionLength,
            PromptTemplate = config.PromptTemplate,
            Votes = config.Votes,
            Seed = config.Seed,
            Sequences = config.BatchSize,
        });
        var questions = new QuestionStream(test, inspector, config, progress);
        var others = validation is null ? null : new QuestionStream(validation, inspector, config, progress);
        using var folder = RunFolder.Open(config.Out, mayHoldResults: false);
        var scored = others is null ? null : Score(others, inspector, progress, cancellation);
        var threshold = rule?.Choose(Metrics.Scored(scored!));
        var (result, predictions) = Judge(questions, inspector, config, overlap, policy.Adapter is not null, cancellation);
        if (threshold is { } value)
        {
            result = result with { Thresholded = ToThresholded(value, scored!, predictions, config) };
        }

        Write(folder.Path, result, predictions);
        Report.Write(folder.File("report.html"), new ReportData { Result = result, Predictions = predictions }, cancellation);
        return result;
    }

    /// <summary>Judges images with a loaded model; with <paramref name="untrainedProbe"/> the model without its adapter stands among the baselines.</summary>
    internal static (EvalResult Result, IReadOnlyList<Prediction> Predictions) Judge(
        QuestionStream questions, Inspector inspector, EvalConfig config, TrainingOverlap? overlap, bool untrainedProbe, CancellationToken cancellation)
    {
        var (untrained, answers, predictions) = (new List<Judged>(), new List<Answer>(), new List<Prediction>());
        foreach (var batch in questions.Batches(cancellation))
        {
            foreach (var (sample, verdict) in batch.Samples.Zip(inspector.Inspect(batch.Questions, batch.First, cancellation)))
            {
                answers.Add(verdict.Answer);
                predictions.Add(ToPrediction(sample, verdict, questions.Set.References.GetValueOrDefault(sample.Object)));
            }

            if (untrainedProbe)
            {
                untrained.AddRange(batch.Samples.Zip(inspector.ProbeUntrained(batch.Questions, cancellation), (sample, probe) =>
                    new Judged(sample.Object, sample.Defect, probe > 0 ? AnswerKind.Defect : AnswerKind.Normal, probe)));
            }
        }

        return (Summarise(questions, predictions, untrained, answers, config, inspector.Device) with { TrainingOverlap = overlap }, predictions);
    }

    /// <summary>Reads a metrics.json.</summary>
    /// <exception cref="InputException">It is not one.</exception>
    public static EvalResult Read(string file)
    {
        try
        {
            return JsonSerializer.Deserialize<EvalResult>(File.ReadAllBytes(file), Json) ?? throw new InputException($"{file} is empty.");
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Writes metrics.json and predictions.jsonl.</summary>
    internal static void Write(string folder, EvalResult result, IReadOnlyList<Prediction> predictions)
    {
        AtomicFile.WriteText(Path.Combine(folder, "predictions.jsonl"), string.Concat(predictions.Select(prediction => JsonSerializer.Serialize(prediction, Line) + "\n")));
        AtomicFile.WriteText(Path.Combine(folder, "metrics.json"), JsonSerializer.Serialize(result, Json));
    }

    private static ThresholdRule? Rule(EvalConfig config) => (config.ThresholdData, config.Threshold) switch
    {
        (null, null) => null,
        (not null, { } rule) => ThresholdRule.Parse(rule),
        (null, _) => throw new InputException("--threshold chooses a threshold, and needs images to choose it on: --threshold-data DIR."),
        _ => throw new InputException("--threshold-data needs to know what the threshold is for: --threshold f1, balanced or recall=R."),
    };

    private static void RequireApart(TestSet test, TestSet? validation)
    {
        if (validation is not null && ImageHashes.Shared(validation.Hashes, test.Hashes.Values) is { Count: > 0 } shared)
        {
            throw new InputException(
                $"{shared.Count} of the {validation.Samples.Count} images of --threshold-data are among the images of the test: {ImageHashes.Name(shared)}. A threshold is chosen on other images than it is tested on (--threshold-split, --split).");
        }
    }

    private static List<Judged> Score(QuestionStream questions, Inspector inspector, IProgress<EvalProgress>? progress, CancellationToken cancellation)
    {
        progress?.Report(new EvalProgress(0, 0, $"scoring {questions.Set.Samples.Count} images to choose the threshold on ..."));
        var scored = new List<Judged>();
        foreach (var batch in questions.Batches(cancellation))
        {
            scored.AddRange(batch.Samples.Zip(inspector.Score(batch.Questions, batch.First, cancellation), (sample, score) => new Judged(sample.Object, sample.Defect, AnswerKind.Invalid, score)));
        }

        return scored;
    }

    private static Prediction ToPrediction(Sample sample, Verdict verdict, string? reference) => new()
    {
        ImagePath = sample.ImagePath,
        Object = sample.Object,
        GtLabel = sample.Defect ? 1 : 0,
        PredLabel = verdict.Answer.Kind switch { AnswerKind.Defect => 1, AnswerKind.Normal => 0, _ => null },
        PredScore = verdict.Score,
        Explanation = verdict.Answer.Reasoning,
        Completion = verdict.Completion,
        Valid = verdict.Answer.IsValid,
        DefectType = sample.DefectType,
        Reference = reference,
    };

    private static Thresholded ToThresholded(double threshold, List<Judged> validation, IReadOnlyList<Prediction> predictions, EvalConfig config)
    {
        Judged[] judged = [.. predictions.Select(prediction => prediction.ToJudged().At(threshold))];
        return new Thresholded
        {
            Threshold = threshold,
            Rule = config.Threshold!,
            ChosenOn = new ChosenOn
            {
                Data = config.ThresholdData!.Path,
                Split = config.ThresholdData.Split,
                Figures = Metrics.Compute([.. validation.Select(image => image.At(threshold))], config.Invalid),
            },
            Pooled = Metrics.Compute(judged, config.Invalid),
            Classes = Metrics.ByCategory(judged, images => Metrics.Compute(images, config.Invalid)),
            Intervals = IntervalSet.Of(judged, config.Invalid, config.Seed),
        };
    }

    private static EvalResult Summarise(QuestionStream questions, List<Prediction> predictions, List<Judged> untrained, List<Answer> answers, EvalConfig config, string device)
    {
        Judged[] judged = [.. predictions.Select(prediction => prediction.ToJudged())];
        var intervals = IntervalSet.Of(judged, config.Invalid, config.Seed);
        var baselines = new Dictionary<string, Figures> { ["always_normal"] = Metrics.Always(judged, AnswerKind.Normal), ["always_defect"] = Metrics.Always(judged, AnswerKind.Defect) };
        if (untrained.Count > 0)
        {
            baselines["untrained_probe"] = Metrics.Compute(untrained, config.Invalid);
        }

        return new EvalResult
        {
            Pooled = Metrics.Compute(judged, config.Invalid),
            BalancedAccuracyInterval = intervals.Pooled.BalancedAccuracy,
            Classes = Metrics.ByCategory(judged, images => Metrics.Compute(images, config.Invalid)),
            Intervals = intervals,
            Baselines = baselines,
            InvalidKinds = answers.Where(answer => !answer.IsValid).GroupBy(answer => answer.Reason).OrderBy(group => group.Key).ToDictionary(group => group.Key.ToString(), group => group.Count()),
            Contradictions = answers.Count(answer => answer.Contradicts == true),
            NamedDefects = NamedDefects.Of(predictions),
            Skipped = questions.Skipped,
            Settings = new Dictionary<string, object?>
            {
                ["model"] = config.Model,
                ["adapter"] = config.Adapter,
                ["data"] = config.Data.Path,
                ["split"] = config.Data.Split,
                ["categories"] = config.Data.Categories,
                ["without_categories"] = config.Data.WithoutCategories,
                ["limit"] = config.Limit,
                ["invalid"] = config.Invalid,
                ["votes"] = config.Votes,
                ["reference"] = config.Reference,
                ["references"] = questions.Set.References.Count > 0 ? questions.Set.References : null,
                ["max_pixels"] = config.MaxPixels,
                ["max_completion_length"] = config.MaxCompletionLength,
                ["seed"] = config.Seed,
                ["device"] = device,
            },
        };
    }
}
