using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

internal sealed class NfcTests
{
    /// <summary>nfc.json.gz: random strings of Unicode 9.0 characters (marks, Hangul, singletons, exclusions, long runs of marks) and python3's unicodedata.normalize("NFC", …) of them.</summary>
    [Test]
    public void Equals_python_on_generated_strings()
    {
        var pairs = QwenTokenizer.Golden<string[][]>("nfc.json.gz");
        Assert.That(pairs, Has.Length.GreaterThan(4000));
        Assert.Multiple(() =>
        {
            foreach (var pair in pairs)
            {
                Assert.That(Nfc.Normalize(pair[0]), Is.EqualTo(pair[1]), string.Join(' ', pair[0].EnumerateRunes().Select(rune => $"{rune.Value:X4}")));
            }
        });
    }

    [Test]
    public void Every_syllable_comes_back_from_its_letters()
    {
        for (var syllable = 0xAC00; syllable < 0xAC00 + 11172; syllable++)
        {
            var index = syllable - 0xAC00;
            var letters = $"{(char)(0x1100 + (index / 588))}{(char)(0x1161 + (index / 28 % 21))}" + (index % 28 == 0 ? "" : $"{(char)(0x11A7 + (index % 28))}");
            Assert.That(Nfc.Normalize(letters), Is.EqualTo($"{(char)syllable}"));
        }
    }

    [TestCase("\uC8E0\u11A7", "\uC8E0\u11A7", TestName = "U+11A7 is no trailing letter")]
    [TestCase("a\u0327\u0301", "\u00E1\u0327", TestName = "a mark of a lower class does not block")]
    [TestCase("a\u0308\u0301", "\u00E4\u0301", TestName = "a mark of the same class blocks")]
    [TestCase("\u0958", "\u0915\u093C", TestName = "excluded from composition")]
    [TestCase("\u212B", "\u00C5", TestName = "singleton")]
    [TestCase("\U0001D15E", "\U0001D157\U0001D165", TestName = "beyond the basic plane")]
    [TestCase("\U00011935\U00011930", "\U00011935\U00011930", TestName = "composes since Unicode 13 only")]
    public void Special_cases(string text, string expected) => Assert.That(Nfc.Normalize(text), Is.EqualTo(expected));

    [Test]
    public void Lone_surrogates_are_replaced()
    {
        Assert.That(Nfc.Normalize("a\uD800b"), Is.EqualTo("a\uFFFDb"));
        Assert.That(Nfc.Normalize("\uDC00"), Is.EqualTo("\uFFFD"));
    }

    [Test]
    public void Leaves_normal_text_alone()
    {
        foreach (var text in new[] { "", "plain", "caf\u00E9 \u65E5\u672C\uD55C \u0416 \U0001F600" })
        {
            Assert.That(Nfc.Normalize(text), Is.EqualTo(text));
        }
    }

    [Test]
    public void A_hundred_thousand_marks_take_no_quadratic_time()
    {
        var marks = string.Concat(Enumerable.Repeat("\u0301\u0316", 50_000));
        var clock = System.Diagnostics.Stopwatch.StartNew();
        var normal = Nfc.Normalize("e" + marks);
        Assert.That(clock.Elapsed, Is.LessThan(TimeSpan.FromSeconds(5)));
        Assert.That(normal, Is.EqualTo("\u00E9" + new string('\u0316', 50_000) + new string('\u0301', 49_999)));
    }
}
