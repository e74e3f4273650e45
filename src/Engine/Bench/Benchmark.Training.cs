using System.Diagnostics;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;

namespace LrIad.Engine.Bench;

// A GRPO step, phase by phase, with the parts that training has.
internal sealed partial class Benchmark
{
    private const int TrainedTokens = 200;
    private const int StepRepeats = 3;
    private const int SoakSteps = 500;
    private const int SoakTokens = 48;

    /// <summary>
    /// A step of some prompts with eight completions of 200 tokens each, dropout and reference included, and its phases: groups go through training passes one by
    /// one, with their prompts computed once. Without a learner the objective and the optimizer are left out.
    /// </summary>
    public IEnumerable<BenchRow> Grpo(int prompts, LearnerFactory? learners)
    {
        _backend.Context.ForgetPeak();
        using var step = new GrpoStep(this, prompts, TrainedTokens, learners);
        var (work, groupRows) = ($"{prompts} × {GroupSize} × {TrainedTokens}", PromptTokens + (GroupSize * (TrainedTokens - 1)));
        var (tokens, scored) = ((long)prompts * groupRows, (long)prompts * GroupSize * TrainedTokens);
        var unseen = 2L * prompts * (PromptTokens - 1) * UnseenWeights;
        var (layers, head) = ((2 * tokens * LayerWeights) - unseen, 2 * scored * HeadWeights);

        // Every completion token sees the prompt and what is in front of it in its own completion.
        var pairs = prompts * (((long)PromptTokens * PromptTokens / 2) + (GroupSize * TrainedTokens * (PromptTokens + (TrainedTokens / 2L))));
        var attention = 4 * pairs * Text.Heads * Text.HeadDim * Text.Layers;
        var forward = layers + head + attention;
        var backward = layers + (2 * head) + (attention * 5 / 2);

        step.Run();
        var phases = new SortedDictionary<string, List<double>>(StringComparer.Ordinal);
        for (var i = 0; i < StepRepeats; i++)
        {
            foreach (var (phase, seconds) in step.Run())
            {
                (phases.TryGetValue(phase, out var times) ? times : phases[phase] = []).Add(seconds * 1e3);
            }
        }

        double Middle(string phase) => phases[phase].Order().ElementAt(StepRepeats / 2);
        var rollout = TrainedTokens * (((LayerWeights + HeadWeights) * sizeof(ushort)) + (((prompts * PromptTokens) + ((long)prompts * GroupSize * TrainedTokens / 2)) * KvBytes));
        yield return Row($"GRPO {work}: images and prompts", Middle("prompts"), VisionBytes, prompts * VisionFlops);
        yield return Row($"GRPO {work}: rollout", Middle("rollout"), rollout, (2 * prompts * PromptTokens * LayerWeights) - unseen);
        yield return Row($"GRPO {work}: reference log-probs", Middle("reference"), LayerWeights * sizeof(ushort), forward);
        var policy = Row($"GRPO {work}: policy forward + backward", Middle("forward") + Middle("backward"), LayerWeights * sizeof(ushort), forward + backward);
        yield return policy with { Bound = Invariant($"{policy.Bound}; log-probs of rollout and forward differ by {step.Mismatch:F5} a token") };
        if (learners is not null)
        {
            yield return Row($"GRPO {work}: objective and optimizer", Middle("objective") + Middle("optimizer"), 0, 0);
        }

        var all = Row($"GRPO {work}: whole step", Middle("step"), rollout, (2 * forward) + backward);
        var floor = (rollout / Ceilings.ReadBytesPerSecond * 1e3) + (((2 * forward) + backward) / Ceilings.FlopsPerSecond * 1e3);
        yield return all with { Floor = floor, Bound = Invariant($"rollout by bytes, the rest by FLOP; {_backend.Context.PeakBytes() / 1073741824.0:F1} GiB of memory, planned {step.Planned / 1073741824.0:F1}") };
    }

    /// <summary>
    /// Hundreds of steps, one after another, of one prompt with eight short completions: neither a step's time nor the memory it leaves may change, and a gradient that is
    /// not finite ends it.
    /// </summary>
    public IEnumerable<BenchRow> Soak(LearnerFactory learners)
    {
        const int part = SoakSteps / 10;
        using var step = new GrpoStep(this, prompts: 1, SoakTokens, learners);
        var (milliseconds, taken) = (new double[SoakSteps], new long[SoakSteps]);
        for (var i = 0; i < SoakSteps; i++)
        {
            if (i % part == 0)
            {
                _backend.Context.ForgetPeak();
            }

            milliseconds[i] = step.Run().Single(phase => phase.Key == "step").Value * 1e3;
            taken[i] = _backend.Context.PeakBytes();
        }

        foreach (var (name, first) in new[] { ("first", 0), ("last", SoakSteps - part) })
        {
            var row = Row($"GRPO 1 × {GroupSize} × {SoakTokens}: {name} {part} of {SoakSteps} steps", milliseconds[first..(first + part)].Order().ElementAt(part / 2), 0, 0);
            yield return row with { Bound = Invariant($"{taken[first..(first + part)].Max() / 1073741824.0:F3} GiB of memory at most") };
        }
    }

