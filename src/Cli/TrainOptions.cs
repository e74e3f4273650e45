using LrIad.Engine.Config;
using static LrIad.Cli.Settings<LrIad.Cli.TrainOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>train</c>: the run's configuration, and what only the command line knows.</summary>
internal sealed record TrainOptions
{
    public TrainConfig Config { get; init; } = new();

    public IReadOnlyList<string> Data { get; init; } = [];

    public string Layout { get; init; } = "auto";

    public string Split { get; init; } = "all";

    public IReadOnlyList<string>? Categories { get; init; }

    public IReadOnlyList<string>? WithoutCategories { get; init; }

    public string? EvalData { get; init; }

    public string EvalSplit { get; init; } = "all";

    public IReadOnlyList<string>? EvalCategories { get; init; }

    public IReadOnlyList<string>? EvalWithoutCategories { get; init; }

    public string Device { get; init; } = "auto";

    public bool Resume { get; init; }

    public string? Profile { get; init; }

    /// <summary>The configuration, data sources put together.</summary>
    public TrainConfig Resolve() => Config with
    {
        Model = DataOptions.Require(Config.Model, "--model DIR (or --sample)"),
        Out = DataOptions.Require(Config.Out, "--out DIR"),
        Data = [.. Data.Select(path => new DataSource(path, Layout, Split, Categories, WithoutCategories))],
        EvalData = EvalData is null ? null : new DataSource(EvalData, "auto", EvalSplit, EvalCategories, EvalWithoutCategories),
    };

