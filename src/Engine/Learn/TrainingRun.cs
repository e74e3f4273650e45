using System.Text.Json;
using System.Text.Json.Nodes;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;

namespace LrIad.Engine.Learn;

/// <summary>What a step reports to whoever watches.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="Steps">Steps in all.</param>
/// <param name="Metrics">What was logged of it.</param>
/// <param name="Note">Something to tell the user, or null.</param>
internal sealed record TrainingProgress(int Step, int Steps, JsonObject? Metrics, string? Note = null);

/// <summary>What a finished run says.</summary>
/// <param name="Steps">Steps done in all.</param>
/// <param name="Checkpoint">The last checkpoint.</param>
/// <param name="Before">Evaluation before the first step, if any.</param>
/// <param name="After">The last evaluation, if any.</param>
internal sealed record TrainingSummary(int Steps, string Checkpoint, EvalResult? Before, EvalResult? After);

/// <summary>Everything a run holds: model, data, adapter, and the state that a checkpoint keeps. <see cref="Training"/> tells what happens to it.</summary>
internal sealed class TrainingRun : IDisposable
{
    private readonly Backend _backend;
    private readonly IProgress<TrainingProgress>? _progress;
    private readonly RunFolder _folder;
    private readonly QwenModel _model;
    private readonly Tokenizer _tokenizer;
    private readonly DataSet _data;
    private readonly TrainingSampler _sampler;
    private readonly PromptEncoder _prompts;
    private readonly FeatureStore _features;
    private readonly CheckpointStore _checkpoints;
    private readonly TrainLog _log;
    private readonly TrainingEvaluations? _evaluations;
    private readonly HashSet<string> _trained;
    private TrainerState _state;

    private TrainingRun(TrainConfig config, Backend backend, LearnerFactory learners, bool resume, IProgress<TrainingProgress>? progress, CancellationToken cancellation)
    {
        (Config, _backend, _progress) = (config, backend, progress);
        ConfigRules.Check(config);
        Rewards = new RewardRule(config.Reward, new RewardRegistry());
        _data = config.Data.Count > 0 ? ImageFolder.Read(config.Data) : throw new InputException("Training data are needed: --data DIR.");
        _sampler = new TrainingSampler([.. _data.Samples.Select(sample => sample.Defect)], config.Balance, config.Seed);
        _ = new TrainingSampler([.. _data.Samples.Select(sample => sample.Defect)], balance: true, config.Seed);
        _trained = [.. ImageHashes.Of(_data.Samples.Select(sample => sample.ImagePath), cancellation).Values];
        var test = config.EvalData is null ? null : TestSet.Read(config.EvalData, reference: null, config.Seed, limit: 0, cancellation);
        RequireApart(test);
        var (geometry, free) = (QwenModel.ReadGeometry(config.Model), backend.FreeBytes);
        var plan = MemoryPlan.For(geometry, config, backend.ActivationType, free);
        if (free is not null)
        {
            Note($"memory: {plan.Describe(free)}");
        }

        _model = QwenModel.Load(config.Model, backend);
        _tokenizer = Tokenizer.Load(_model.TokenizerFile);
        _prompts = new PromptEncoder(_model, backend, _tokenizer, PromptTemplate.Load(config.PromptTemplate), config.MaxPromptLength);
        _features = new FeatureStore(_prompts, new ImageProcessor(_model.Preprocessor, config.MaxPixels));
        Steps = config.Steps > 0 ? config.Steps : Math.Max(1, (int)Math.Ceiling(config.Epochs * _data.Samples.Count / config.PromptsPerStep));

        var shape = AdapterWeights.ShapeFor(_model.Geometry, config.Lora.Rank);
        Learner = learners(shape, config.Lora, config.Objective, config.Optimizer, config.Seed);
        Adapter = new AdapterWeights(backend, shape);
        Gradients = new AdapterWeights(backend, shape);
        Generator = new Generator(_model, backend, AnswerOptions.Find(_tokenizer), MemoryPlan.Limits(config));
        Pass = new PolicyPass(_model, backend, plan.PassRows, MemoryPlan.PassSegments(config), config.Lora.Rank, plan.Recompute);

        _evaluations = test is null ? null : new TrainingEvaluations(config, _model, backend, Adapter, test, _trained);
        _folder = RunFolder.Open(config.Out, mayHoldResults: resume);
        _checkpoints = new CheckpointStore(config.Out);
        _state = resume ? Restore() : new TrainerState { ClassWindow = ClassWindow.Start(_data.Samples.Count(s => s.Defect), _data.Samples.Count(s => !s.Defect)) };
        Adapter.Upload(Learner.Publish());
        AtomicFile.WriteText(_folder.File("config.json"), JsonSerializer.Serialize(config, ConfigRules.Json));
        _log = new TrainLog(config.Out, _state.Step);
        _evaluations?.Resume(config.Out, _state.Step);
        foreach (var problem in _data.Problems)
        {
            Note($"{problem.ImagePath} is passed over: {problem.Reason}");
        }
    }

