using System.Globalization;

namespace LrIad.Engine.Constrain;

/// <summary>Numbers between bounds, digit by digit, as they are written in JSON without an exponent.</summary>
internal static class DecimalRange
{
    /// <summary>Digits before the point, and after it.</summary>
    public const int MaxDigits = 18;

    private const decimal Largest = 999_999_999_999_999_999;

    /// <summary>An end of a range.</summary>
    public readonly record struct Bound(decimal Value, bool Exclusive)
    {
        /// <summary>The digits before the point.</summary>
        public decimal Whole => decimal.Truncate(Value);

        /// <summary>The digits after the point, without zeros at the end.</summary>
        public string Fraction => (Value - Whole).ToString("0.##################", CultureInfo.InvariantCulture) is var text && text.Length > 2 ? text[2..] : "";
    }

    /// <summary>The whole numbers within bounds; null: as far as the digits reach.</summary>
    public static RegexNode Integers(Bound? min, Bound? max)
    {
        var low = Math.Max(-Largest, min is { } least ? (least.Exclusive ? decimal.Floor(least.Value) + 1 : decimal.Ceiling(least.Value)) : -Largest);
        var high = Math.Min(Largest, max is { } most ? (most.Exclusive ? decimal.Ceiling(most.Value) - 1 : decimal.Floor(most.Value)) : Largest);
        return RegexNode.AnyOf(Whole(Math.Max(low, 0), high), RegexNode.Concat(RegexNode.Literal("-"), Whole(Math.Max(-high, 1), -low)));
    }

    /// <summary>The decimal numbers within bounds; null: as far as the digits reach.</summary>
    public static RegexNode Numbers(Bound? min, Bound? max)
    {
        var low = min is { Value: >= -Largest } least ? least : new Bound(-Largest, false);
        var high = max is { Value: <= Largest } most ? most : new Bound(Largest, false);
        var positive = Magnitudes(low.Value < 0 ? new Bound(0, false) : low, high);
        var negative = Magnitudes(high.Value >= 0 ? new Bound(0, true) : high with { Value = -high.Value }, low with { Value = -low.Value });
        return RegexNode.AnyOf(positive, RegexNode.Concat(RegexNode.Literal("-"), negative));
    }

    /// <summary>Up to this many digits.</summary>
    public static RegexNode Digits(int min, int max) => RegexNode.Many(Digit('0', '9'), min, max);

    // The whole numbers from low to high, both at least 0: those of each length by themselves.
    private static RegexNode Whole(decimal low, decimal high)
    {
        if (low > high)
        {
            return RegexNode.Nothing;
        }

        var (first, last) = (Text(low), Text(high));
        var lengths = Enumerable.Range(first.Length, last.Length - first.Length + 1);
        return RegexNode.AnyOf([.. lengths.Select(length => Between(
            length == first.Length ? first : '1' + new string('0', length - 1),
            length == last.Length ? last : new string('9', length)))]);
    }

    // The digits from low to high, which are of one length.
    private static RegexNode Between(string low, string high)
    {
        if (low.All(digit => digit == '0') && high.All(digit => digit == '9'))
        {
            return Digits(low.Length, low.Length);
        }

        var (rest, nines, zeros) = (low.Length - 1, new string('9', low.Length - 1), new string('0', low.Length - 1));
        return low[0] == high[0]
            ? RegexNode.Concat(Digit(low[0], low[0]), Between(low[1..], high[1..]))
            : RegexNode.AnyOf(
                RegexNode.Concat(Digit(low[0], low[0]), Between(low[1..], nines)),
                RegexNode.Concat(Digit((char)(low[0] + 1), (char)(high[0] - 1)), Digits(rest, rest)),
                RegexNode.Concat(Digit(high[0], high[0]), Between(zeros, high[1..])));
    }

