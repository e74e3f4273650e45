using System.Text.Json;
using LrIad.Engine.Config;

namespace LrIad.Engine.Study;

/// <summary>A grid of runs: arms × seeds × directions.</summary>
internal sealed record StudyConfig
{
    /// <summary>What all arms share; its data, test data and output folder are the study's.</summary>
    public TrainConfig Train { get; init; } = new();

    /// <summary>Names of arms, or <c>all</c>.</summary>
    public IReadOnlyList<string> Arms { get; init; } = StudyArm.Default;

    /// <summary>Seeds; every trained arm is run with each.</summary>
    public IReadOnlyList<ulong> Seeds { get; init; } = [0, 1, 2];

    /// <summary>Also train on the test data and test on the training data, as the paper does.</summary>
    public bool BothDirections { get; init; }

    /// <summary>Test images judged side by side.</summary>
    public int BatchSize { get; init; } = 32;

    /// <summary>The grid in the order it is run: seed by seed, so that an unfinished study compares all arms.</summary>
    /// <exception cref="InputException">It cannot be made.</exception>
    public IReadOnlyList<StudyRun> Runs()
    {
        ConfigRules.Check(Train);
        var arms = StudyArm.Find(Arms);
        if (arms.Count == 0 || Seeds.Count == 0)
        {
            throw new InputException("A study needs at least one arm and one seed: --arms, --seeds.");
        }

        if (Train.EvalData is not { } test || Train.Data.Count == 0)
        {
            throw new InputException("A study needs data to train on and other data to test on: --data DIR, --eval-data DIR.");
        }

        if (BothDirections && Train.Data.Count > 1)
        {
            throw new InputException("--both-directions turns one --data and --eval-data round; there are several --data.");
        }

        StudyDirection there = new(Train.Data, test), back = new([test], Train.Data[0]);
        return [.. from direction in BothDirections ? [there, back] : new[] { there }
                   from seed in Seeds.Distinct()
                   from arm in arms
                   where arm.Change is not null || seed == Seeds[0]
                   select new StudyRun(arm, arm.Change is null ? 0 : seed, direction)];
    }

    /// <summary>What the runs of one folder must have in common: runs of other settings cannot stand in one table.</summary>
    internal JsonElement Shared() =>
        JsonSerializer.SerializeToElement(Train with { Out = "", Seed = 0, EvalSteps = 0, SaveSteps = 0, Data = [.. Train.Data.Append(Train.EvalData!).OrderBy(source => source.Path, StringComparer.Ordinal)], EvalData = null }, ConfigRules.Json);
}