    public TrainConfig Config { get; }

    public RewardRule Rewards { get; }

    public IPolicyLearner Learner { get; }

    public AdapterWeights Adapter { get; }

    public AdapterWeights Gradients { get; }

    public Generator Generator { get; }

    public PolicyPass Pass { get; }

    /// <summary>Steps in all.</summary>
    public int Steps { get; }

    public bool Finished => _state.Step >= Steps;

    public bool WantsReference => Config.Objective.Beta > 0 && Config.Objective.KlTo == "reference";

    public double LearningRate => LearningRateSchedule.At(Config.Optimizer.Schedule, Config.Optimizer.LearningRate, _state.Step, Config.Optimizer.WarmupSteps, Steps);

    public static TrainingRun Open(TrainConfig config, Backend backend, LearnerFactory learners, bool resume, IProgress<TrainingProgress>? progress, CancellationToken cancellation) =>
        new(config, backend, learners, resume, progress, cancellation);

    /// <summary>LoRA dropout of the step's training forward; every iteration has its own masks.</summary>
    public Dropout Dropout(int iteration) => new((float)Config.Lora.Dropout, Config.Seed, (_state.Step * Config.NumIterations) + iteration, 0);

    /// <summary>The next prompts; images that cannot be read are passed over and the next samples take their place.</summary>
    public TrainingBatch NextBatch(CancellationToken cancellation)
    {
        var (samples, requests, skipped, position) = (new List<Sample>(), new List<GroupRequest>(), new List<Skipped>(), _state.SamplerPosition);
        while (samples.Count < Config.PromptsPerStep)
        {
            var wanted = Enumerable.Range(0, Config.PromptsPerStep - samples.Count).Select(i => _data.Samples[_sampler.At(position + i)]).ToArray();
            position += wanted.Length;
            var found = _features.Get([.. wanted.Select(sample => sample.ImagePath)], cancellation);
            foreach (var (sample, (features, problem)) in wanted.Zip(found))
            {
                if (features is null)
                {
                    Skip(sample, problem!, skipped);
                    continue;
                }

                requests.Add(new GroupRequest(_prompts.Build(sample.Object, [features]), Config.NumGenerations, _state.NextSample + (uint)(samples.Count * Config.NumGenerations)));
                samples.Add(sample);
            }
        }

        _features.ReadAhead(Enumerable.Range(0, Config.PromptsPerStep).Select(i => _data.Samples[_sampler.At(position + i)].ImagePath));
        return new TrainingBatch(samples, requests, position, skipped);
    }

    /// <summary>The rewards of all completions.</summary>
    public RewardTable Score(TrainingBatch batch, IReadOnlyList<Group> groups)
    {
        var answers = groups.Select(group => group.Completions.Select(Parse).ToArray()).ToArray();
        var parts = groups.Select((group, g) => Rewards.Score(
            answers[g], batch.Samples[g].Defect, _state.ClassWindow, group.Probe,
            Rewards.WantsAnswerProbability ? AnswerProbabilities(group, batch.Samples[g].Defect) : null)).ToArray();
        return new RewardTable([.. parts.Select(group => group.Select(rewards => rewards.Sum()).ToArray())], parts, answers);
    }

    /// <summary>The batch in pieces that fit a pass.</summary>
    public IEnumerable<MicroBatch> MicroBatches(IReadOnlyList<Group> groups, AdvantageResult advantages)
    {
        var (completions, tokens) = (groups.Sum(group => group.Completions.Count), groups.Sum(group => group.Completions.Sum(completion => completion.Tokens.Length)));
        var first = 0;
        foreach (var micro in Pass.MicroBatches(groups))
        {
            yield return new MicroBatch(micro, advantages.Values[first..(first + micro.Length)], completions, tokens, Config.Sampling.MaxCompletionLength, Config.NumIterations > 1);
            first += micro.Length;
        }
    }

    /// <summary>Takes a finished step into the state and the logs.</summary>
    public void Finish(TrainingBatch batch, IReadOnlyList<Group> groups, RewardTable rewards, AdvantageResult advantages, StepRecord step)
    {
        var learningRate = LearningRate;
        foreach (var sample in batch.Samples)
        {
            _state.ClassWindow.Add(sample.Defect);
        }

        _state.Step++;
        _state.SamplerPosition = batch.Position;
        _state.NextSample += (uint)(batch.Samples.Count * Config.NumGenerations);
        _state.NumTokens += groups.Sum(group => (long)PolicyPass.Rows(group));
        var epoch = (double)batch.Position / _data.Samples.Count;
        var metrics = StepMetrics.Of(_state, Config, Rewards.Names, groups, rewards, advantages, step, learningRate, epoch);
        _state.History.Add(metrics);
        _log.Metrics(metrics);
        _log.Completions(StepMetrics.Completions(_state.Step, batch, groups, rewards, advantages, _tokenizer));
        _progress?.Report(new TrainingProgress(_state.Step, Steps, metrics));
    }