    // Numbers at least 0: those of the low bound's whole part, those of the high bound's, and those between.
    private static RegexNode Magnitudes(Bound low, Bound high)
    {
        if (low.Value > high.Value || high.Value < 0)
        {
            return RegexNode.Nothing;
        }

        var point = RegexNode.Literal(".");
        var any = RegexNode.Optional(RegexNode.Concat(point, Digits(1, MaxDigits)));
        var bare = low is { Fraction: "", Exclusive: false };
        var from = bare ? any : RegexNode.Concat(point, From(low.Fraction, low.Exclusive, MaxDigits));
        var to = RegexNode.AnyOf(
            high is { Fraction: "", Exclusive: true } ? RegexNode.Nothing : RegexNode.Empty,
            RegexNode.Concat(point, To(high.Fraction, high.Exclusive, MaxDigits, mayStop: false)));
        if (low.Whole == high.Whole)
        {
            var within = bare ? to : RegexNode.Concat(point, Within(low, low.Fraction, high, high.Fraction, MaxDigits));
            return RegexNode.Concat(Whole(low.Whole, low.Whole), within);
        }

        return RegexNode.AnyOf(
            RegexNode.Concat(Whole(low.Whole, low.Whole), from),
            RegexNode.Concat(Whole(low.Whole + 1, high.Whole - 1), any),
            RegexNode.Concat(Whole(high.Whole, high.Whole), to));
    }

    // Digits after the point that are at least these; room: how many may stand here.
    private static RegexNode From(string least, bool exclusive, int room)
    {
        if (room == 0)
        {
            return exclusive || least.Length > 0 ? RegexNode.Nothing : RegexNode.Empty;
        }

        if (least.Length == 0 && !exclusive)
        {
            return Digits(0, room);
        }

        var first = least.Length == 0 ? '0' : least[0];
        return RegexNode.AnyOf(
            RegexNode.Concat(Digit((char)(first + 1), '9'), Digits(0, room - 1)),
            RegexNode.Concat(Digit(first, first), From(least.Length == 0 ? "" : least[1..], exclusive, room - 1)));
    }

    // Digits after the point that are at most these. Where digits are left, the number may stop: these end in no zero, so it is smaller.
    private static RegexNode To(string most, bool exclusive, int room, bool mayStop)
    {
        if (most.Length == 0)
        {
            return exclusive ? RegexNode.Nothing : RegexNode.Many(Digit('0', '0'), mayStop ? 0 : 1, room);
        }

        return RegexNode.AnyOf(
            mayStop ? RegexNode.Empty : RegexNode.Nothing,
            RegexNode.Concat(Digit('0', (char)(most[0] - 1)), Digits(0, room - 1)),
            RegexNode.Concat(Digit(most[0], most[0]), To(most[1..], exclusive, room - 1, mayStop: true)));
    }

    // Digits after the point that are at least some and at most others, where the digits so far are those of both.
    private static RegexNode Within(Bound low, string least, Bound high, string most, int room)
    {
        if (most.Length == 0)
        {
            return least.Length == 0 && !low.Exclusive && !high.Exclusive ? RegexNode.Many(Digit('0', '0'), 0, room) : RegexNode.Nothing;
        }

        if (least.Length == 0 && !low.Exclusive)
        {
            return To(most, high.Exclusive, room, mayStop: true);
        }

        var (first, rest) = least.Length == 0 ? ('0', "") : (least[0], least[1..]);
        return first == most[0]
            ? RegexNode.Concat(Digit(first, first), Within(low, rest, high, most[1..], room - 1))
            : RegexNode.AnyOf(
                RegexNode.Concat(Digit(first, first), From(rest, low.Exclusive, room - 1)),
                RegexNode.Concat(Digit((char)(first + 1), (char)(most[0] - 1)), Digits(0, room - 1)),
                RegexNode.Concat(Digit(most[0], most[0]), To(most[1..], high.Exclusive, room - 1, mayStop: true)));
    }

    private static RegexNode Digit(char from, char to) => RegexNode.Of(CodePointSet.Of((from, to)));

    private static string Text(decimal whole) => whole.ToString("0", CultureInfo.InvariantCulture);
}
