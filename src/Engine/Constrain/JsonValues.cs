namespace LrIad.Engine.Constrain;

/// <summary>The kinds of JSON values, unconfined.</summary>
internal static class JsonValues
{
    public static RegexNode Null { get; } = RegexNode.Literal("null");

    public static RegexNode Boolean { get; } = RegexNode.AnyOf(RegexNode.Literal("true"), RegexNode.Literal("false"));

    /// <summary>A whole number of at most 18 digits.</summary>
    public static RegexNode Integer { get; } = RegexParser.Parse("-?(0|[1-9][0-9]{0,17})", "An integer");

    /// <summary>At most 18 digits before the point and 18 after it, and an exponent of at most two.</summary>
    public static RegexNode Number { get; } = RegexNode.Concat(Integer, RegexParser.Parse("(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", "A number"));

    /// <summary>Any value with objects and arrays in it to this many levels.</summary>
    public static RegexNode Any(int levels) =>
        RegexNode.AnyOf([JsonText.AnyString, Number, Boolean, Null, .. levels == 0 ? Array.Empty<RegexNode>() : [AnyObject(levels), AnyArray(levels)]]);

    /// <summary>Any object; its own level counts.</summary>
    public static RegexNode AnyObject(int levels) => JsonText.Object([new RegexNode.Item(JsonText.Member(JsonText.AnyString, Any(levels - 1)), Repeats: true)]);

    /// <summary>Any array; its own level counts.</summary>
    public static RegexNode AnyArray(int levels) => JsonText.Array(RegexNode.Listed(JsonText.Comma, [new RegexNode.Item(Any(levels - 1), Repeats: true)]));
}
