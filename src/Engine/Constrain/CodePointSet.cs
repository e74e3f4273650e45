using System.Globalization;

namespace LrIad.Engine.Constrain;

/// <summary>A set of characters: Unicode scalar values, as ascending ranges that do not touch. Halves of surrogate pairs are in none.</summary>
internal sealed class CodePointSet
{
    private const int Last = 0x10FFFF;
    private const int FirstSurrogate = 0xD800;
    private const int LastSurrogate = 0xDFFF;

    private CodePointSet(IReadOnlyList<(int From, int To)> ranges) => Ranges = ranges;

    public static CodePointSet None { get; } = new([]);

    public static CodePointSet All { get; } = Of((0, Last));

    public IReadOnlyList<(int From, int To)> Ranges { get; }

    public bool IsEmpty => Ranges.Count == 0;

    public static CodePointSet Of(int point) => Of((point, point));

    /// <summary>The union of ranges in any order.</summary>
    public static CodePointSet Of(params IEnumerable<(int From, int To)> ranges)
    {
        var scalars = ranges.SelectMany(range => new[] { (range.From, To: Math.Min(range.To, FirstSurrogate - 1)), (From: Math.Max(range.From, LastSurrogate + 1), range.To) });
        var merged = new List<(int From, int To)>();
        foreach (var (from, to) in scalars.Where(range => range.From <= range.To).OrderBy(range => range.From))
        {
            if (merged.Count > 0 && from <= merged[^1].To + 1)
            {
                merged[^1] = (merged[^1].From, Math.Max(merged[^1].To, to));
            }
            else
            {
                merged.Add((from, to));
            }
        }

        return new CodePointSet(merged);
    }

    /// <summary>All characters of Unicode's general categories that begin so: "L", "Nd".</summary>
    public static CodePointSet OfCategory(string category)
    {
        var ranges = new List<(int From, int To)>();
        for (var point = 0; point <= Last; point++)
        {
            if (!Short(CharUnicodeInfo.GetUnicodeCategory(point)).StartsWith(category, StringComparison.Ordinal))
            {
                continue;
            }

            if (ranges.Count > 0 && ranges[^1].To == point - 1)
            {
                ranges[^1] = (ranges[^1].From, point);
            }
            else
            {
                ranges.Add((point, point));
            }
        }

        return Of(ranges);
    }

    public CodePointSet Union(CodePointSet other) => Of(Ranges.Concat(other.Ranges));

    public CodePointSet Complement()
    {
        var gaps = new List<(int From, int To)>();
        var next = 0;
        foreach (var (from, to) in Ranges)
        {
            gaps.Add((next, from - 1));
            next = to + 1;
        }

        gaps.Add((next, Last));
        return Of(gaps);
    }

    public CodePointSet Except(CodePointSet other) => Complement().Union(other).Complement();

    public bool Contains(int point) => Ranges.Any(range => range.From <= point && point <= range.To);

    /// <summary>The general category's short name.</summary>
    private static string Short(UnicodeCategory category) => category switch
    {
        UnicodeCategory.UppercaseLetter => "Lu",
        UnicodeCategory.LowercaseLetter => "Ll",
        UnicodeCategory.TitlecaseLetter => "Lt",
        UnicodeCategory.ModifierLetter => "Lm",
        UnicodeCategory.OtherLetter => "Lo",
        UnicodeCategory.NonSpacingMark => "Mn",
        UnicodeCategory.SpacingCombiningMark => "Mc",
        UnicodeCategory.EnclosingMark => "Me",
        UnicodeCategory.DecimalDigitNumber => "Nd",
        UnicodeCategory.LetterNumber => "Nl",
        UnicodeCategory.OtherNumber => "No",
        UnicodeCategory.ConnectorPunctuation => "Pc",
        UnicodeCategory.DashPunctuation => "Pd",
        UnicodeCategory.OpenPunctuation => "Ps",
        UnicodeCategory.ClosePunctuation => "Pe",
        UnicodeCategory.InitialQuotePunctuation => "Pi",
        UnicodeCategory.FinalQuotePunctuation => "Pf",
        UnicodeCategory.OtherPunctuation => "Po",
        UnicodeCategory.MathSymbol => "Sm",
        UnicodeCategory.CurrencySymbol => "Sc",
        UnicodeCategory.ModifierSymbol => "Sk",
        UnicodeCategory.OtherSymbol => "So",
        UnicodeCategory.SpaceSeparator => "Zs",
        UnicodeCategory.LineSeparator => "Zl",
        UnicodeCategory.ParagraphSeparator => "Zp",
        UnicodeCategory.Control => "Cc",
        UnicodeCategory.Format => "Cf",
        UnicodeCategory.Surrogate => "Cs",
        UnicodeCategory.PrivateUse => "Co",
        _ => "Cn",
    };
}
