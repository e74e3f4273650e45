using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Learn;

/// <summary>What training takes of a GPU's memory, known from sizes and options before anything is loaded. All in bytes.</summary>
/// <param name="Weights">The model.</param>
/// <param name="Rollout">Drawing completions: caches of keys and values, and buffers; with evaluation during the run, twice that.</param>
/// <param name="Passes">Training passes: what the forward pass keeps for the backward one.</param>
/// <param name="Scratch">What single operations borrow, and the vision encoder's buffers.</param>
/// <param name="PassRows">Rows of a training pass; at least one whole group's.</param>
/// <param name="Recompute">Whether the backward pass computes every layer once more, so that little need be kept.</param>
internal sealed record MemoryPlan(long Weights, long Rollout, long Passes, long Scratch, int PassRows, bool Recompute)
{
    /// <summary>Rows of a training pass, whole groups, where memory is no matter: more do not make it faster.</summary>
    private const int FastPassRows = 4608;

    // What operations on the GPU work through at a time.
    private const int GatedRows = 2560;
    private const int ScoredRows = 1024;
    private const int GradientSplits = 64;

    private const double GiB = 1L << 30;

    /// <summary>All of it.</summary>
    public long Total => Weights + Rollout + Passes + Scratch;

    /// <summary>The limits of a run's generator.</summary>
    public static GeneratorLimits Limits(TrainConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return new GeneratorLimits(config.PromptsPerStep, config.PromptsPerStep * config.NumGenerations, config.MaxPromptLength, config.Sampling.MaxCompletionLength);
    }

    /// <summary>Prompts and completions of a training pass.</summary>
    public static int PassSegments(TrainConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config.PromptsPerStep * (config.NumGenerations + 1);
    }

    /// <summary>The plan with the most groups a pass that fits; layers are recomputed only where not even one group fits without, unless the run says otherwise.</summary>
    /// <param name="geometry">Sizes of the model.</param>
    /// <param name="config">The run.</param>
    /// <param name="type">Type of activations.</param>
    /// <param name="freeBytes">What there is, or null where only trying tells.</param>
    /// <exception cref="InputException">Not even a single group fits; says what takes how much, and what to lower.</exception>
    public static MemoryPlan For(ModelGeometry geometry, TrainConfig config, ElementType type, long? freeBytes)
    {
        ArgumentNullException.ThrowIfNull(geometry);
        ArgumentNullException.ThrowIfNull(config);
        var groupRows = config.MaxPromptLength + (config.NumGenerations * config.Sampling.MaxCompletionLength);
        var free = freeBytes ?? long.MaxValue;
        bool[] ways = config.Recompute switch { "always" => [true], "never" => [false], _ => [false, true] };
        foreach (var recompute in ways)
        {
            for (var groups = Math.Max(1, Math.Min(config.PromptsPerStep, FastPassRows / groupRows)); groups >= 1; groups--)
            {
                if (Of(geometry, config, type, groups * groupRows, recompute) is var plan && plan.Total <= free)
                {
                    return plan;
                }
            }
        }

        throw new InputException(
            $"Training does not fit: {Of(geometry, config, type, groupRows, ways[^1]).Describe(freeBytes)}. Lower --max-prompt-length, --max-completion-length, --num-generations or --prompts-per-step, "
            + $"{(ways[^1] ? "" : "leave out --recompute never, ")}or take a smaller model.");
    }

    /// <summary>It in words.</summary>
    /// <param name="freeBytes">What there is, where that is known.</param>
    public string Describe(long? freeBytes) => FormattableString.Invariant(
        $"{Total / GiB:F1} GiB{(freeBytes is { } free ? FormattableString.Invariant($" of {free / GiB:F1} free") : "")}: {Weights / GiB:F1} weights, {Rollout / GiB:F1} drawing completions, {Passes / GiB:F1} training passes of {PassRows:N0} rows{(Recompute ? ", every layer computed twice" : "")}, {Scratch / GiB:F1} scratch");

    private static MemoryPlan Of(ModelGeometry geometry, TrainConfig config, ElementType type, int passRows, bool recompute)
    {
        var (text, limits) = (geometry.Text, Limits(config));
        var generators = config.EvalData is null ? 1 : 2;
        return new MemoryPlan(
            WeightBytes(geometry), generators * Generator.Bytes(text, type, limits),
            PolicyPass.Bytes(text, type, passRows, PassSegments(config), config.Lora.Rank, recompute) + (2 * AdapterBytes(geometry, config)), ScratchBytes(geometry, config, type, Math.Max(passRows, RunningBatch.Rows(limits))), passRows, recompute);
    }

    // Of all matrices; vectors are next to nothing.
    private static long WeightBytes(ModelGeometry geometry)
    {
        var (text, vision) = (geometry.Text, geometry.Vision);
        long hidden = text.Hidden, queries = (long)text.Heads * text.HeadDim, keys = (long)text.KeyValueHeads * text.HeadDim;
        long embed = vision.EmbedDim, merged = embed * vision.MergeSize * vision.MergeSize;
        var layer = hidden * ((2 * queries) + (2 * keys) + (3L * text.Intermediate));
        var visionLayer = embed * ((4 * embed) + (2L * vision.Intermediate));
        var others = ((text.TiedHead ? 1 : 2) * hidden * text.Vocabulary) + (vision.PatchValues * embed) + (merged * (merged + hidden));
        return sizeof(ushort) * ((text.Layers * layer) + (vision.Depth * visionLayer) + others);
    }

    private static long AdapterBytes(ModelGeometry geometry, TrainConfig config)
    {
        var shape = AdapterWeights.ShapeFor(geometry, config.Lora.Rank);
        return (long)shape.Layers * shape.Rank * ((2L * shape.Hidden) + shape.QueryOutputs + shape.ValueOutputs) * sizeof(float);
    }

    // Each buffer as large as its largest use: rows before and after norms (three), of q | k | v, of the feed-forward block's inside (two), logits and their gradient,
    // sums over rows in parts; images.
    private static long ScratchBytes(ModelGeometry geometry, TrainConfig config, ElementType type, int passRows)
    {
        var (text, vision) = (geometry.Text, geometry.Vision);
        long hidden = text.Hidden, queries = (long)text.Heads * text.HeadDim, keys = (long)text.KeyValueHeads * text.HeadDim, a = type.Bytes();
        var (inside, scored) = (Math.Min(passRows, GatedRows), Math.Min(passRows, ScoredRows));
        var rows = passRows * ((3 * hidden * a) + ((queries + (2 * keys)) * a) + (2L * config.Lora.Rank * sizeof(float)));
        var block = inside * 3L * text.Intermediate * a;
        var logits = scored * (long)text.Vocabulary * (sizeof(float) + a);
        var sums = GradientSplits * (long)config.Lora.Rank * Math.Max(2 * hidden, queries + keys) * sizeof(float);
        var patches = Math.Min((long)config.PromptsPerStep * config.MaxPixels / (vision.PatchSize * vision.PatchSize), VisionEncoder.PatchesAtATime);
        var images = patches * ((vision.PatchValues * a) + (vision.PatchValues / vision.TemporalPatchSize) + (5L * vision.EmbedDim * a)) + ((long)config.PromptsPerStep * config.MaxPromptLength * hidden * a);
        return rows + block + logits + sums + images;
    }
}
