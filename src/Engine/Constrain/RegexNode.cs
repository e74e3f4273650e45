namespace LrIad.Engine.Constrain;

/// <summary>A language of texts, as a syntax tree over characters. What can match nothing vanishes while the tree is built.</summary>
internal abstract class RegexNode
{
    private RegexNode()
    {
    }

    /// <summary>The empty text alone.</summary>
    public static RegexNode Empty { get; } = new Sequence([]);

    /// <summary>No text at all.</summary>
    public static RegexNode Nothing { get; } = new Union([]);

    public bool IsNothing => this is Union { Parts.Count: 0 };

    public static RegexNode Of(CodePointSet points) => points.IsEmpty ? Nothing : new Set(points);

    /// <summary>Exactly this text.</summary>
    public static RegexNode Literal(string text) => Concat([.. text.EnumerateRunes().Select(rune => Of(CodePointSet.Of(rune.Value)))]);

    public static RegexNode Concat(params IReadOnlyList<RegexNode> parts) =>
        parts.Any(part => part.IsNothing) ? Nothing : parts.Count == 1 ? parts[0] : new Sequence(parts);

    public static RegexNode AnyOf(params IReadOnlyList<RegexNode> parts)
    {
        var possible = parts.Where(part => !part.IsNothing).ToList();
        return possible.Count == 1 ? possible[0] : new Union(possible);
    }

    /// <summary>At least min and at most max (null: any number) texts of a language in a row.</summary>
    public static RegexNode Many(RegexNode body, int min, int? max) => body.IsNothing ? (min == 0 ? Empty : Nothing) : new Repeat(body, min, max);

    public static RegexNode Optional(RegexNode body) => Many(body, 0, 1);

    /// <summary>A selection of the items in their order, all of the required ones among them, with the separator between each two. An item that repeats stands any number of times.</summary>
    public static RegexNode Listed(RegexNode separator, IReadOnlyList<Item> items) =>
        items.Any(item => item.Required && item.Body.IsNothing) ? Nothing : new List(separator, [.. items.Where(item => !item.Body.IsNothing)]);

    /// <summary>A character of a set.</summary>
    public sealed class Set(CodePointSet points) : RegexNode
    {
        public CodePointSet Points => points;
    }

    /// <summary>One after the other.</summary>
    public sealed class Sequence(IReadOnlyList<RegexNode> parts) : RegexNode
    {
        public IReadOnlyList<RegexNode> Parts => parts;
    }

    /// <summary>One of them.</summary>
    public sealed class Union(IReadOnlyList<RegexNode> parts) : RegexNode
    {
        public IReadOnlyList<RegexNode> Parts => parts;
    }

    public sealed class Repeat(RegexNode body, int min, int? max) : RegexNode
    {
        public RegexNode Body => body;

        public int Min => min;

        public int? Max => max;
    }

    /// <summary>As a node of its own, for its automaton holds each item once; written out with the others it would hold each many times.</summary>
    public sealed class List(RegexNode separator, IReadOnlyList<Item> items) : RegexNode
    {
        public RegexNode Separator => separator;

        public IReadOnlyList<Item> Items => items;
    }

    /// <param name="Body">What it is.</param>
    /// <param name="Required">Whether it must be there.</param>
    /// <param name="Repeats">Whether it may be there many times.</param>
    public sealed record Item(RegexNode Body, bool Required = false, bool Repeats = false);
}
