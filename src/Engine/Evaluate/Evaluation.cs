using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>One image's verdict: a line of predictions.jsonl (anomalib's field names).</summary>
public sealed record Prediction
{
    /// <summary>The image file.</summary>
    [JsonPropertyName("image_path")]
    public required string ImagePath { get; init; }

    /// <summary>Its category.</summary>
    [JsonPropertyName("object")]
    public required string Object { get; init; }

    /// <summary>1: defect.</summary>
    [JsonPropertyName("gt_label")]
    public required int GtLabel { get; init; }

    /// <summary>1: defect; null: the answer is invalid.</summary>
    [JsonPropertyName("pred_label")]
    public required int? PredLabel { get; init; }

    /// <summary>Larger is more defective.</summary>
    [JsonPropertyName("pred_score")]
    public required double PredScore { get; init; }

    /// <summary>The reasoning.</summary>
    [JsonPropertyName("explanation")]
    public required string Explanation { get; init; }

    /// <summary>All of the completion.</summary>
    [JsonPropertyName("completion")]
    public required string Completion { get; init; }

    /// <summary>Whether it is an answer in the required format.</summary>
    [JsonPropertyName("valid")]
    public required bool Valid { get; init; }
}

/// <summary>metrics.json.</summary>
public sealed record EvalResult
{
    /// <summary>Over all images.</summary>
    [JsonPropertyName("pooled")]
    public required Figures Pooled { get; init; }

    /// <summary>95% interval of the pooled balanced accuracy.</summary>
    [JsonPropertyName("balanced_accuracy_interval")]
    public required double[]? BalancedAccuracyInterval { get; init; }

    /// <summary>A category each.</summary>
    [JsonPropertyName("classes")]
    public required IReadOnlyDictionary<string, Figures> Classes { get; init; }

    /// <summary>The trivial answers on the same images and, beside an adapter, the probe of the model without it.</summary>
    [JsonPropertyName("baselines")]
    public required IReadOnlyDictionary<string, Figures> Baselines { get; init; }

    /// <summary>Invalid answers by kind.</summary>
    [JsonPropertyName("invalid_kinds")]
    public required IReadOnlyDictionary<string, int> InvalidKinds { get; init; }

    /// <summary>Valid answers whose reasoning says the opposite.</summary>
    [JsonPropertyName("contradictions")]
    public required int Contradictions { get; init; }

    /// <summary>Images that could not be read.</summary>
    [JsonPropertyName("skipped")]
    public required IReadOnlyList<Skipped> Skipped { get; init; }

    /// <summary>How it was made.</summary>
    [JsonPropertyName("settings")]
    public required IReadOnlyDictionary<string, object?> Settings { get; init; }

    /// <summary>The pooled figures in a line.</summary>
    [JsonIgnore]
    public string Headline => string.Create(
        CultureInfo.InvariantCulture,
        $"balanced accuracy {Show(Pooled.BalancedAccuracy)} (95%: {(BalancedAccuracyInterval is [var low, var high] ? $"{low:F3} to {high:F3}" : "unknown")}), recall {Show(Pooled.Recall)}, specificity {Show(Pooled.Specificity)}, accuracy {Show(Pooled.Accuracy)}, AUROC {Show(Pooled.Auroc)}, {Pooled.Invalid} invalid of {Pooled.N}");

    /// <summary>
    /// The change of balanced accuracy since an earlier evaluation, with its 95% interval; null where either is unknown. The two are taken as independent, which for the
    /// same images is on the safe side.
    /// </summary>
    public (double Change, double Low, double High)? ChangeSince(EvalResult before)
    {
        ArgumentNullException.ThrowIfNull(before);
        if (Pooled.BalancedAccuracy - before.Pooled.BalancedAccuracy is not { } change)
        {
            return null;
        }

        static double Square(EvalResult result) => result.BalancedAccuracyInterval is [var low, var high] ? Math.Pow((high - low) / 2, 2) : 0;
        var half = Math.Sqrt(Square(before) + Square(this));
        return (change, change - half, change + half);
    }

    private static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";
}

/// <summary>How far an evaluation is.</summary>
/// <param name="Done">Images done.</param>
/// <param name="Total">Images in all.</param>
/// <param name="Note">Something to tell the user, or null.</param>
public sealed record EvalProgress(int Done, int Total, string? Note = null);

