using System.Globalization;
using System.Text;

namespace LrIad.Engine.Tests.Constrain;

/// <summary>Random regular expressions of the supported subset, and texts that have a chance to match.</summary>
internal static class RandomPattern
{
    private static readonly string[] Characters = ["a", "b", "c", "1", "9", "_", "-", " ", "é", "€", "一", "\n", "\r", "\t", "\v", "{", "}", "\"", "ß", "\uFFFF", "]"];
    private static readonly string[] Escapes = ["\\n", "\\t", "\\r", "\\f", "\\v", "\\x61", "\\x7F", "\\u00e9", "\\u20AC", "\\.", "\\\\", "\\-", "\\{", "\\}", "\\[", "\\]", "\\/", "\\\"", "\\d", "\\D", "\\w", "\\W", "\\s", "\\S"];
    private static readonly string[] Members = ["a", "b", "é", " ", "_", "a-c", "0-9", "é-€", "\\d", "\\W", "\\s", "\\S", "\\]", "\\\\", "\\x30-\\x39", "^", "{", ".", "$", "\\-", "\\u4e00-\\u9fff", "一", "[", "|", "("];
    private const int Greedy = 8;
    private static readonly string[] Quantifiers = ["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "{0}", "*?", "+?", "??", "{1,2}?"];

    public static string Next(Random random, int depth = 3)
    {
        var pattern = Alternatives(random, depth);
        return random.Next(3) == 0 ? "^" + pattern + "$" : pattern;
    }

    public static string Text(Random random)
    {
        var text = new StringBuilder();
        for (var length = random.Next(6); length > 0; length--)
        {
            text.Append(Characters[random.Next(Characters.Length)]);
        }

        return text.ToString();
    }

    // Whatever the alternatives are, an anchor before and after them must belong to one: only a single one is left bare.
    private static string Alternatives(Random random, int depth)
    {
        var count = random.Next(3) == 0 ? 2 + random.Next(2) : 1;
        var alternatives = string.Join('|', Enumerable.Range(0, count).Select(_ => Sequence(random, depth)));
        return count == 1 ? alternatives : $"({alternatives})";
    }

    private static string Sequence(Random random, int depth) => string.Concat(Enumerable.Range(0, random.Next(4)).Select(_ => Part(random, depth)));

    private static string Part(Random random, int depth)
    {
        var kind = random.Next(depth > 0 ? 6 : 4);
        var atom = kind switch
        {
            0 => Escapes[random.Next(Escapes.Length)],
            1 => Class(random),
            2 => ".",
            3 => Characters[random.Next(15)],
            4 => $"(?:{Alternatives(random, depth - 1)})",
            _ => $"({string.Join('|', Enumerable.Range(0, 1 + random.Next(3)).Select(_ => Sequence(random, depth - 1)))})",
        };
        // Lazy ones on single characters alone: over a group that may be empty, .NET's backtracking misses matches.
        var quantifier = Quantifiers[random.Next(kind < 4 ? Quantifiers.Length : Greedy)];
        return random.Next(3) == 0 ? atom + quantifier : atom;
    }

    private static string Class(Random random)
    {
        var members = string.Concat(Enumerable.Range(0, 1 + random.Next(3)).Select(_ => Members[random.Next(Members.Length)]));
        return string.Create(CultureInfo.InvariantCulture, $"[{(random.Next(3) == 0 ? "^" : "")}a{members}]");
    }
}
