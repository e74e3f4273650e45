using System.Globalization;
using System.Text.Json.Nodes;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;

namespace LrIad.Engine.Evaluate;

/// <summary>Evaluations in the course of a run, of the adapter as it stands: before the first step, every so many steps, and after the last.</summary>
internal sealed class TrainingEvaluations : IDisposable
{
    private readonly TrainConfig _config;
    private readonly Inspector _inspector;
    private readonly TestSet _test;
    private readonly IReadOnlyCollection<string> _trained;
    private readonly SortedDictionary<int, EvalResult> _course = [];
    private int _lastStep = -1;

    /// <param name="config">The run.</param>
    /// <param name="model">The base model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="adapter">The adapter that learns.</param>
    /// <param name="test">What to evaluate on.</param>
    /// <param name="trained">SHA-256 of the training images.</param>
    public TrainingEvaluations(TrainConfig config, QwenModel model, Backend backend, AdapterWeights adapter, TestSet test, IReadOnlyCollection<string> trained)
    {
        (_config, _test, _trained) = (config, test, trained);
        _inspector = new Inspector(model, backend, adapter, new InspectionOptions
        {
            MaxPixels = config.MaxPixels,
            MaxPromptLength = config.MaxPromptLength,
            PromptTemplate = config.PromptTemplate,
            Seed = config.Seed,
        });
    }

    /// <summary>The first evaluation of the run.</summary>
    public EvalResult? First => _course.Values.FirstOrDefault();

    /// <summary>The last one.</summary>
    public EvalResult? Last => _course.Values.LastOrDefault();

    /// <summary>Whether to evaluate after a step.</summary>
    public bool IsDue(int step, int steps) => step != _lastStep && (step == 0 || step == steps || (_config.EvalSteps > 0 && step % _config.EvalSteps == 0));

    /// <summary>Takes in what a run that is resumed evaluated before.</summary>
    /// <param name="folder">The run's folder.</param>
    /// <param name="step">Steps already done; later evaluations are those of a past that will be repeated.</param>
    public void Resume(string folder, int step)
    {
        foreach (var path in Directory.GetDirectories(folder, "eval-*"))
        {
            var file = Path.Combine(path, "metrics.json");
            if (int.TryParse(Path.GetFileName(path)["eval-".Length..], NumberStyles.None, CultureInfo.InvariantCulture, out var at) && at <= step && File.Exists(file))
            {
                _course[at] = Evaluation.Read(file);
            }
        }
    }

    /// <summary>Evaluates, writes eval-{step}/ in the run's folder, and brings report.html up to date.</summary>
    /// <param name="folder">The run's folder.</param>
    /// <param name="step">Steps done.</param>
    /// <param name="training">What was logged of them.</param>
    /// <param name="cancellation">Stops it.</param>
    public EvalResult Run(RunFolder folder, int step, IReadOnlyList<JsonObject> training, CancellationToken cancellation)
    {
        var settings = new EvalConfig { Model = _config.Model, Adapter = $"{_config.Out}, step {step}", Data = _config.EvalData!, MaxPixels = _config.MaxPixels, Seed = _config.Seed, BatchSize = 32 };
        var (result, predictions) = Evaluation.Judge(new QuestionStream(_test, _inspector, settings, null), _inspector, settings, _test.OverlapWith(_trained), untrainedProbe: false, cancellation);
        Directory.CreateDirectory(folder.File($"eval-{step}"));
        Evaluation.Write(folder.File($"eval-{step}"), result, predictions);
        _course[step] = result;
        _lastStep = step;
        Report.Write(folder.File("report.html"), new ReportData
        {
            Result = result,
            Predictions = predictions,
            Before = step > 0 && _course.TryGetValue(0, out var before) ? before : null,
            Training = training,
            Course = [.. _course.Select(point => (point.Key, point.Value.Pooled))],
        }, cancellation);
        return result;
    }

    public void Dispose() => _inspector.Dispose();
}
