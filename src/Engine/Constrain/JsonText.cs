using System.Text.Json;

namespace LrIad.Engine.Constrain;

/// <summary>
/// How JSON is written. Each character of a string is written in one way: as itself, but for those that have an escape of a backslash and a letter; other control characters are not written.
/// A comma and a colon may be followed by one space; there is no other white space.
/// </summary>
internal static class JsonText
{
    private static readonly (int Point, string Written)[] Escapes = [('"', "\\\""), ('\\', "\\\\"), ('\b', "\\b"), ('\f', "\\f"), ('\n', "\\n"), ('\r', "\\r"), ('\t', "\\t")];
    private static readonly CodePointSet Escaped = CodePointSet.Of([(0, ' ' - 1), ('"', '"'), ('\\', '\\')]);

    public static RegexNode Comma { get; } = Separator(",");

    public static RegexNode Colon { get; } = Separator(":");

    /// <summary>Any character of a string, as it is written.</summary>
    public static RegexNode AnyCharacter { get; } = Written(RegexNode.Of(CodePointSet.All));

    public static RegexNode AnyString { get; } = Quoted(RegexNode.Many(AnyCharacter, 0, null));

    /// <summary>A string whose characters are one of these texts.</summary>
    public static RegexNode String(RegexNode content) => Quoted(Written(content));

    public static RegexNode String(string content) => String(RegexNode.Literal(content));

    /// <summary>Quotation marks around what is written already.</summary>
    public static RegexNode Quoted(RegexNode written) => RegexNode.Concat(RegexNode.Literal("\""), written, RegexNode.Literal("\""));

    public static RegexNode Array(RegexNode content) => RegexNode.Concat(RegexNode.Literal("["), content, RegexNode.Literal("]"));

    public static RegexNode Object(IReadOnlyList<RegexNode.Item> members) => RegexNode.Concat(RegexNode.Literal("{"), RegexNode.Listed(Comma, members), RegexNode.Literal("}"));

    /// <param name="key">The key, with its quotation marks.</param>
    /// <param name="value">The value.</param>
    public static RegexNode Member(RegexNode key, RegexNode value) => RegexNode.Concat(key, Colon, value);

    /// <summary>Exactly this value; numbers as they stand there.</summary>
    public static RegexNode Value(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => Object([.. value.EnumerateObject().Select(member => new RegexNode.Item(Member(String(member.Name), Value(member.Value)), Required: true))]),
        JsonValueKind.Array => Array(RegexNode.Listed(Comma, [.. value.EnumerateArray().Select(item => new RegexNode.Item(Value(item), Required: true))])),
        JsonValueKind.String => String(value.GetString()!),
        _ => RegexNode.Literal(value.GetRawText()),
    };

    /// <summary>A key that is none of these, as it is written.</summary>
    public static RegexNode KeyOtherThan(IReadOnlyCollection<string> keys)
    {
        // Either it leaves all keys at some character, with anything after it, or it ends before a key does.
        var words = keys.Select(key => key.EnumerateRunes().Select(rune => rune.Value).ToArray()).ToList();
        return String(RegexNode.AnyOf(RegexNode.Concat(Leaving(words, 0), RegexNode.Many(RegexNode.Of(CodePointSet.All), 0, null)), Within(words, 0)));
    }

    private static RegexNode Leaving(IReadOnlyList<int[]> words, int at)
    {
        var branches = words.Where(word => word.Length > at).GroupBy(word => word[at]).ToList();
        var others = RegexNode.Of(CodePointSet.Of(branches.Select(branch => (branch.Key, branch.Key))).Complement());
        return RegexNode.AnyOf([others, .. branches.Select(branch => RegexNode.Concat(RegexNode.Of(CodePointSet.Of(branch.Key)), Leaving([.. branch], at + 1)))]);
    }

    private static RegexNode Within(IReadOnlyList<int[]> words, int at)
    {
        var here = words.Any(word => word.Length == at) ? RegexNode.Nothing : RegexNode.Empty;
        var branches = words.Where(word => word.Length > at).GroupBy(word => word[at]).ToList();
        return branches.Count == 0 ? here : RegexNode.AnyOf([here, .. branches.Select(branch => RegexNode.Concat(RegexNode.Of(CodePointSet.Of(branch.Key)), Within([.. branch], at + 1)))]);
    }

    private static RegexNode Separator(string mark) => RegexNode.Concat(RegexNode.Literal(mark), RegexNode.Optional(RegexNode.Literal(" ")));

    // The same tree over the characters' written forms.
    private static RegexNode Written(RegexNode node) => node switch
    {
        RegexNode.Set set => RegexNode.AnyOf([RegexNode.Of(set.Points.Except(Escaped)), .. Escapes.Where(escape => set.Points.Contains(escape.Point)).Select(escape => RegexNode.Literal(escape.Written))]),
        RegexNode.Sequence sequence => RegexNode.Concat([.. sequence.Parts.Select(Written)]),
        RegexNode.Union union => RegexNode.AnyOf([.. union.Parts.Select(Written)]),
        RegexNode.Repeat repeat => RegexNode.Many(Written(repeat.Body), repeat.Min, repeat.Max),
        _ => throw new ArgumentException($"{node.GetType().Name} is no text of a string.", nameof(node)),
    };
}
