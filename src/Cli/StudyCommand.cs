using System.CommandLine;
using LrIad.Engine.Study;
using LrIad.Learn;
using static LrIad.Cli.Settings<LrIad.Cli.StudyOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>study</c>: the grid, and those of <c>train</c> that all its runs share.</summary>
internal sealed record StudyOptions
{
    public StudyConfig Config { get; init; } = new();

    public TrainOptions Train { get; init; } = new();
}

/// <summary>Ways of training, compared.</summary>
internal static class StudyCommand
{
    // What the grid itself decides, or what makes no sense for many runs.
    private static readonly string[] NotShared = ["seed", "reward", "resume", "profile", "eval-steps", "save-only-model"];

    private static readonly IReadOnlyList<Setting<StudyOptions>> Settings =
    [
        Many("arms", "NAMES", $"ways of training to compare ({string.Join(',', StudyArm.Default)}); {string.Join(", ", StudyArm.All.Select(arm => arm.Name))}, or all", (o, v) => o with { Config = o.Config with { Arms = v.List } }),
        Many("seeds", "N,N", "seeds; every arm is trained with each (0,1,2)", (o, v) => o with { Config = o.Config with { Seeds = [.. v.List.Select(seed => new Values("--seeds", [seed]).Seed)] } }),
        Flag("both-directions", "also train on --eval-data and test on --data", (o, v) => o with { Config = o.Config with { BothDirections = v.Flag } }),
        One("batch-size", "N", "test images judged side by side (32)", (o, v) => o with { Config = o.Config with { BatchSize = DataOptions.Positive(v) } }),
        .. TrainOptions.All.Where(setting => !NotShared.Contains(setting.Name)).Select(Shared),
    ];

    public static Command Create(Host host) =>
        Verb.Create(host, "study", "Trains and tests a grid of ways and seeds, and writes the tables. The same command goes on where it was stopped.", new StudyOptions(), Settings, Run, hasConfigFile: true);

    private static Setting<StudyOptions> Shared(Setting<TrainOptions> setting) =>
        new(setting.Name, setting.Arity, setting.Value, setting.Help, (o, v) => o with { Train = setting.Apply(o.Train, v) }) { Stage = setting.Stage };

    private static int Run(StudyOptions options, Session session)
    {
        var config = options.Config with { Train = options.Train.Resolve() };
        _ = config.Runs();
        using var backend = Devices.Open(options.Train.Device);
        try
        {
            var rows = Watch.Run<StudyProgress, IReadOnlyList<StudyRow>>(
                session.Screen, new StudyView(TimeProvider.System), progress => GridStudy.Run(config, backend, PolicyLearner.Create, progress, session.Cancellation));
            session.Screen.Result(StudyTables.Of(rows).TrimEnd());
            session.Screen.Result($"written to {config.Train.Out}");
            return 0;
        }
        catch (OperationCanceledException)
        {
            session.Screen.Note($"To go on: the same command (what is finished is in {config.Train.Out}).");
            throw;
        }
    }
}
