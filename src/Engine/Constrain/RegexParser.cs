using System.Globalization;
using System.Text;

namespace LrIad.Engine.Constrain;

/// <summary>
/// The subset of regular expressions that describes a language and nothing else, over characters (not UTF-16 units): what it accepts matches the same texts in .NET. \d, \w and \s are
/// those of ECMAScript: ASCII alone; the dot is anything but a line feed.
/// </summary>
internal sealed class RegexParser
{
    private const int MaxLength = 16_384;
    private const int MaxDepth = 100;
    private const int MaxCount = 10_000;

    private static readonly CodePointSet Dot = CodePointSet.Of('\n').Complement();

    private readonly string _pattern;
    private readonly string _what;
    private readonly Dictionary<string, CodePointSet> _categories = [];
    private int _at;
    private int _depth;

    private RegexParser(string pattern, string what) => (_pattern, _what) = (pattern, what);

    /// <summary>The texts that the pattern matches from beginning to end.</summary>
    /// <param name="pattern">The pattern.</param>
    /// <param name="what">What to call it in messages.</param>
    /// <exception cref="InputException">It is malformed, too long, or uses what is not supported.</exception>
    public static RegexNode Parse(string pattern, string what) => new RegexParser(pattern, what).Top(found => found.Node);

    /// <summary>The texts in which the pattern matches somewhere, as a JSON schema means it.</summary>
    /// <inheritdoc cref="Parse"/>
    public static RegexNode ParseSearch(string pattern, string what)
    {
        var anything = RegexNode.Many(RegexNode.Of(CodePointSet.All), 0, null);
        return new RegexParser(pattern, what).Top(found => RegexNode.Concat(found.FromStart ? RegexNode.Empty : anything, found.Node, found.ToEnd ? RegexNode.Empty : anything));
    }

    private RegexNode Top(Func<(bool FromStart, RegexNode Node, bool ToEnd), RegexNode> meaning)
    {
        if (_pattern.Length > MaxLength)
        {
            throw new InputException($"{_what} is {_pattern.Length:N0} characters long; at most {MaxLength:N0} are supported.");
        }

        var alternatives = new List<RegexNode>();
        do
        {
            var fromStart = Take('^');
            var node = Sequence();
            alternatives.Add(meaning((fromStart, node, Take('$'))));
        }
        while (Take('|'));

        return _at == _pattern.Length ? RegexNode.AnyOf(alternatives) : throw Bad(Peek == ')' ? "has a ) without its (" : $"has {Peek} after $, which is supported at the very end alone");
    }

    private RegexNode Alternatives()
    {
        var alternatives = new List<RegexNode> { Sequence() };
        while (Take('|'))
        {
            alternatives.Add(Sequence());
        }

        return RegexNode.AnyOf(alternatives);
    }

    private RegexNode Sequence()
    {
        var parts = new List<RegexNode>();
        while (_at < _pattern.Length && Peek is not ('|' or ')') && !(Peek == '$' && _depth == 0))
        {
            parts.Add(Quantified(Atom()));
        }

        return RegexNode.Concat(parts);
    }

    private RegexNode Atom()
    {
        switch (Peek)
        {
            case '(':
                return Group();
            case '[':
                return RegexNode.Of(Class());
            case '.':
                _at++;
                return RegexNode.Of(Dot);
            case '\\':
                return RegexNode.Of(Escape(out _));
            case '^' or '$':
                throw Bad($"has the anchor {Peek}, which is supported only at the beginning (^) and the end ($) of the whole or of an alternative outside of groups");
            case '*' or '+' or '?':
                throw Bad($"has {Peek} with nothing to repeat before it");
            case '{' when CountsHere(out _, out _, out _):
                throw Bad("has a repeat count with nothing to repeat before it");
            default:
                return RegexNode.Of(CodePointSet.Of(Character()));
        }
    }