/// <summary>Runs a model over labelled images.</summary>
public static class Evaluation
{
    /// <summary>How results are written.</summary>
    public static JsonSerializerOptions Json { get; } = new() { WriteIndented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private static readonly JsonSerializerOptions Line = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Evaluates a model folder, with or without an adapter, and writes metrics.json, predictions.jsonl and report.html.</summary>
    /// <exception cref="InputException">The model, adapter, data or output folder is not as it must be.</exception>
    public static EvalResult Run(EvalConfig config, Backend backend, IProgress<EvalProgress>? progress, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(config);
        _ = Metrics.Compute([new Judged("", false, AnswerKind.Invalid, null)], config.Invalid);
        var data = ImageFolder.Read(config.Data);
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
        using var folder = RunFolder.Open(config.Out, mayHoldResults: false);
        var samples = config.Limit > 0 ? data.Samples.Take(config.Limit).ToArray() : data.Samples;
        var (result, predictions) = Judge(inspector, samples, data.Problems, config, policy.Adapter is not null, progress, cancellation);
        Write(folder.Path, result, predictions);
        Report.Write(folder.File("report.html"), new ReportData { Result = result, Predictions = predictions });
        return result;
    }

    /// <summary>Judges samples with a loaded model; with <paramref name="untrainedProbe"/> the model without its adapter stands among the baselines.</summary>
    internal static (EvalResult Result, IReadOnlyList<Prediction> Predictions) Judge(
        Inspector inspector, IReadOnlyList<Sample> samples, IReadOnlyList<Skipped> problems, EvalConfig config, bool untrainedProbe, IProgress<EvalProgress>? progress, CancellationToken cancellation)
    {
        var (judged, untrained, answers, predictions, skipped) = (new List<Judged>(), new List<Judged>(), new List<Answer>(), new List<Prediction>(), new List<Skipped>(problems));
        var done = 0;
        foreach (var batch in samples.Zip(inspector.Read(samples.Select(sample => sample.ImagePath), cancellation)).Chunk(config.BatchSize))
        {
            var readable = Readable(batch, config.Strict, skipped, progress);
            if (readable.Count > 0)
            {
                var features = inspector.Prompts.Encode([.. readable.Select(item => item.Image)]);
                var questions = readable.Select((item, i) => new Question(item.Sample.Object, [features[i]])).ToArray();
                foreach (var (item, verdict) in readable.Zip(inspector.Inspect(questions, (uint)done, cancellation)))
                {
                    judged.Add(new Judged(item.Sample.Object, item.Sample.Defect, verdict.Answer.Kind, verdict.Score));
                    answers.Add(verdict.Answer);
                    predictions.Add(ToPrediction(item.Sample, verdict));
                }

                if (untrainedProbe)
                {
                    untrained.AddRange(readable.Zip(inspector.ProbeUntrained(questions, cancellation), (item, probe) =>
                        new Judged(item.Sample.Object, item.Sample.Defect, probe > 0 ? AnswerKind.Defect : AnswerKind.Normal, probe)));
                }
            }

            done += batch.Length;
            progress?.Report(new EvalProgress(done, samples.Count));
        }

        return (Summarise(judged, untrained, answers, skipped, config), predictions);
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

    private static List<(Sample Sample, ImagePatches Image)> Readable((Sample, ReadImage)[] batch, bool strict, List<Skipped> skipped, IProgress<EvalProgress>? progress)
    {
        var readable = new List<(Sample, ImagePatches)>();
        foreach (var (sample, (file, image, problem)) in batch)
        {
            if (image is not null)
            {
                readable.Add((sample, image));
                continue;
            }

            if (strict)
            {
                throw problem!;
            }

            skipped.Add(new Skipped(file, problem!.Message));
            progress?.Report(new EvalProgress(0, 0, problem.Message + " It is passed over."));
        }

        return readable;
    }

    private static Prediction ToPrediction(Sample sample, Verdict verdict) => new()
    {
        ImagePath = sample.ImagePath,
        Object = sample.Object,
        GtLabel = sample.Defect ? 1 : 0,
        PredLabel = verdict.Answer.Kind switch { AnswerKind.Defect => 1, AnswerKind.Normal => 0, _ => null },
        PredScore = verdict.Score,
        Explanation = verdict.Answer.Reasoning,
        Completion = verdict.Completion,
        Valid = verdict.Answer.IsValid,
    };

    private static EvalResult Summarise(List<Judged> judged, List<Judged> untrained, List<Answer> answers, List<Skipped> skipped, EvalConfig config)
    {
        var pooled = Metrics.Compute(judged, config.Invalid);
        var interval = Metrics.BalancedAccuracyInterval(pooled);
        var baselines = new Dictionary<string, Figures> { ["always_normal"] = Metrics.Always(judged, AnswerKind.Normal), ["always_defect"] = Metrics.Always(judged, AnswerKind.Defect) };
        if (untrained.Count > 0)
        {
            baselines["untrained_probe"] = Metrics.Compute(untrained, config.Invalid);
        }

        return new EvalResult
        {
            Pooled = pooled,
            BalancedAccuracyInterval = interval is { } bounds ? [bounds.Low, bounds.High] : null,
            Classes = judged.GroupBy(item => item.Object).OrderBy(group => group.Key, StringComparer.Ordinal).ToDictionary(group => group.Key, group => Metrics.Compute([.. group], config.Invalid)),
            Baselines = baselines,
            InvalidKinds = answers.Where(answer => !answer.IsValid).GroupBy(answer => answer.Reason).OrderBy(group => group.Key).ToDictionary(group => group.Key.ToString(), group => group.Count()),
            Contradictions = answers.Count(answer => answer.Contradicts == true),
            Skipped = skipped,
            Settings = new Dictionary<string, object?>
            {
                ["model"] = config.Model,
                ["adapter"] = config.Adapter,
                ["data"] = config.Data.Path,
                ["split"] = config.Data.Split,
                ["limit"] = config.Limit,
                ["invalid"] = config.Invalid,
                ["votes"] = config.Votes,
                ["max_pixels"] = config.MaxPixels,
                ["max_completion_length"] = config.MaxCompletionLength,
                ["seed"] = config.Seed,
            },
        };
    }
}