    /// <summary>What can be set. Where two contradict each other, the later one here holds.</summary>
    public static IReadOnlyList<Setting<TrainOptions>> All { get; } =
    [
        Flag("sample", "the bundled model, trained on parts-visa-large and evaluated before and after on parts-mvtec: 40 steps of 16 prompts × 8", (o, v) => v.Flag ? Sample(o) : o) with { Stage = 0 },
        One("preset", "NAME", "lr-iad: the paper's run", Preset) with { Stage = 1 },
        One("model", "DIR", "base model folder", Whole((c, v) => c with { Model = v.Text })),
        Many("data", "DIR", "training data: folders or manifests", (o, v) => o with { Data = v.Texts }),
        One("layout", "NAME", DataOptions.LayoutHelp, (o, v) => o with { Layout = DataOptions.Layout(v) }),
        One("split", "NAME", DataOptions.SplitHelp, (o, v) => o with { Split = DataOptions.Split(v) }),
        Many("categories", "NAMES", DataOptions.CategoriesHelp, (o, v) => o with { Categories = DataOptions.Categories(v) }),
        Many("without-categories", "NAMES", DataOptions.WithoutCategoriesHelp, (o, v) => o with { WithoutCategories = DataOptions.Categories(v) }),
        One("out", "DIR", "output folder", Whole((c, v) => c with { Out = v.Text })),
        One("epochs", "X", "passes over the training data (1)", Whole((c, v) => c with { Epochs = v.Number, Steps = 0 })),
        One("steps", "N", "optimizer steps, instead of --epochs", Whole((c, v) => c with { Steps = v.Count })),
        One("prompts-per-step", "N", "prompts a step (8)", Whole((c, v) => c with { PromptsPerStep = v.Integer })),
        One("num-generations", "N", "completions a prompt (8)", Whole((c, v) => c with { NumGenerations = v.Integer })),
        One("max-completion-length", "N", "tokens a completion may have (256)", Sampling((s, v) => s with { MaxCompletionLength = v.Integer })),
        One("max-prompt-length", "N", "tokens a prompt may have, images included (1024)", Whole((c, v) => c with { MaxPromptLength = v.Integer })),
        One("max-pixels", "N", "images are scaled down to this many pixels (401408)", Whole((c, v) => c with { MaxPixels = v.Integer })),
        One("temperature", "X", "of drawing completions (1)", Sampling((s, v) => s with { Temperature = (float)v.Number })),
        One("top-p", "X", "probability mass drawn from (1: all)", Sampling((s, v) => s with { TopP = (float)v.Number })),
        One("top-k", "N", "most likely tokens drawn from (0: all)", Sampling((s, v) => s with { TopK = v.Integer })),
        One("learning-rate", "X", "peak learning rate (1e-6)", Optimizer((p, v) => p with { LearningRate = v.Number })),
        One("lr-schedule", "NAME", "constant (default) or cosine", Optimizer((p, v) => p with { Schedule = v.OneOf("constant", "cosine") })),
        One("warmup-steps", "N", "steps of linear warm-up (0)", Optimizer((p, v) => p with { WarmupSteps = v.Count })),
        One("max-grad-norm", "X", "gradients are scaled down to this norm (1; 0: never)", Optimizer((p, v) => p with { MaxGradNorm = v.Number })),
        One("beta", "X", "weight of the KL term (0.04; 0: none)", Objective((b, v) => b with { Beta = v.Number })),
        One("kl-to", "NAME", "reference (default: adapter off) or old", Objective((b, v) => b with { KlTo = v.OneOf("reference", "old") })),
        One("loss-type", "NAME", "grpo (default), dr_grpo, dapo or gspo", Objective((b, v) => b with { LossType = v.OneOf("grpo", "dr_grpo", "dapo", "gspo") })),
        One("scale-rewards", "NAME", "what advantages are divided by: batch (default), group or none", Objective((b, v) => b with { ScaleRewards = v.OneOf("batch", "group", "none") })),
        One("epsilon-low", "X", "lower clip range of the ratio (0.2)", Objective((b, v) => b with { EpsilonLow = v.Number })),
        One("epsilon-high", "X", "upper clip range of the ratio (0.2)", Objective((b, v) => b with { EpsilonHigh = v.Number })),
        One("num-iterations", "N", "updates per rollout (1)", Whole((c, v) => c with { NumIterations = v.Integer })),
        Many("reward", "NAMES", "rewards that are summed (format,focal); accuracy is another", Reward((r, v) => r with { Names = v.List })),
        One("focal-alpha", "X", "alpha of the focal reward (1)", Reward((r, v) => r with { FocalAlpha = v.Number })),
        One("focal-gamma", "X", "gamma of the focal reward (2)", Reward((r, v) => r with { FocalGamma = v.Number })),
        One("focal-p", "NAME", "its p: group (default), probe or answer", Reward((r, v) => r with { FocalP = v.OneOf("group", "probe", "answer") })),
        Many("focal-class-weights", "D,N", "its f: auto (default), or two numbers for defect and normal", Reward((r, v) => r with { FocalClassWeights = string.Join(',', v.List) })),
        One("focal-wrong", "NAME", "what wrong and invalid answers get: zero (default) or penalty", Reward((r, v) => r with { FocalWrong = v.OneOf("zero", "penalty") })),
        Flag("balance", "draw defects and normal images in equal numbers", Whole((c, v) => c with { Balance = v.Flag })),
        One("lora-rank", "N", "rank of the adapter (4)", Lora((l, v) => l with { Rank = v.Integer })),
        One("lora-alpha", "X", "its alpha (16)", Lora((l, v) => l with { Alpha = v.Number })),
        One("lora-dropout", "X", "its dropout (0.1)", Lora((l, v) => l with { Dropout = v.Number })),
        One("prompt-template", "FILE", "another question; {object} stands for the category", Whole((c, v) => c with { PromptTemplate = v.Text })),
        Flag("strict", "a bad image stops the run instead of being passed over", Whole((c, v) => c with { Strict = v.Flag })),
        Flag("deterministic", "two runs give the same adapter bit for bit; both devices always keep to it, and nothing is slower for it", Whole((c, v) => c with { Deterministic = v.Flag })),
        One("recompute", "NAME", "compute layers once more in the backward pass, slower in less memory: auto (default: where memory asks for it), always or never", Whole((c, v) => c with { Recompute = v.OneOf("auto", "always", "never") })),
        One("save-steps", "N", "a checkpoint every so many steps (100; 0: at the end)", Whole((c, v) => c with { SaveSteps = v.Count })),
        Flag("save-only-model", "checkpoints hold the adapter alone: nothing to resume from", Whole((c, v) => c with { SaveOnlyModel = v.Flag })),
        One("eval-data", "DIR", "evaluate on this before and after", (o, v) => o with { EvalData = v.Text }),
        One("eval-split", "NAME", "which part of it: all (default), train or test", (o, v) => o with { EvalSplit = DataOptions.Split(v) }),
        Many("eval-categories", "NAMES", DataOptions.CategoriesHelp, (o, v) => o with { EvalCategories = DataOptions.Categories(v) }),
        Many("eval-without-categories", "NAMES", DataOptions.WithoutCategoriesHelp, (o, v) => o with { EvalWithoutCategories = DataOptions.Categories(v) }),
        Flag("allow-overlap", "evaluation images may be training images", Whole((c, v) => c with { AllowOverlap = v.Flag })),
        One("eval-steps", "N", "and every so many steps (0: not)", Whole((c, v) => c with { EvalSteps = v.Count })),
        Flag("resume", "go on from the newest whole checkpoint in --out", (o, v) => o with { Resume = v.Flag }),
        One("profile", "FILE", "where the second step's time goes, phases and kernels, as a Chrome trace", (o, v) => o with { Profile = Files.Writable(v) }),
        One("seed", "N", "everything random follows from it (0)", Whole((c, v) => c with { Seed = v.Seed })),
        One("device", "NAME", Devices.Help, (o, v) => o with { Device = Devices.Parse(v) }),
    ];

