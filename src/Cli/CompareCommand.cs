using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using LrIad.Engine;
using LrIad.Engine.Compare;
using LrIad.Engine.Config;
using LrIad.Engine.Evaluate;
using static LrIad.Cli.Settings<LrIad.Cli.CompareOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>compare</c>.</summary>
internal sealed record CompareOptions
{
    public IReadOnlyList<string> Files { get; init; } = [];

    public string? Json { get; init; }
}

/// <summary>Systems on the same images, side by side.</summary>
internal static class CompareCommand
{
    private static readonly IReadOnlyList<Setting<CompareOptions>> Settings =
    [
        Positional("NAME=FILE", "predictions: predictions.jsonl of eval, or JSON lines or CSV of another system; without NAME= the file's name", (o, v) => o with { Files = v.Texts }),
        One("json", "FILE", "write the figures there too", (o, v) => o with { Json = Files.Writable(v) }),
    ];

    public static Command Create(Host host) =>
        Verb.Create(host, "compare", "Sets predictions of several systems on the same images side by side, with McNemar's test.", new CompareOptions(), Settings, Run);

    private static int Run(CompareOptions options, Session session)
    {
        if (options.Files.Count == 0)
        {
            throw new InputException("Files to compare are needed: NAME=FILE NAME=FILE ...");
        }

        var files = options.Files.Select(Named).ToArray();
        if (files.CountBy(file => file.Name).FirstOrDefault(name => name.Value > 1) is { Key: { } twice })
        {
            throw new InputException($"Two files are called {twice}; tell them apart with NAME=FILE.");
        }

        var comparison = Comparison.Of(files);
        Show(comparison, session.Screen);
        if (options.Json is { } json)
        {
            AtomicFile.WriteText(json, JsonSerializer.Serialize(comparison, ConfigRules.Json));
            session.Screen.Result($"written to {json}");
        }

        return 0;
    }

    private static (string Name, string File) Named(string text) =>
        text.IndexOf('=', StringComparison.Ordinal) is > 0 and var at && !File.Exists(text) ? (text[..at], text[(at + 1)..]) : (Path.GetFileNameWithoutExtension(text), text);

    private static void Show(Comparison comparison, Screen screen)
    {
        var width = comparison.Systems.Max(system => system.Name.Length) + 2;
        string Row(string name, params IEnumerable<string> cells) => $"  {name.PadRight(Math.Max(16, width))}{string.Concat(cells.Select(cell => cell.PadLeft(12)))}";
        string Figures(string name, Figures f) =>
            Row(name, Show(f.BalancedAccuracy), Show(f.Recall), Show(f.Specificity), Show(f.Accuracy), Show(f.F1Macro), Show(f.Auroc), Show(f.AveragePrecision), Show(f.Invalid));

        screen.Result($"{comparison.Images} images that all have");
        screen.Result(Row("system", "balanced", "recall", "specificity", "accuracy", "macro-F1", "AUROC", "AP", "invalid"));
        foreach (var (name, figures) in comparison.Baselines)
        {
            screen.Result(Figures(name, figures));
        }

        foreach (var system in comparison.Systems)
        {
            screen.Result(Figures(system.Name, system.Figures));
        }

        foreach (var system in comparison.Systems)
        {
            if (system.BestF1Threshold is { } threshold)
            {
                screen.Result(string.Create(CultureInfo.InvariantCulture, $"{system.Name} gives scores alone: defects are those from {threshold:G6} on, the threshold with the best F1 on these very images, which flatters it."));
            }

            if (system.Images > comparison.Images)
            {
                screen.Result(string.Create(CultureInfo.InvariantCulture, $"{system.Name} has {system.Images - comparison.Images} images more, which are not counted."));
            }
        }

        foreach (var pair in comparison.Pairs)
        {
            screen.Result(string.Create(CultureInfo.InvariantCulture, $"{pair.First} alone is right on {pair.FirstAlone}, {pair.Second} alone on {pair.SecondAlone}: p = {pair.P:G3} (McNemar, exact)"));
        }
    }

    private static string Show(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "–";

    private static string Show(int value) => value.ToString(CultureInfo.InvariantCulture);
}