    /// <summary>Evaluates where the run asks for it at this step.</summary>
    public void EvaluateIfDue(CancellationToken cancellation)
    {
        if (_evaluations is not null && _evaluations.IsDue(_state.Step, Steps))
        {
            Note($"evaluating on {Config.EvalData!.Path} ...");
            var result = _evaluations.Run(_folder, _state.Step, _state.History, cancellation);
            Note($"step {_state.Step}, {Config.EvalData.Path}: {result.Headline}");
        }
    }

    /// <summary>Saves every so many steps.</summary>
    public void SaveIfDue()
    {
        if (Config.SaveSteps > 0 && _state.Step % Config.SaveSteps == 0)
        {
            Save();
        }
    }

    /// <summary>Saves a checkpoint of the last finished step.</summary>
    public string Save() => _checkpoints.Save(_state.Step, (folder, write) =>
    {
        AdapterFile.Save(folder, Learner.Parameters(), Learner.Shape, Config.Lora, Path.GetFileName(Path.GetFullPath(Config.Model)), Config.MaxPixels, write);
        write(Path.Combine(folder, ImageHashes.FileName), stream => ImageHashes.Write(stream, _trained));
        write(Path.Combine(folder, "config.json"), stream => JsonSerializer.Serialize(stream, Config, ConfigRules.Json));
        if (!Config.SaveOnlyModel)
        {
            write(Path.Combine(folder, "optimizer.safetensors"), stream => SafeTensorsWriter.Write(stream, Learner.SaveOptimizer().Select(array => (array.Name, array.Shape, array.Values))));
            write(Path.Combine(folder, "trainer_state.json"), _state.Write);
        }
    });

    /// <summary>What there is to say at the end.</summary>
    public TrainingSummary Summary() => new(_state.Step, Save(), _evaluations?.First, _evaluations?.Last);

    public void Dispose()
    {
        _evaluations?.Dispose();
        _log.Dispose();
        _prompts.Dispose();
        Pass.Dispose();
        Generator.Dispose();
        Gradients.Dispose();
        Adapter.Dispose();
        Learner.Dispose();
        _model.Dispose();
        _folder.Dispose();
    }

    // What is learned by heart proves nothing.
    private void RequireApart(TestSet? test)
    {
        if (!Config.AllowOverlap && test is not null && ImageHashes.Shared(test.Hashes, _trained) is { Count: > 0 } shared)
        {
            throw new InputException(
                $"{shared.Count} of the {test.Samples.Count} images of --eval-data are training images: {ImageHashes.Name(shared)}. Choose other ones (--split, --eval-split, --categories), or go on all the same with --allow-overlap.");
        }
    }

    private Answer Parse(Completion completion) => Answer.Parse(_tokenizer.Decode(completion.Ended ? completion.Tokens[..^1] : completion.Tokens), completion.Ended);

    private double[] AnswerProbabilities(Group group, bool defect) =>
        Pass.OptionProbabilities(group, Config.Sampling.Temperature, Adapter, tokens => AnswerOptions.Locate(_tokenizer, tokens), defect);

    private TrainerState Restore()
    {
        if (_checkpoints.FindNewest(Note) is not { } checkpoint)
        {
            throw new InputException($"{Config.Out} holds no whole checkpoint to resume from.");
        }

        var optimizer = Path.Combine(checkpoint.Folder, "optimizer.safetensors");
        if (!File.Exists(optimizer))
        {
            throw new InputException($"{checkpoint.Folder} holds the adapter alone (--save-only-model): there is nothing to resume from.");
        }

        ConfigRules.RequireSameRun(checkpoint.Folder, Config);
        _trained.UnionWith(ImageHashes.Read(checkpoint.Folder) ?? []);
        Learner.SetParameters(AdapterFile.Load(checkpoint.Folder, _model.Geometry).Factors);
        using var state = SafeTensors.Open(optimizer);
        Learner.LoadOptimizer([.. state.Names.Select(name => new StateArray(name, [.. state.Shape(name).Select(size => (int)size)], state.Read(name)))]);
        Note($"going on from {checkpoint.Folder}");
        return TrainerState.Read(Path.Combine(checkpoint.Folder, "trainer_state.json"));
    }

    private void Skip(Sample sample, InputException problem, List<Skipped> skipped)
    {
        if (Config.Strict)
        {
            throw problem;
        }

        skipped.Add(new Skipped(sample.ImagePath, problem.Message));
        Note(problem.Message + " It is passed over.");
        if (skipped.Count > _data.Samples.Count)
        {
            throw new InputException($"None of the {_data.Samples.Count} training images can be read; the last one: {problem.Message}");
        }
    }

    private void Note(string text) => _progress?.Report(new TrainingProgress(_state?.Step ?? 0, Steps, null, text));
}
