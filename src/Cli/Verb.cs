using System.CommandLine;
using System.CommandLine.Parsing;
using LrIad.Engine;

namespace LrIad.Cli;

/// <summary>Makes commands out of settings: defaults, then the configuration file, then the command line; then one call.</summary>
internal static class Verb
{
    private const string ConfigOption = "config";

    /// <summary>Makes a command.</summary>
    /// <param name="host">What all verbs share.</param>
    /// <param name="name">The verb.</param>
    /// <param name="help">What it does.</param>
    /// <param name="defaults">Its options when nothing is given.</param>
    /// <param name="settings">What can be given.</param>
    /// <param name="run">Runs it; returns the exit code.</param>
    /// <param name="hasConfigFile">Whether settings may come from <c>--config FILE</c>.</param>
    public static Command Create<T>(Host host, string name, string help, T defaults, IReadOnlyList<Setting<T>> settings, Func<T, Session, int> run, bool hasConfigFile = false)
    {
        var command = new Command(name, help);
        var symbols = settings.Select(setting => setting.ToSymbol()).ToArray();
        foreach (var symbol in symbols)
        {
            Add(command, symbol);
        }

        var config = new Option<string>("--" + ConfigOption) { Description = "settings by the names of these options, in YAML or JSON; the command line overrides them", HelpName = "FILE" };
        if (hasConfigFile)
        {
            command.Add(config);
        }

        command.SetAction(parsed =>
        {
            var file = hasConfigFile ? parsed.GetValue(config) : null;
            var fromFile = file is null ? [] : ReadFile(file, settings);
            var fromLine = settings.Zip(symbols).Select(pair => (Setting: pair.First, Values: Given(parsed, pair.First, pair.Second))).Where(given => given.Values is not null);
            var options = fromFile.Concat(fromLine).OrderBy(given => given.Setting.Stage).Aggregate(defaults, (current, given) => given.Setting.Apply(current, given.Values!));
            return run(options, host.Session(parsed));
        });
        return command;
    }

    private static void Add(Command command, Symbol symbol)
    {
        if (symbol is Option option)
        {
            command.Add(option);
        }
        else
        {
            command.Add((Argument)symbol);
        }
    }

    private static (Setting<T> Setting, Values? Values)[] ReadFile<T>(string file, IReadOnlyList<Setting<T>> settings) =>
        [.. ConfigFile.Read(file).Select(given => (settings.FirstOrDefault(setting => setting.Name == given.Name) ?? throw Unknown(given.Values.Where, given.Name, settings), (Values?)given.Values))];

    private static Values? Given<T>(ParseResult parsed, Setting<T> setting, Symbol symbol)
    {
        SymbolResult? result = symbol switch
        {
            // What stands for an option that was not given.
            Option option when parsed.GetResult(option) is { Implicit: true } => null,
            Option option => parsed.GetResult(option),
            _ => parsed.GetResult((Argument)symbol),
        };
        var texts = result?.Tokens.Select(token => token.Value).ToArray();
        return texts switch
        {
            null => null,
            [] when setting.Arity == Arity.Flag => new Values("--" + setting.Name, ["true"]),
            [] => null,
            _ => new Values(setting.Arity == Arity.Positional ? setting.Value : "--" + setting.Name, texts),
        };
    }

    private static InputException Unknown<T>(string where, string name, IReadOnlyList<Setting<T>> settings)
    {
        var meant = settings.FirstOrDefault(setting => setting.Name == name.TrimStart('-').Replace('_', '-'));
        return new InputException($"{where} is no setting; {(meant is null ? "the names are those of the options, without --" : $"it is written {meant.Name}")}.");
    }
}
