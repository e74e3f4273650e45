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
        Many("categories", "NAMES", DataOptions.CategoriesHelp, (o, v) => o with { Data = o.Data with { Categories = DataOptions.Categories(v) } }),
        Many("without-categories", "NAMES", DataOptions.WithoutCategoriesHelp, (o, v) => o with { Data = o.Data with { WithoutCategories = DataOptions.Categories(v) } }),
        Flag("json", "answer in JSON", (o, v) => o with { Json = v.Flag }),
    ];

    public static Command Create(Host host) =>
        Verb.Create(host, "stats", "Counts images per class, category and split, as the paper's Table I, and tells what cannot be used.", new DataStatsOptions(), Settings, Run);

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
        session.Screen.Result($"{"",-24}{"defect",10}{"normal",10}{"ratio",10}");
        foreach (var (name, counts) in stats.Categories.Append(new("all", stats.All)))
        {
            foreach (var row in Rows(name, counts))
            {
                session.Screen.Result(row);
            }
        }

        foreach (var problem in data.Problems)
        {
            session.Screen.Result($"not used: {problem.ImagePath}: {problem.Reason}");
        }

        return 0;
    }

    // Splits have rows where there is more than one.
    private static IEnumerable<string> Rows(string name, DataCounts counts)
    {
        yield return Row(name, counts.Counts);
        foreach (var (split, of) in counts.Splits.Where(_ => counts.Splits.Count > 1))
        {
            yield return Row("  " + split, of);
        }

        if (counts.DefectTypes.Count > 0)
        {
            yield return $"  {string.Join(", ", counts.DefectTypes.Select(type => $"{type.Key} {type.Value.ToString("N0", CultureInfo.InvariantCulture)}"))}";
        }
    }

    private static object ToJson(DataSet data, DataStats stats) => new
    {
        data.Layout,
        stats.All.Counts.Defect,
        stats.All.Counts.Normal,
        stats.All.Counts.DefectShare,
        stats.All.Splits,
        stats.All.DefectTypes,
        Categories = stats.Categories.ToDictionary(category => category.Key, category => new
        {
            category.Value.Counts.Defect,
            category.Value.Counts.Normal,
            category.Value.Counts.DefectShare,
            category.Value.Splits,
            category.Value.DefectTypes,
        }),
        data.Problems,
    };

    private static string Row(string name, ClassCounts counts) => string.Create(
        CultureInfo.InvariantCulture, $"{name,-24}{counts.Defect,10:N0}{counts.Normal,10:N0}{(counts.DefectShare is { } share ? string.Create(CultureInfo.InvariantCulture, $"{100 * share:F1}%") : "–"),10}");
}
