using System.Diagnostics;
using LrIad.Engine.Data;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Learn;

/// <summary>The samples of a step and what to draw for them.</summary>
/// <param name="Samples">A sample a group.</param>
/// <param name="Requests">A request a group.</param>
/// <param name="Position">Where the sampler stands afterwards.</param>
/// <param name="Skipped">Images that could not be read.</param>
internal sealed record TrainingBatch(IReadOnlyList<Sample> Samples, IReadOnlyList<GroupRequest> Requests, long Position, IReadOnlyList<Skipped> Skipped);

/// <summary>Rewards of a step: [group][completion] totals, and [group][completion][reward].</summary>
internal sealed record RewardTable(IReadOnlyList<double[]> Totals, IReadOnlyList<double[][]> Parts, IReadOnlyList<Text.Answer[]> Answers);

/// <summary>Groups that go through the decoder together, with their advantages.</summary>
internal sealed record MicroBatch(Group[] Groups, float[][] Advantages, int BatchCompletions, int BatchTokens, int MaxCompletionLength, bool UseOld)
{
    /// <summary>What the objective sees.</summary>
    public ObjectiveBatch ToObjective(float[] logProb, float[]? reference)
    {
        var completions = Groups.SelectMany(group => group.Completions).ToArray();
        var start = new int[completions.Length + 1];
        for (var i = 0; i < completions.Length; i++)
        {
            start[i + 1] = start[i] + completions[i].Tokens.Length;
        }

        return new ObjectiveBatch
        {
            LogProb = logProb,
            OldLogProb = UseOld ? [.. completions.SelectMany(completion => completion.LogProbs)] : null,
            ReferenceLogProb = reference,
            Start = start,
            Advantage = [.. Advantages.SelectMany(values => values)],
            BatchCompletions = BatchCompletions,
            BatchTokens = BatchTokens,
            MaxCompletionLength = MaxCompletionLength,
        };
    }
}

/// <summary>What a step adds up to, and where its time went.</summary>
internal sealed class StepRecord
{
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private double _last;

    /// <summary>Every phase as it came: when it began and how long it took, in seconds of the step.</summary>
    public List<(string Phase, double Start, double Seconds)> Laps { get; } = [];

    /// <summary>Seconds a phase.</summary>
    public SortedDictionary<string, double> Seconds { get; } = new(StringComparer.Ordinal);

    public double Loss { get; private set; }

    public double KlSum { get; private set; }

    public long ClippedTokens { get; private set; }

    public double GradNorm { get; set; }

    public double TotalSeconds => _clock.Elapsed.TotalSeconds;

    /// <summary>Ends a phase.</summary>
    public void Lap(string phase)
    {
        var now = TotalSeconds;
        Laps.Add((phase, _last, now - _last));
        Seconds[phase] = Seconds.GetValueOrDefault(phase) + now - _last;
        _last = now;
    }

    public void Add(ObjectiveResult objective)
    {
        Loss += objective.Loss;
        KlSum += objective.KlSum;
        ClippedTokens += objective.ClippedTokens;
    }
}
