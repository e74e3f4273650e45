using LrIad.Engine.Config;

namespace LrIad.Engine.Study;

/// <summary>One way of training among those that a study compares.</summary>
/// <param name="Name">Its name, and that of its folders.</param>
/// <param name="Meaning">What it changes, for readers of the tables.</param>
/// <param name="Change">The shared configuration as this arm has it; null: the model as it comes, untrained.</param>
internal sealed record StudyArm(string Name, string Meaning, Func<TrainConfig, TrainConfig>? Change)
{
    /// <summary>The model as it comes.</summary>
    public const string Base = "base";

    /// <summary>All there are: the paper's two (Tables III and IV), then one choice of the method at a time.</summary>
    public static IReadOnlyList<StudyArm> All { get; } =
    [
        new(Base, "untrained", null),
        new("accuracy", "format + accuracy", config => Rewards(config, reward => reward with { Names = ["format", "accuracy"] })),
        new("focal", "format + focal, p the share of the group that is right", config => Rewards(config, reward => reward)),
        new("focal-probe", "p of the probe, before any reasoning", config => Rewards(config, reward => reward with { FocalP = "probe" })),
        new("focal-answer", "p of the answer, after its own reasoning", config => Rewards(config, reward => reward with { FocalP = "answer" })),
        new("no-class-factor", "f = 1 for both classes", config => Rewards(config, reward => reward with { FocalClassWeights = "1,1" })),
        new("class-factor-only", "gamma = 0: f alone", config => Rewards(config, reward => reward with { FocalGamma = 0 })),
        new("balance", "format + focal, classes drawn half and half", config => Rewards(config, reward => reward) with { Balance = true }),
        new("accuracy-balance", "format + accuracy, classes drawn half and half", config => Rewards(config, reward => reward with { Names = ["format", "accuracy"] }) with { Balance = true }),
        new("scale-batch", "advantages divided by the batch's spread", config => Objective(config, objective => objective with { ScaleRewards = "batch" })),
        new("scale-group", "advantages divided by the group's spread", config => Objective(config, objective => objective with { ScaleRewards = "group" })),
        new("scale-none", "advantages not divided", config => Objective(config, objective => objective with { ScaleRewards = "none" })),
        new("dr_grpo", "loss: sum over the longest length", config => Objective(config, objective => objective with { LossType = "dr_grpo" })),
        new("dapo", "loss: mean over all tokens", config => Objective(config, objective => objective with { LossType = "dapo" })),
        new("gspo", "loss: ratios of whole completions", config => Objective(config, objective => objective with { LossType = "gspo" })),
    ];

    /// <summary>What is compared where nothing is said: the paper's question, and the focal reward's rival.</summary>
    public static IReadOnlyList<string> Default { get; } = [Base, "accuracy", "focal", "accuracy-balance"];

    /// <summary>Arms by name; <c>all</c> stands for every one.</summary>
    /// <exception cref="InputException">There is none of that name.</exception>
    public static IReadOnlyList<StudyArm> Find(IReadOnlyList<string> names)
    {
        ArgumentNullException.ThrowIfNull(names);
        return names.Contains("all")
            ? All
            : [.. names.Distinct().Select(name => All.FirstOrDefault(arm => arm.Name == name)
                ?? throw new InputException($"--arms: there is no arm '{name}'. There are {string.Join(", ", All.Select(arm => arm.Name))}, and all."))];
    }

    private static TrainConfig Rewards(TrainConfig config, Func<RewardOptions, RewardOptions> change) =>
        config with { Reward = change(config.Reward with { Names = ["format", "focal"] }) };

    private static TrainConfig Objective(TrainConfig config, Func<ObjectiveOptions, ObjectiveOptions> change) =>
        Rewards(config, reward => reward) with { Objective = change(config.Objective) };
}
