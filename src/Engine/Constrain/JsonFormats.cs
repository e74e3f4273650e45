namespace LrIad.Engine.Constrain;

/// <summary>The formats of strings that are supported.</summary>
internal static class JsonFormats
{
    // Years from 1000 to 2999; the 29th of February in leap years alone.
    private const string Date = "[12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
        + "|([12][0-9](0[48]|[2468][048]|[13579][26])|(12|16|20|24|28)00)-02-29";

    private const string Time = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
    private const string Uuid = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
    private const string Label = "[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?";

    private static readonly Dictionary<string, string> Patterns = new()
    {
        ["date"] = Date,
        ["time"] = Time,
        ["date-time"] = $"({Date})T({Time})",
        ["uuid"] = Uuid,
        ["email"] = $"[A-Za-z0-9_+-]{{1,20}}(\\.[A-Za-z0-9_+-]{{1,20}}){{0,2}}@({Label}\\.){{1,3}}[A-Za-z]{{2,10}}",
        ["ipv4"] = "((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    };

    /// <summary>Their names, as a sentence lists them.</summary>
    public static string Names => string.Join(", ", Patterns.Keys);

    /// <summary>The texts of a format, or null.</summary>
    public static RegexNode? Of(string name) => Patterns.TryGetValue(name, out var pattern) ? RegexParser.Parse(pattern, $"The format {name}") : null;
}
