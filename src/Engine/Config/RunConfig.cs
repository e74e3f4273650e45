namespace LrIad.Engine.Config;

/// <summary>How completions are drawn. Always the run's own choice: a checkpoint's generation_config.json never decides it.</summary>
internal sealed record SamplingOptions
{
    /// <summary>Tokens a completion may have.</summary>
    public int MaxCompletionLength { get; init; } = 256;

    /// <summary>Logits are divided by it; 0 takes the most likely token.</summary>
    public float Temperature { get; init; } = 1f;

    /// <summary>Probability mass that is drawn from (1: all).</summary>
    public float TopP { get; init; } = 1f;

    /// <summary>Number of most likely tokens that are drawn from (0: all).</summary>
    public int TopK { get; init; }
}

/// <summary>Rewards and their parameters (method.md, Rewards).</summary>
internal sealed record RewardOptions
{
    /// <summary>Names of the rewards that are summed: format, focal, accuracy, or registered ones.</summary>
    public IReadOnlyList<string> Names { get; init; } = ["format", "focal"];

    /// <summary>alpha of Eq. 4.</summary>
    public double FocalAlpha { get; init; } = 1;

    /// <summary>gamma of Eq. 4.</summary>
    public double FocalGamma { get; init; } = 2;

    /// <summary>What p is: <c>group</c>, <c>probe</c> or <c>answer</c>.</summary>
    public string FocalP { get; init; } = "group";

    /// <summary>f of Eq. 4: <c>auto</c>, or two numbers "defect,normal".</summary>
    public string FocalClassWeights { get; init; } = "auto";

    /// <summary>What wrong and invalid answers get: <c>zero</c>, or <c>penalty</c> for the negative of the right answer's reward.</summary>
    public string FocalWrong { get; init; } = "zero";
}

/// <summary>LoRA on q_proj and v_proj.</summary>
internal sealed record LoraOptions
{
    /// <summary>r.</summary>
    public int Rank { get; init; } = 4;

    /// <summary>The update is scaled by alpha / r.</summary>
    public double Alpha { get; init; } = 16;

    /// <summary>Dropout on the adapter's input, in the training forward only.</summary>
    public double Dropout { get; init; } = 0.1;
}

/// <summary>What is maximised, and how (method.md, Advantage and Objective).</summary>
internal sealed record ObjectiveOptions
{
    /// <summary><c>grpo</c>, <c>dr_grpo</c>, <c>dapo</c> or <c>gspo</c>.</summary>
    public string LossType { get; init; } = "grpo";

    /// <summary>Weight of the k3 KL term; 0 switches the reference pass off.</summary>
    public double Beta { get; init; } = 0.04;

    /// <summary><c>reference</c> (adapter off) or <c>old</c>.</summary>
    public string KlTo { get; init; } = "reference";

    /// <summary>Lower clip bound is 1 − this.</summary>
    public double EpsilonLow { get; init; } = 0.2;

    /// <summary>Upper clip bound is 1 + this.</summary>
    public double EpsilonHigh { get; init; } = 0.2;

    /// <summary><c>batch</c>, <c>group</c> or <c>none</c>: what advantages are divided by.</summary>
    public string ScaleRewards { get; init; } = "batch";
}

/// <summary>AdamW and its schedule.</summary>
internal sealed record OptimizerOptions
{
    /// <summary>Peak learning rate.</summary>
    public double LearningRate { get; init; } = 1e-6;

    /// <summary><c>constant</c> or <c>cosine</c>.</summary>
    public string Schedule { get; init; } = "constant";

    /// <summary>Steps of linear warm-up.</summary>
    public int WarmupSteps { get; init; }

    /// <summary>Gradients are scaled down to this norm (0: never).</summary>
    public double MaxGradNorm { get; init; } = 1;
}

/// <summary>One data folder and how to read it.</summary>
/// <param name="Path">Folder or manifest file.</param>
/// <param name="Layout"><c>auto</c>, <c>mvtec</c>, <c>visa</c>, <c>folder</c> or <c>manifest</c>.</param>
/// <param name="Split"><c>all</c>, <c>train</c> or <c>test</c>.</param>
/// <param name="Categories">These categories alone; null: all of them.</param>
/// <param name="WithoutCategories">Categories left out; null: none.</param>
internal sealed record DataSource(string Path, string Layout = "auto", string Split = "all", IReadOnlyList<string>? Categories = null, IReadOnlyList<string>? WithoutCategories = null);

/// <summary>A training run, resolved once and saved beside its results.</summary>
internal sealed record TrainConfig
{
    /// <summary>Base model folder.</summary>
    public string Model { get; init; } = "";

    /// <summary>Training data.</summary>
    public IReadOnlyList<DataSource> Data { get; init; } = [];

    /// <summary>Evaluation data during the run, if any.</summary>
    public DataSource? EvalData { get; init; }

    /// <summary>Evaluation images may be training images too; left at false they may not.</summary>
    public bool AllowOverlap { get; init; }

    /// <summary>With <see cref="EvalData"/>: evaluate every so many steps, and before the first and after the last (0: those two alone).</summary>
    public int EvalSteps { get; init; }

