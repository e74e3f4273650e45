using System.CommandLine;

namespace LrIad.Cli;

/// <summary>How many values a setting takes.</summary>
internal enum Arity
{
    /// <summary>Present or absent.</summary>
    Flag,

    /// <summary>One.</summary>
    One,

    /// <summary>One or more after the option.</summary>
    Many,

    /// <summary>One or more without an option's name.</summary>
    Positional,
}

/// <summary>One thing a user can set: <c>--name</c> on the command line, <c>name:</c> in a configuration file. Both give text to the same rule.</summary>
/// <typeparam name="T">The verb's options.</typeparam>
/// <param name="Name">Its name.</param>
/// <param name="Arity">How many values it takes.</param>
/// <param name="Value">What help calls the value.</param>
/// <param name="Help">What it does.</param>
/// <param name="Apply">The options with it.</param>
internal sealed record Setting<T>(string Name, Arity Arity, string Value, string Help, Func<T, Values, T> Apply)
{
    /// <summary>Settings that stand for many others come before those: the lowest stage first.</summary>
    public int Stage { get; init; } = 2;

    /// <summary>What System.CommandLine knows of it.</summary>
    public Symbol ToSymbol() => Arity switch
    {
        Arity.Flag => new Option<bool>("--" + Name) { Description = Help },
        Arity.Positional => new Argument<string[]>(Value) { Description = Help, Arity = ArgumentArity.ZeroOrMore },
        Arity.One => new Option<string>("--" + Name) { Description = Help, HelpName = Value },
        _ => new Option<string[]>("--" + Name) { Description = Help, HelpName = Value, Arity = ArgumentArity.OneOrMore, AllowMultipleArgumentsPerToken = true },
    };
}

/// <summary>Settings written shortly.</summary>
/// <typeparam name="T">The verb's options.</typeparam>
internal static class Settings<T>
{
    public static Setting<T> Flag(string name, string help, Func<T, Values, T> apply) => new(name, Arity.Flag, "", help, apply);

    public static Setting<T> One(string name, string value, string help, Func<T, Values, T> apply) => new(name, Arity.One, value, help, apply);

    public static Setting<T> Many(string name, string value, string help, Func<T, Values, T> apply) => new(name, Arity.Many, value, help, apply);

    public static Setting<T> Positional(string value, string help, Func<T, Values, T> apply) => new(value, Arity.Positional, value, help, apply);
}