    private RegexNode Group()
    {
        var start = _at++;
        if (Take('?') && !Take(':'))
        {
            throw Bad(Kind(), start);
        }

        if (++_depth > MaxDepth)
        {
            throw Bad($"nests groups more than {MaxDepth} deep", start);
        }

        var body = Alternatives();
        _depth--;
        return Take(')') ? body : throw Bad("has a ( without its )", start);

        string Kind() => _pattern.AsSpan(_at) switch
        {
            ['=' or '!', ..] => "uses look-ahead (?= or (?!, which is not supported",
            ['<', '=' or '!', ..] => "uses look-behind (?<= or (?<!, which is not supported",
            ['<' or 'P' or '\'', ..] => "uses a named group, which is not supported: leave the name out",
            ['>', ..] => "uses an atomic group (?>, which is not supported",
            ['(', ..] => "uses a conditional (?(, which is not supported",
            ['#', ..] => "has a comment (?#, which is not supported",
            _ => "uses inline options (as in (?i)), which are not supported",
        };
    }

    private RegexNode Quantified(RegexNode atom)
    {
        var start = _at;
        var (min, max) = (1, (int?)1);
        switch (Peek)
        {
            case '*':
                (_at, min, max) = (_at + 1, 0, null);
                break;
            case '+':
                (_at, max) = (_at + 1, null);
                break;
            case '?':
                (_at, min) = (_at + 1, 0);
                break;
            case '{' when CountsHere(out min, out max, out var end):
                _at = end;
                break;
            default:
                return atom;
        }

        if (max < min)
        {
            throw Bad($"repeats at least {min} but at most {max} times", start);
        }

        // Lazy or not, the texts that match as a whole are the same.
        Take('?');
        return Peek is '*' or '+' or '?' || CountsHere(out _, out _, out _) ? throw Bad("has a quantifier on a quantifier; put the inner one in (?:…)") : RegexNode.Many(atom, min, max);
    }

    // {m}, {m,} or {m,n}. Any other brace stands for itself, as in .NET.
    private bool CountsHere(out int min, out int? max, out int end)
    {
        (min, max, end) = (1, 1, _at);
        if (Peek != '{' || _pattern.IndexOf('}', _at) is var close && close < 0)
        {
            return false;
        }

        var bounds = _pattern[(_at + 1)..close].Split(',');
        if (bounds.Length > 2 || bounds[0].Length == 0 || bounds.Any(bound => !bound.All(char.IsAsciiDigit)))
        {
            return false;
        }

        min = Count(bounds[0]);
        max = bounds.Length == 1 ? min : bounds[1].Length == 0 ? null : Count(bounds[1]);
        end = close + 1;
        return true;
    }