    /// <summary>Output folder.</summary>
    public string Out { get; init; } = "";

    /// <summary>Optimizer steps; 0: as many as <see cref="Epochs"/> takes.</summary>
    public int Steps { get; init; }

    /// <summary>Passes over the training data when <see cref="Steps"/> is 0.</summary>
    public double Epochs { get; init; } = 1;

    /// <summary>Prompts a step.</summary>
    public int PromptsPerStep { get; init; } = 8;

    /// <summary>Completions a prompt: G.</summary>
    public int NumGenerations { get; init; } = 8;

    /// <summary>Longest prompt in tokens, images included; a longer one is an error.</summary>
    public int MaxPromptLength { get; init; } = 1024;

    /// <summary>Images are scaled down to this many pixels.</summary>
    public int MaxPixels { get; init; } = 401_408;

    /// <summary>A file with another prompt, <c>{object}</c> standing for the category; null: the paper's.</summary>
    public string? PromptTemplate { get; init; }

    /// <summary>A bad image stops the run instead of being reported and skipped.</summary>
    public bool Strict { get; init; }

    /// <summary>How completions are drawn.</summary>
    public SamplingOptions Sampling { get; init; } = new();

    /// <summary>Rewards.</summary>
    public RewardOptions Reward { get; init; } = new();

    /// <summary>Draw training samples so that classes come in equal numbers.</summary>
    public bool Balance { get; init; }

    /// <summary>Objective.</summary>
    public ObjectiveOptions Objective { get; init; } = new();

    /// <summary>Updates per rollout.</summary>
    public int NumIterations { get; init; } = 1;

    /// <summary>Optimizer.</summary>
    public OptimizerOptions Optimizer { get; init; } = new();

    /// <summary>Adapter.</summary>
    public LoraOptions Lora { get; init; } = new();

    /// <summary>Whether the backward pass computes every layer once more, which takes longer and less memory: <c>auto</c> (where it does not fit otherwise), <c>always</c> or <c>never</c>.</summary>
    public string Recompute { get; init; } = "auto";

    /// <summary>A checkpoint every so many steps (0: only at the end).</summary>
    public int SaveSteps { get; init; } = 100;

    /// <summary>Checkpoints hold the adapter alone: smaller, but nothing to resume from.</summary>
    public bool SaveOnlyModel { get; init; }

    /// <summary>Everything random follows from it.</summary>
    public ulong Seed { get; init; }

    /// <summary>Two runs give the same adapter bit for bit. Both devices always keep to it: all their sums have fixed orders.</summary>
    public bool Deterministic { get; init; }

    /// <summary>The paper's run (method.md, The paper's run, as one preset).</summary>
    public static TrainConfig LrIad { get; } = new()
    {
        PromptsPerStep = 8,
        NumGenerations = 4,
        Epochs = 1,
        SaveSteps = 100,
        Objective = new ObjectiveOptions { ScaleRewards = "group" },
    };
}

/// <summary>An evaluation, resolved once and saved beside its results.</summary>
internal sealed record EvalConfig
{
    /// <summary>Base model folder.</summary>
    public string Model { get; init; } = "";

    /// <summary>Adapter folder, or null for the base model.</summary>
    public string? Adapter { get; init; }

    /// <summary>What to evaluate on.</summary>
    public DataSource Data { get; init; } = new("");

    /// <summary>Output folder.</summary>
    public string Out { get; init; } = "";

    /// <summary>At most so many images (0: all).</summary>
    public int Limit { get; init; }

    /// <summary>How invalid answers count: <c>wrong</c>, <c>normal</c>, <c>defect</c> or <c>drop</c>.</summary>
    public string Invalid { get; init; } = "wrong";

    /// <summary>Sampled completions an image for the score (0: the probe is the score).</summary>
    public int Votes { get; init; }

    /// <summary>A faultless part shown first: <c>auto</c> for a normal image of each category, or an image file; null: none.</summary>
    public string? Reference { get; init; }

    /// <summary>Images that a threshold of the score is chosen on; null: none is chosen.</summary>
    public DataSource? ThresholdData { get; init; }

    /// <summary>With <see cref="ThresholdData"/>, how it is chosen: <c>f1</c>, <c>balanced</c>, or <c>recall=0.95</c> for a recall.</summary>
    public string? Threshold { get; init; }

    /// <summary>Images are scaled down to this many pixels; null: what the adapter was trained with, else 401,408.</summary>
    public int? MaxPixels { get; init; }

    /// <summary>Longest completion.</summary>
    public int MaxCompletionLength { get; init; } = 256;

    /// <summary>A file with another prompt; null: the paper's.</summary>
    public string? PromptTemplate { get; init; }

    /// <summary>A bad image stops the run instead of being reported and skipped.</summary>
    public bool Strict { get; init; }

    /// <summary>Images decoded side by side.</summary>
    public int BatchSize { get; init; } = 32;

    /// <summary>Of the votes, the references and the intervals.</summary>
    public ulong Seed { get; init; }
}
