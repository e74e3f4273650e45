using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Study;

/// <summary>A finished run of a study: a line of results.jsonl.</summary>
internal sealed record StudyRow
{
    /// <summary>The arm's name.</summary>
    public required string Arm { get; init; }

    /// <summary>The run's seed; 0 for the untrained model, which has none.</summary>
    public required ulong Seed { get; init; }

    /// <summary>Which data it was trained on and tested on.</summary>
    public required string Direction { get; init; }

    /// <summary>Optimizer steps.</summary>
    public required int Steps { get; init; }

    /// <summary>Seconds of training, all steps together; time between an interruption and going on is not counted.</summary>
    public required double TrainingSeconds { get; init; }

    /// <summary>Mean share of groups without spread, which teach nothing; null untrained.</summary>
    public required double? ZeroSpread { get; init; }

    /// <summary>Figures over all test images.</summary>
    public required Figures Pooled { get; init; }

    /// <summary>95% interval of the balanced accuracy.</summary>
    public required double[]? BalancedAccuracyInterval { get; init; }

    /// <summary>Figures of each category.</summary>
    public required IReadOnlyDictionary<string, Figures> Classes { get; init; }

    /// <summary>The trivial answers and the untrained probe on the same images.</summary>
    public required IReadOnlyDictionary<string, Figures> Baselines { get; init; }

    /// <summary>Answers that contradict their own reasoning.</summary>
    public required int Contradictions { get; init; }

    /// <summary>Test images that were trained on, by content; null untrained.</summary>
    public required int? TrainingImages { get; init; }

    /// <summary>Whether this is the row of a run.</summary>
    public bool Is(StudyRun run)
    {
        ArgumentNullException.ThrowIfNull(run);
        return (Arm, Seed, Direction) == (run.Arm.Name, run.Seed, run.Direction.Name);
    }
}

/// <summary>Training data and test data.</summary>
/// <param name="Train">What is trained on.</param>
/// <param name="Test">What is tested on, all of it.</param>
internal sealed record StudyDirection(IReadOnlyList<Config.DataSource> Train, Config.DataSource Test)
{
    /// <summary>Both by the names of their folders.</summary>
    public string Name => $"{string.Join('+', Train.Select(NameOf))} → {NameOf(Test)}";

    /// <summary>The name of its folder.</summary>
    public string Folder => $"{string.Join('+', Train.Select(NameOf))}-to-{NameOf(Test)}";

    private static string NameOf(Config.DataSource source) => Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(source.Path)));
}

/// <summary>One run of the grid.</summary>
/// <param name="Arm">How it is trained.</param>
/// <param name="Seed">Its seed.</param>
/// <param name="Direction">On what.</param>
internal sealed record StudyRun(StudyArm Arm, ulong Seed, StudyDirection Direction)
{
    /// <summary>What it is called on the screen.</summary>
    public string Title => Arm.Change is null ? $"{Arm.Name}, {Direction.Name}" : FormattableString.Invariant($"{Arm.Name}, seed {Seed}, {Direction.Name}");

    /// <summary>Its folder, below the study's.</summary>
    public string Folder => Path.Combine("runs", Direction.Folder, Arm.Change is null ? Arm.Name : FormattableString.Invariant($"{Arm.Name}-{Seed}"));
}
