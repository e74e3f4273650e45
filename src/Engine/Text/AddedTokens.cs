using System.Buffers;

namespace LrIad.Engine.Text;

/// <summary>Finds added tokens in text: leftmost first, the longest of those that begin there.</summary>
internal sealed class AddedTokens
{
    private readonly Dictionary<char, (string Content, int Id)[]> _byFirst;
    private readonly SearchValues<char> _first;

    public AddedTokens(IEnumerable<(string Content, int Id)> tokens)
    {
        _byFirst = tokens.GroupBy(token => token.Content[0]).ToDictionary(group => group.Key, group => group.OrderByDescending(token => token.Content.Length).ToArray());
        _first = SearchValues.Create([.. _byFirst.Keys]);
    }

    /// <summary>The text in pieces: stretches between tokens (id null, never empty), and the tokens.</summary>
    public IEnumerable<(string Text, int? Id)> Split(string text)
    {
        var done = 0;
        for (var i = NextStart(text, 0); i < text.Length; i = NextStart(text, i))
        {
            var token = Array.Find(_byFirst[text[i]], token => string.CompareOrdinal(text, i, token.Content, 0, token.Content.Length) == 0);
            if (token.Content is null)
            {
                i++;
                continue;
            }

            if (i > done)
            {
                yield return (text[done..i], null);
            }

            yield return (token.Content, token.Id);
            i = done = i + token.Content.Length;
        }

        if (done < text.Length)
        {
            yield return (text[done..], null);
        }
    }

    private int NextStart(string text, int from)
    {
        var offset = text.AsSpan(from).IndexOfAny(_first);
        return offset < 0 ? text.Length : from + offset;
    }
}
