using System.Text;
using LrIad.Engine.Text;

namespace LrIad.Engine.Serving;

/// <summary>
/// A completion's tokens as text: whole characters alone, without special tokens, and up to the first stop text. Of several stop texts the one that is complete first counts, so
/// that it does not matter how the text is cut into tokens. What could be the beginning of one is held back.
/// </summary>
internal sealed class CompletionText(Tokenizer tokenizer, IReadOnlyList<string> stops)
{
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private string _held = "";

    /// <summary>The stop text that came, if one did.</summary>
    public string? StopText { get; private set; }

    /// <summary>Takes in a token; returns the text that it makes certain.</summary>
    public string Append(int token)
    {
        if (!tokenizer.IsAdded(token))
        {
            return Release(_held + Decode(tokenizer.Bytes(token), flush: false));
        }

        // What is left of a character before an added token never becomes a whole one.
        var broken = Decode([], flush: true);
        return Release(_held + broken + (tokenizer.IsSpecial(token) ? "" : Encoding.UTF8.GetString(tokenizer.Bytes(token))));
    }

    /// <summary>The rest, at the end of the completion.</summary>
    public string End()
    {
        if (StopText is not null)
        {
            return "";
        }

        var certain = Release(_held + Decode([], flush: true));
        var rest = StopText is null ? _held : "";
        _held = "";
        return certain + rest;
    }

    private string Decode(ReadOnlySpan<byte> bytes, bool flush)
    {
        Span<char> chars = stackalloc char[bytes.Length + 4];
        return new string(chars[.._decoder.GetChars(bytes, chars, flush)]);
    }

    private string Release(string text)
    {
        var (start, end) = (text.Length, int.MaxValue);
        foreach (var stop in stops)
        {
            var at = text.IndexOf(stop, StringComparison.Ordinal);
            if (at >= 0 && (at + stop.Length < end || (at + stop.Length == end && at < start)))
            {
                (start, end, StopText) = (at, at + stop.Length, stop);
            }
        }

        if (StopText is null)
        {
            start -= stops.Count == 0 ? 0 : stops.Max(stop => Begun(text, stop));
        }

        _held = StopText is null ? text[start..] : "";
        return text[..start];
    }

    // How much at the end of a text could be the beginning of a stop text.
    private static int Begun(string text, string stop)
    {
        var length = Math.Min(text.Length, stop.Length - 1);
        while (length > 0 && !text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length)))
        {
            length--;
        }

        return length;
    }
}
