using System.Globalization;
using System.Text;

namespace LrIad.Engine.Text;

/// <summary>
/// Cuts a text into the words that byte pairs are merged within, as Qwen2's pattern does, over Unicode scalars. Its alternatives are tried in their order.
/// </summary>
internal static class PreTokenizer
{
    /// <summary>The pattern, as tokenizer.json has it.</summary>
    public const string Pattern = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private enum Kind : byte
    {
        Letter,
        Number,
        NewLine,
        Space,
        Other,
    }

    /// <summary>Calls <paramref name="word"/> for each word, in order.</summary>
    public static void Split(string text, Action<Range> word)
    {
        for (var at = 0; at < text.Length;)
        {
            var end = End(text, at);
            word(at..end);
            at = end;
        }
    }

    private static int End(string text, int at)
    {
        var contraction = Contraction(text, at);
        if (contraction > 0)
        {
            return at + contraction;
        }

        var (kind, next) = Look(text, at);
        if (kind == Kind.Letter)
        {
            return Run(text, next, Kind.Letter);
        }

        if (kind != Kind.NewLine && kind != Kind.Number && Is(text, next, Kind.Letter))
        {
            return Run(text, next, Kind.Letter);
        }

        if (kind == Kind.Number)
        {
            return next;
        }

        var symbols = text[at] == ' ' && Is(text, next, Kind.Other) ? next : at;
        return Is(text, symbols, Kind.Other) ? Run(text, Run(text, symbols, Kind.Other), Kind.NewLine) : WhiteSpace(text, at);
    }

    private static int WhiteSpace(string text, int at)
    {
        var (end, last, afterNewLine) = (at, at, -1);
        while (end < text.Length && Look(text, end) is (Kind.Space or Kind.NewLine, _) look)
        {
            last = end;
            end = look.Next;
            afterNewLine = look.Kind == Kind.NewLine ? end : afterNewLine;
        }

        // Up to the last line break; else all of it at the end of the text; else all but its last, which goes with what follows.
        return afterNewLine >= 0 ? afterNewLine : end == text.Length || last == at ? end : last;
    }

    private static int Contraction(string text, int at)
    {
        if (text[at] != '\'' || at + 1 >= text.Length)
        {
            return 0;
        }

        // The long s folds to s.
        var first = Fold(text[at + 1]);
        if (first is 's' or 't' or 'm' or 'd')
        {
            return 2;
        }

        var second = at + 2 < text.Length ? Fold(text[at + 2]) : '\0';
        return (first, second) is ('r', 'e') or ('v', 'e') or ('l', 'l') ? 3 : 0;
    }

    private static char Fold(char c) => c == '\u017F' ? 's' : c is >= 'A' and <= 'Z' ? (char)(c | 0x20) : c;

    private static bool Is(string text, int at, Kind kind) => at < text.Length && Look(text, at).Kind == kind;

    private static int Run(string text, int at, Kind kind)
    {
        while (at < text.Length && Look(text, at) is var look && look.Kind == kind)
        {
            at = look.Next;
        }

        return at;
    }

    private static (Kind Kind, int Next) Look(string text, int at)
    {
        var unit = text[at];
        if (char.IsAscii(unit))
        {
            var kind = unit switch
            {
                '\r' or '\n' => Kind.NewLine,
                (>= 'a' and <= 'z') or (>= 'A' and <= 'Z') => Kind.Letter,
                >= '0' and <= '9' => Kind.Number,
                ' ' or (>= '\t' and <= '\f') => Kind.Space,
                _ => Kind.Other,
            };
            return (kind, at + 1);
        }

        Rune.DecodeFromUtf16(text.AsSpan(at), out var rune, out var length);
        return (Rune.GetUnicodeCategory(rune) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Kind.Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Kind.Number,
            _ => Rune.IsWhiteSpace(rune) ? Kind.Space : Kind.Other,
        }, at + length);
    }
}
