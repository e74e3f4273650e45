using System.Text;
using System.Text.RegularExpressions;
using CsCheck;
using LrIad.Engine.Constrain;
using LrIad.Engine.Serving;

namespace LrIad.Engine.Tests.Constrain;

internal sealed class RegexConstraintTests
{
    [Test]
    public void What_is_written_matches_and_what_matches_can_be_written()
    {
        var judged = 0;
        Gen.Int.Sample(
            seed =>
            {
                var random = new Random(seed);
                var pattern = RandomPattern.Next(random);
                if (IsTooLarge(pattern))
                {
                    return;
                }

                var automata = Compiled(pattern);
                var tokenizer = Automata.Either(random);
                for (var i = 0; i < 3; i++)
                {
                    var text = automata?.Walk(tokenizer, random);

                    // .NET matches halves of surrogate pairs where this matches characters.
                    Assert.That(text is null || text.Any(char.IsSurrogate) || Matches(pattern, text) != false, Is.True, $"{Show(pattern)} wrote {Show(text ?? "")}");
                }

                for (var i = 0; i < 40; i++)
                {
                    var text = RandomPattern.Text(random);
                    var matches = Matches(pattern, text);
                    Interlocked.Add(ref judged, matches is null ? 0 : 1);
                    Assert.That(automata?.Accepts(text) ?? false, Is.EqualTo(matches ?? automata?.Accepts(text) ?? false), $"{Show(pattern)} on {Show(text)}");
                }
            },
            iter: 500);
        Assert.That(judged, Is.GreaterThan(17_000), "Few are too large, or too long to judge.");
    }

    [Test]
    public void A_character_is_a_code_point()
    {
        Assert.Multiple(() =>
        {
            Assert.That(Compiled(".{2}")!.Accepts("😀€"), Is.True);
            Assert.That(Compiled("[😀-😎]+")!.Accepts("😁😎"), Is.True);
            Assert.That(Compiled("[😀-😎]")!.Accepts("😏"), Is.False);
            Assert.That(Compiled("\\uD83D\\uDE00?")!.Accepts(""), Is.True);
            Assert.That(Compiled("[^a]")!.Accepts("\U0010FFFF"), Is.True);
            Assert.That(Compiled("\\p{L}+")!.Accepts("añß一𠮷"), Is.True);
            Assert.That(Compiled("\\p{L}+")!.Accepts("a1"), Is.False);
            Assert.That(Compiled("[\\p{Lu}\\P{L}]")!.Accepts("a"), Is.False);
            Assert.That(Compiled("(?:ab|c?)+?{")!.Accepts("abcab{"), Is.True);
            Assert.That(Compiled("^a$|^b$|c")!.Accepts("b"), Is.True);
        });
    }

    [Test]
    public void Categories_are_those_of_NET()
    {
        foreach (var name in new[] { "L", "Lu", "Nd", "P", "S", "Zs", "Cc", "M", "Sm" })
        {
            var automata = Compiled($"\\p{{{name}}}")!;
            var regex = new Regex($"^\\p{{{name}}}\\z", RegexOptions.CultureInvariant);
            for (var c = 0; c < 0xFFFF; c += c is >= 0xD7F0 and < 0xE000 ? 0x811 : 7)
            {
                Assert.That(char.IsSurrogate((char)c) || automata.Accepts($"{(char)c}") == regex.IsMatch($"{(char)c}"), Is.True, $"{name} {c:X4}");
            }
        }
    }

    [Test]
    public void UTF_8_of_any_range_is_that_of_its_characters()
    {
        Gen.Select(Gen.Int[0, 0x10FFFF], Gen.OneOf(Gen.Int[0, 300], Gen.Int[0, 0x10FFFF])).Sample(
            (from, length) =>
            {
                var set = CodePointSet.Of((from, Math.Min(from + length, 0x10FFFF)));
                if (set.IsEmpty)
                {
                    return;
                }

                var dfa = Determinizer.Run(new Nfa(RegexNode.Of(set)));
                foreach (var point in set.Ranges.SelectMany(range => new[] { range.From - 1, range.From, (range.From + range.To) / 2, range.To, range.To + 1 }).Where(Rune.IsValid))
                {
                    var state = dfa.Next(dfa.Start, Encoding.UTF8.GetBytes(new Rune(point).ToString()));
                    Assert.That(state >= 0 && dfa.Accepts(state), Is.EqualTo(set.Contains(point)), $"{point:X}");
                }
            },
            iter: 500);
    }

    [TestCase("a(?=b)", "look-ahead")]
    [TestCase("(?<!a)b", "look-behind")]
    [TestCase("(?<name>a)", "named group")]
    [TestCase("(?i)a", "inline options")]
    [TestCase("(?>a)", "atomic")]
    [TestCase("(a)\\1", "backreference \\1")]
    [TestCase("\\bword", "word boundary \\b")]
    [TestCase("a\\z", "anchor \\z")]
    [TestCase("(^a)", "anchor ^")]
    [TestCase("a$b", "$")]
    [TestCase("*a", "nothing to repeat")]
    [TestCase("a**", "quantifier on a quantifier")]
    [TestCase("a{3,2}", "at least 3 but at most 2")]
    [TestCase("a{99999}", "99999")]
    [TestCase("[a-z-[aeiou]]", "subtraction")]
    [TestCase("[[:alpha:]]", "POSIX")]
    [TestCase("[b-a]", "range")]
    [TestCase("[a", "[ without")]
    [TestCase("(a", "( without")]
    [TestCase("a)", ") without")]
    [TestCase("\\p{Greek}", "Greek")]
    [TestCase("\\q", "\\q")]
    [TestCase("\\uD83D", "surrogate")]
    [TestCase("\\u12", "hexadecimal")]
    [TestCase("a\\", "lone \\")]
    public void Others_are_refused_by_name_and_place(string pattern, string because) =>
        Assert.That(() => Compiled(pattern), Throws.TypeOf<InputException>().With.Message.Contains(because).And.Message.Contains("at character"));

    private static Automata? Compiled(string pattern)
    {
        try
        {
            return new Automata(OutputConstraint.ToRegex(pattern));
        }
        catch (InputException e) when (e.Message == "No text meets the constraint.")
        {
            return null;
        }
    }

    private static bool IsTooLarge(string pattern)
    {
        try
        {
            Compiled(pattern);
            return false;
        }
        catch (InputException e) when (e.Message.StartsWith("The constraint is too", StringComparison.Ordinal))
        {
            return true;
        }
    }

    // Null where backtracking takes it too long to tell.
    private static bool? Matches(string pattern, string text)
    {
        try
        {
            return Regex.IsMatch(text, $"^(?:{pattern})\\z", RegexOptions.ECMAScript, TimeSpan.FromMilliseconds(20));
        }
        catch (RegexMatchTimeoutException)
        {
            return null;
        }
    }

    private static string Show(string text) => string.Concat(text.EnumerateRunes().Select(rune => rune.Value is >= 0x20 and < 0x7F ? rune.ToString() : $"\\u{{{rune.Value:X4}}}"));
}