    private int Count(string digits) =>
        int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var count) && count <= MaxCount ? count : throw Bad($"repeats {digits} times; at most {MaxCount:N0} is supported");

    private CodePointSet Class()
    {
        var start = _at++;
        var negated = Take('^');
        var ranges = new List<(int From, int To)>();
        if (Peek == ']')
        {
            throw Bad("has a class that begins with ], which dialects read differently; write \\]");
        }

        while (!Take(']'))
        {
            if (_at >= _pattern.Length)
            {
                throw Bad("has a [ without its ]", start);
            }

            var first = Member(out var several);
            if (several || Peek != '-' || _at + 1 >= _pattern.Length || _pattern[_at + 1] == ']')
            {
                ranges.AddRange(first.Ranges);
                continue;
            }

            var dash = _at++;
            var last = Member(out several);
            ranges.Add(!several && first.Ranges[0].From <= last.Ranges[0].From ? (first.Ranges[0].From, last.Ranges[0].From) : throw Bad("has a class with a range that does not go from one character up to another", dash));
        }

        return negated ? CodePointSet.Of(ranges).Complement() : CodePointSet.Of(ranges);
    }

    private CodePointSet Member(out bool several)
    {
        several = false;
        if (_pattern.AsSpan(_at) is ['[', ':', ..])
        {
            throw Bad("uses a POSIX class [:…:], which is not supported");
        }

        if (_pattern.AsSpan(_at) is ['-', '[', ..])
        {
            throw Bad("uses class subtraction -[…], which is not supported");
        }

        return Peek == '\\' ? Escape(out several) : CodePointSet.Of(Character());
    }

    private CodePointSet Escape(out bool several)
    {
        var start = _at++;
        if (_at >= _pattern.Length)
        {
            throw Bad("ends with a lone \\", start);
        }

        var letter = _pattern[_at];
        several = letter is 'd' or 'D' or 'w' or 'W' or 's' or 'S' or 'p' or 'P';
        if (!char.IsAsciiLetterOrDigit(letter) && letter != '_')
        {
            return CodePointSet.Of(Character());
        }

        _at++;
        return letter switch
        {
            'd' => Digits,
            'D' => Digits.Complement(),
            'w' => WordCharacters,
            'W' => WordCharacters.Complement(),
            's' => Spaces,
            'S' => Spaces.Complement(),
            'p' => Category(start),
            'P' => Category(start).Complement(),
            'n' => CodePointSet.Of('\n'),
            't' => CodePointSet.Of('\t'),
            'r' => CodePointSet.Of('\r'),
            'f' => CodePointSet.Of('\f'),
            'v' => CodePointSet.Of('\v'),
            'x' => CodePointSet.Of(Hex(2, start)),
            'u' => CodePointSet.Of(Unit(start)),
            'b' or 'B' => throw Bad($"uses the word boundary \\{letter}, which is not supported", start),
            'A' or 'z' or 'Z' or 'G' => throw Bad($"uses the anchor \\{letter}, which is not supported: the whole text is matched anyway", start),
            'k' or (>= '1' and <= '9') => throw Bad($"uses the backreference \\{letter}, which is not supported", start),
            _ => throw Bad($"uses the escape \\{letter}, which is not supported", start),
        };
    }

    private static CodePointSet Digits { get; } = CodePointSet.Of(('0', '9'));

    private static CodePointSet WordCharacters { get; } = CodePointSet.Of(('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_'));

    private static CodePointSet Spaces { get; } = CodePointSet.Of(('\t', '\r'), (' ', ' '));

    private CodePointSet Category(int start)
    {
        var close = Peek == '{' ? _pattern.IndexOf('}', _at) : -1;
        var name = close < 0 ? "" : _pattern[(_at + 1)..close];
        if (!_categories.TryGetValue(name, out var set))
        {
            set = name.Length is 1 or 2 && char.IsAsciiLetterUpper(name[0]) ? CodePointSet.OfCategory(name) : CodePointSet.None;
            set = set.IsEmpty ? throw Bad(close < 0 ? "has \\p without {…}" : $"uses \\p{{{name}}}; only general categories as in \\p{{L}} or \\p{{Nd}} are supported", start) : set;
            _categories[name] = set;
        }

        _at = close + 1;
        return set;
    }

    // \uHHHH, or two of them that are a surrogate pair.
    private int Unit(int start)
    {
        var unit = (char)Hex(4, start);
        if (!char.IsSurrogate(unit))
        {
            return unit;
        }

        if (char.IsHighSurrogate(unit) && Take('\\') && Take('u') && (char)Hex(4, start) is var low && char.IsLowSurrogate(low))
        {
            return char.ConvertToUtf32(unit, low);
        }

        throw Bad($"has half a surrogate pair, \\u{(int)unit:X4}", start);
    }

    private int Hex(int digits, int start)
    {
        var text = _pattern.AsSpan(_at, Math.Min(digits, _pattern.Length - _at));
        _at += text.Length;
        return text.Length == digits && int.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value) ? value : throw Bad($"has an escape without its {digits} hexadecimal digits", start);
    }

    private int Character()
    {
        if (!Rune.TryGetRuneAt(_pattern, _at, out var rune))
        {
            throw Bad("has half a surrogate pair");
        }

        _at += rune.Utf16SequenceLength;
        return rune.Value;
    }

    private char Peek => _at < _pattern.Length ? _pattern[_at] : '\0';

    private bool Take(char c)
    {
        var here = _at < _pattern.Length && _pattern[_at] == c;
        _at += here ? 1 : 0;
        return here;
    }

    private InputException Bad(string problem) => Bad(problem, _at);

    private InputException Bad(string problem, int at) => new($"{_what} {problem} (at character {at + 1}).");
}
