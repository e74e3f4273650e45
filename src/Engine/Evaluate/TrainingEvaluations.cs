using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;

namespace LrIad.Engine.Evaluate;

/// <summary>Evaluations in the course of a run, of the adapter as it stands: before the first step, every so many steps, and after the last.</summary>
internal sealed class TrainingEvaluations : IDisposable
{
    private readonly TrainConfig _config;
    private readonly RunFolder _folder;
    private readonly Inspector _inspector;
    private readonly DataSet _data;
    private int _lastStep = -1;

    public TrainingEvaluations(TrainConfig config, QwenModel model, Backend backend, RunFolder folder, AdapterWeights adapter)
    {
        (_config, _folder) = (config, folder);
        _data = ImageFolder.Read(config.EvalData!);
        _inspector = new Inspector(model, backend, adapter, new InspectionOptions
        {
            MaxPixels = config.MaxPixels,
            MaxPromptLength = config.MaxPromptLength,
            PromptTemplate = config.PromptTemplate,
            Seed = config.Seed,
        });
    }

    /// <summary>The first evaluation of this process.</summary>
    public EvalResult? First { get; private set; }

    /// <summary>The last one.</summary>
    public EvalResult? Last { get; private set; }

    /// <summary>Whether to evaluate after a step.</summary>
    public bool IsDue(int step, int steps) => step != _lastStep && (step == 0 || step == steps || (_config.EvalSteps > 0 && step % _config.EvalSteps == 0));

    /// <summary>Evaluates and writes eval-{step}/ in the run's folder.</summary>
    public EvalResult Run(int step, CancellationToken cancellation)
    {
        var settings = new EvalConfig { Model = _config.Model, Adapter = $"{_config.Out}, step {step}", Data = _config.EvalData!, MaxPixels = _config.MaxPixels, Seed = _config.Seed, BatchSize = 32 };
        var (result, predictions) = Evaluation.Judge(_inspector, _data.Samples, _data.Problems, settings, null, cancellation);
        var folder = _folder.File($"eval-{step}");
        Directory.CreateDirectory(folder);
        Evaluation.Write(folder, result, predictions);
        First ??= result;
        Last = result;
        _lastStep = step;
        return result;
    }

    public void Dispose() => _inspector.Dispose();
}