    private static TrainConfig GrpoConfig(int prompts, int completionTokens) => new()
    {
        PromptsPerStep = prompts,
        NumGenerations = GroupSize,
        MaxPromptLength = PromptTokens,
        MaxPixels = GridH * GridW * 14 * 14,
        Sampling = new SamplingOptions { MaxCompletionLength = completionTokens },
    };

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);

    /// <summary>What <see cref="Training"/> does in a step, on prompts that mean nothing.</summary>
    private sealed class GrpoStep : IDisposable
    {
        private readonly Benchmark _owner;
        private readonly int _prompts;
        private readonly VisionEncoder _vision;
        private readonly Arena _arena;
        private readonly Tensor _features;
        private readonly Generator _generator;
        private readonly PolicyPass _pass;
        private readonly AdapterWeights _adapter;
        private readonly AdapterWeights _gradients;
        private readonly IPolicyLearner? _learner;
        private readonly SamplingOptions _sampling;
        private readonly ImagePatches _image;
        private int _steps;

        public GrpoStep(Benchmark owner, int prompts, int completionTokens, LearnerFactory? learners)
        {
            (_owner, _prompts) = (owner, prompts);
            var (model, backend) = (owner._model, owner._backend);
            var (config, lora) = (GrpoConfig(prompts, completionTokens), new LoraOptions { Rank = AdapterRank });
            var plan = MemoryPlan.For(model.Geometry, config, ElementType.BFloat16, null);
            Planned = plan.Total;
            _sampling = config.Sampling;
            var shape = AdapterWeights.ShapeFor(model.Geometry, lora.Rank);
            _vision = new VisionEncoder(model, backend);
            _image = owner.Image();
            _arena = backend.CreateArena("benchmark");
            _features = _arena.Allocate(ElementType.BFloat16, prompts * GridH * GridW / 4, owner.Text.Hidden);
            _generator = new Generator(model, backend, new AnswerOptions([1, 2, 3], 4, 5), MemoryPlan.Limits(config));
            _pass = new PolicyPass(model, backend, plan.PassRows, MemoryPlan.PassSegments(config), lora.Rank, plan.Recompute);
            (_adapter, _gradients) = (new AdapterWeights(backend, shape), new AdapterWeights(backend, shape));
            _learner = learners?.Invoke(shape, lora, new ObjectiveOptions(), new OptimizerOptions(), 0);
            if (_learner is not null)
            {
                _adapter.Upload(_learner.Publish());
            }
        }

        /// <summary>Mean difference of a token's log-prob when drawn and in the training pass without dropout.</summary>
        public double Mismatch { get; private set; }

        /// <summary>Bytes that the memory plan says.</summary>
        public long Planned { get; }

        /// <summary>Seconds a phase, and of the whole as "step".</summary>
        public IEnumerable<KeyValuePair<string, double>> Run()
        {
            var record = new StepRecord();
            var clock = Stopwatch.StartNew();
            var requests = Prompts().Select((prompt, i) => new GroupRequest(prompt, GroupSize, (uint)(i * GroupSize))).ToArray();
            record.Lap("prompts");
            var groups = _generator.Run(requests, _sampling, (ulong)++_steps, _adapter.Layers, probe: false, default);
            record.Lap("rollout");
            _gradients.Clear();
            var (completions, tokens) = (_prompts * GroupSize, groups.Sum(group => group.Completions.Sum(completion => completion.Tokens.Length)));
            foreach (var micro in _pass.MicroBatches(groups))
            {
                var reference = _pass.Forward(micro, 1f, adapter: null, default);
                record.Lap("reference");
                var logProb = _pass.Forward(micro, 1f, _adapter, new Dropout(0.1f, 1, _steps, 0));
                record.Lap("forward");
                var batch = new MicroBatch(micro, [.. micro.Select(group => group.Completions.Select((_, i) => i % 2 == 0 ? 1f : -1f).ToArray())], completions, tokens, _sampling.MaxCompletionLength, UseOld: false);
                var gradient = _learner?.Objective(batch.ToObjective(logProb, reference)).Gradient ?? [.. logProb.Select((_, i) => (i % 3 - 1f) / tokens)];
                record.Lap("objective");
                _pass.Backward(gradient, _gradients);
                _owner._backend.Synchronize();
                record.Lap("backward");
            }

            if (_learner is not null)
            {
                _learner.Step(_gradients.Download(), 1e-6);
                _adapter.Upload(_learner.Publish());
            }

            record.Lap("optimizer");
            var seconds = clock.Elapsed.TotalSeconds;
            var plain = _pass.Forward([groups[0]], 1f, _adapter, default);
            Mismatch = plain.Zip(groups[0].Completions.SelectMany(completion => completion.LogProbs), (a, b) => Math.Abs(a - b)).Average();
            return record.Seconds.Append(new("step", seconds));
        }

        public void Dispose()
        {
            _learner?.Dispose();
            _gradients.Dispose();
            _adapter.Dispose();
            _pass.Dispose();
            _generator.Dispose();
            _arena.Dispose();
            _vision.Dispose();
        }

        // Each an image in the middle of some text.
        private IEnumerable<EncodedPrompt> Prompts()
        {
            const int first = 15, tokens = GridH * GridW / 4;
            _vision.Encode([.. Enumerable.Repeat(_image, _prompts)], _features);
            for (var prompt = 0; prompt < _prompts; prompt++)
            {
                var rows = _features.Slice(prompt * tokens, tokens).Bytes;
                var features = GC.AllocateUninitializedArray<byte>(rows.Length);
                _owner._backend.Download<byte>(rows, features);
                var ids = Enumerable.Range(0, PromptTokens).Select(i => i is >= first and < first + tokens ? -(i - first) - 1 : _owner._random.Next(150000)).ToArray();
                yield return new EncodedPrompt(ids, [.. Enumerable.Range(0, PromptTokens).Select(i => (i, i, i))], PromptTokens, features);
            }
        }
    }
}