    private static TrainOptions Preset(TrainOptions options, Values values)
    {
        _ = values.OneOf("lr-iad");
        return options with { Config = TrainConfig.LrIad with { Model = options.Config.Model } };
    }

    private static TrainOptions Sample(TrainOptions options) => options with
    {
        Data = [BundledSample.Find("parts-visa-large")],
        EvalData = BundledSample.Find("parts-mvtec"),
        Config = options.Config with
        {
            Model = BundledSample.Find("tiny-qwen2-vl"),
            PromptsPerStep = 16,
            NumGenerations = 8,
            Steps = 40,
            Optimizer = options.Config.Optimizer with { LearningRate = 1.5e-3 },
            Objective = options.Config.Objective with { Beta = 0 },
        },
    };

    private static Func<TrainOptions, Values, TrainOptions> Whole(Func<TrainConfig, Values, TrainConfig> apply) => (o, v) => o with { Config = apply(o.Config, v) };

    private static Func<TrainOptions, Values, TrainOptions> Sampling(Func<SamplingOptions, Values, SamplingOptions> apply) => Whole((c, v) => c with { Sampling = apply(c.Sampling, v) });

    private static Func<TrainOptions, Values, TrainOptions> Reward(Func<RewardOptions, Values, RewardOptions> apply) => Whole((c, v) => c with { Reward = apply(c.Reward, v) });

    private static Func<TrainOptions, Values, TrainOptions> Objective(Func<ObjectiveOptions, Values, ObjectiveOptions> apply) => Whole((c, v) => c with { Objective = apply(c.Objective, v) });

    private static Func<TrainOptions, Values, TrainOptions> Optimizer(Func<OptimizerOptions, Values, OptimizerOptions> apply) => Whole((c, v) => c with { Optimizer = apply(c.Optimizer, v) });

    private static Func<TrainOptions, Values, TrainOptions> Lora(Func<LoraOptions, Values, LoraOptions> apply) => Whole((c, v) => c with { Lora = apply(c.Lora, v) });
}
