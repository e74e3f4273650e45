using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using static LrIad.Cli.Settings<LrIad.Cli.DataStatsOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>data stats</c>.</summary>
internal sealed record DataStatsOptions
{
    /// <summary>What to count.</summary>
    public DataSource Data { get; init; } = new("");

    /// <summary>Whether to answer in JSON.</summary>
    public bool Json { get; init; }
}

/// <summary>Counts a data folder per class and category: the paper's Table I.</summary>
internal static class DataStatsCommand
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    private static readonly Setting<DataStatsOptions>[] Settings =
    [
        One("data", "DIR", "data folder or manifest", (o, v) => o with { Data = o.Data with { Path = v.Text } }),
        One("layout", "NAME", DataOptions.LayoutHelp, (o, v) => o with { Data = o.Data with { Layout = DataOptions.Layout(v) } }),
        One("split", "NAME", DataOptions.SplitHelp, (o, v) => o with { Data = o.Data with { Split = DataOptions.Split(v) } }),
        Flag("json", "answer in JSON", (o, v) => o with { Json = v.Flag }),
    ];

    public static Command Create(Host host) =>
        Verb.Create(host, "stats", "Counts images per class and category, and tells what cannot be used.", new DataStatsOptions(), Settings, Run);

    private static int Run(DataStatsOptions options, Session session)
    {
        DataOptions.Require(options.Data.Path, "--data DIR");
        var data = ImageFolder.Read(options.Data);
        var stats = DataStats.Of(data.Samples);
        if (options.Json)
        {
            session.Screen.Result(JsonSerializer.Serialize(ToJson(data, stats), Indented));
            return 0;
        }

        session.Screen.Result($"{options.Data.Path}, read as layout {data.Layout}");
        session.Screen.Result(Row("category", "defect", "normal", "defects"));
        foreach (var (name, (defect, normal)) in stats.Categories)
        {
            session.Screen.Result(Row(name, defect, normal));
        }

        session.Screen.Result(Row("all", stats.Defect, stats.Normal));
        foreach (var problem in data.Problems)
        {
            session.Screen.Result($"not used: {problem.ImagePath}: {problem.Reason}");
        }

        return 0;
    }

    private static object ToJson(DataSet data, DataStats stats) => new
    {
        data.Layout,
        stats.Defect,
        stats.Normal,
        stats.DefectShare,
        Categories = stats.Categories.ToDictionary(category => category.Key, category => new { category.Value.Defect, category.Value.Normal }),
        data.Problems,
    };

    private static string Row(string name, int defect, int normal) => Row(
        name, defect.ToString("N0", CultureInfo.InvariantCulture), normal.ToString("N0", CultureInfo.InvariantCulture),
        defect + normal == 0 ? "–" : (100.0 * defect / (defect + normal)).ToString("F1", CultureInfo.InvariantCulture) + "%");

    private static string Row(string name, string defect, string normal, string share) => $"{name,-24}{defect,10}{normal,10}{share,10}";
}
