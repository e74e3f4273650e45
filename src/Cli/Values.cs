using System.Globalization;
using LrIad.Engine;

namespace LrIad.Cli;

/// <summary>What somebody gave for one setting, and where: the option on the command line, or file, line and key.</summary>
internal sealed record Values(string Where, IReadOnlyList<string> Texts)
{
    public string Text => Texts.Count == 1 ? Texts[0] : throw Bad("takes one value");

    /// <summary>The parts of one or more comma-separated texts.</summary>
    public IReadOnlyList<string> List => [.. Texts.SelectMany(text => text.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))];

    public int Integer => int.TryParse(Text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var value) ? value : throw Bad($"must be a whole number, not '{Text}'");

    /// <summary>Whole numbers from 0 on.</summary>
    public int Count => Integer >= 0 ? Integer : throw Bad($"must not be negative, as {Text} is");

    public ulong Seed => ulong.TryParse(Text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : throw Bad($"must be a whole number from 0 on, not '{Text}'");

    public double Number => double.TryParse(Text, NumberStyles.Float, CultureInfo.InvariantCulture, out var value) && double.IsFinite(value) ? value : throw Bad($"must be a number, not '{Text}'");

    public bool Flag => Text switch
    {
        "true" => true,
        "false" => false,
        _ => throw Bad($"must be true or false, not '{Text}'"),
    };

    public string OneOf(params string[] allowed) =>
        allowed.Contains(Text, StringComparer.Ordinal) ? Text : throw Bad($"must be {string.Join(", ", allowed[..^1])}{(allowed.Length > 1 ? " or " : "")}{allowed[^1]}, not '{Text}'");

    public InputException Bad(string problem) => new($"{Where} {problem}.");
}
