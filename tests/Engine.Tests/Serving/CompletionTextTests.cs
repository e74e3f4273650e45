using System.Text;
using CsCheck;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Serving;

/// <summary>Text that comes token by token, against the same text taken as a whole.</summary>
internal sealed class CompletionTextTests
{
    private static readonly Tokenizer Tiny = Tokenizer.Load(Path.Combine(TestFiles.TinyModel, "tokenizer.json"));

    // The byte that a token is; -1 for the others.
    private static readonly int[] SingleBytes = [.. Enumerable.Range(0, Tiny.VocabularySize).Select(id => !Tiny.IsAdded(id) && Tiny.Bytes(id) is [var single] ? single : -1)];

    // Ids of single bytes among them, so that characters are cut anywhere, and bytes that are no UTF-8 at all; special tokens too.
    private static readonly Gen<int[]> Tokens = Gen.Select(Gen.String[Gen.Char["ab<>é€😀 "], 0, 30], Gen.Int[0, 3071].Array[0, 5], Gen.Bool, Gen.Int).Select((text, others, bytewise, seed) =>
    {
        var random = new Random(seed);
        List<int> ids = [.. bytewise ? Encoding.UTF8.GetBytes(text).Select(b => Array.FindIndex(SingleBytes, single => single == b)) : Tiny.Encode(text)];
        foreach (var other in others)
        {
            ids.Insert(random.Next(ids.Count + 1), other);
        }

        return ids.ToArray();
    });

    [Test]
    public void Pieces_add_up_to_the_whole_text()
    {
        Tokens.Sample(
            tokens =>
            {
                var text = new CompletionText(Tiny, []);
                var pieces = tokens.Select(text.Append).ToList();
                pieces.Add(text.End());
                Assert.That(string.Concat(pieces), Is.EqualTo(Tiny.Decode(tokens, skipSpecial: true)));
                Assert.That(pieces.Where(piece => piece.Length > 0 && (char.IsLowSurrogate(piece[0]) || char.IsHighSurrogate(piece[^1]))), Is.Empty, "half a character");
            },
            iter: 2000);
    }

    [Test]
    public void A_completion_ends_before_the_stop_text_that_is_complete_first_however_it_is_cut_into_tokens()
    {
        var stops = Gen.String[Gen.Char["ab<>é"], 1, 4].Array[1, 3];
        Gen.Select(Tokens, stops).Sample(
            (tokens, stops) =>
            {
                var whole = Tiny.Decode(tokens, skipSpecial: true);
                var (cut, found) = Cut(whole, stops);
                var text = new CompletionText(Tiny, stops);
                var said = "";
                foreach (var token in tokens)
                {
                    said += text.Append(token);
                    Assert.That(cut, Does.StartWith(said), "text that should have been held back");
                    if (text.StopText is not null)
                    {
                        break;
                    }
                }

                said += text.End();
                Assert.That((said, text.StopText), Is.EqualTo((cut, found)));
            },
            iter: 2000);
    }

    [Test]
    public void What_cannot_begin_a_stop_text_is_not_held_back()
    {
        var text = new CompletionText(Tiny, ["</answer>"]);
        var said = Tiny.Encode("</ans and so on").Select(text.Append).ToArray();
        Assert.That(string.Concat(said), Is.EqualTo("</ans and so on"));
    }

    // From the definition: character by character, which stop text is there first.
    private static (string Text, string? Stop) Cut(string text, string[] stops)
    {
        for (var end = 1; end <= text.Length; end++)
        {
            if (stops.Where(stop => text[..end].EndsWith(stop, StringComparison.Ordinal)).MaxBy(stop => stop.Length) is { } stop)
            {
                return (text[..(end - stop.Length)], stop);
            }
        }

        return (text, null);
    }
}
