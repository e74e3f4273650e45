using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using CsCheck;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

internal sealed class TokenizerTests
{
    private static readonly Gen<Rune> Scalars = Gen.OneOf(
        Gen.Int[0x20, 0x7E],
        Gen.Int[0x20, 0x7E],
        Gen.Int[0, 9].Select(i => (int)" \t\r\n\u0085\u00A0\u2028\u3000'\u017F"[i]),
        Gen.Int[0xA0, 0x17F],
        Gen.Int[0x300, 0x36F],
        Gen.Int[0x1100, 0x11FF],
        Gen.Int[0xAC00, 0xD7A3],
        Gen.Int[0x4E00, 0x9FFF],
        Gen.Int[0x10000, 0x10FFFF],
        Gen.Int[0, 0x10FFFF]).Where(Rune.IsValid).Select(value => new Rune(value));

    private static readonly Gen<string> Strings = Scalars.Array[0, 40].Select(runes => string.Concat(runes));

    private sealed record Golden(string Text, int[] Ids);

    [Test]
    public void Equals_Hugging_Face_on_all_golden_strings()
    {
        var strings = QwenTokenizer.Golden<Golden[]>("strings.json.gz");
        Assert.That(strings, Has.Length.EqualTo(1031));
        Assert.Multiple(() =>
        {
            foreach (var (text, ids) in strings)
            {
                Assert.That(QwenTokenizer.Full.EncodeWithSpecial(text), Is.EqualTo(ids), Show(text));
            }
        });
    }

    [Test]
    public void Decoding_gives_the_normalised_text_back()
    {
        Strings.Sample(
            text => QwenTokenizer.Full.Decode(QwenTokenizer.Full.Encode(text)) == Nfc.Normalize(text) && Tiny.Decode(Tiny.Encode(text)) == Nfc.Normalize(text),
            iter: 3000,
            print: Show);
    }

    /// <summary>Where no word spans the cut, parts encode as the whole does: a letter before a line break, whatever follows it.</summary>
    [Test]
    public void Words_are_encoded_one_by_one()
    {
        Gen.Select(Strings, Strings).Sample(
            (a, b) => QwenTokenizer.Full.Encode(a + "x\n\u4E00" + b).SequenceEqual(QwenTokenizer.Full.Encode(a + "x\n").Concat(QwenTokenizer.Full.Encode("\u4E00" + b))),
            iter: 1000,
            print: pair => Show(pair.Item1) + " | " + Show(pair.Item2));
    }

    [Test]
    public void Special_tokens_stay_text_unless_asked_for()
    {
        const string Text = "hi<|im_end|><|im_start|>x<|im_ends<|image_pad|>";
        var tokenizer = QwenTokenizer.Full;
        Assert.Multiple(() =>
        {
            Assert.That(tokenizer.Encode(Text), Has.All.LessThan(151643));
            Assert.That(tokenizer.Decode(tokenizer.Encode(Text), skipSpecial: true), Is.EqualTo(Text));
            Assert.That(tokenizer.EncodeWithSpecial(Text), Is.EqualTo([.. tokenizer.Encode("hi"), 151645, 151644, .. tokenizer.Encode("x<|im_ends"), 151655]));
            Assert.That(tokenizer.Decode(tokenizer.EncodeWithSpecial(Text)), Is.EqualTo(Text));
            Assert.That(tokenizer.Decode(tokenizer.EncodeWithSpecial(Text), skipSpecial: true), Is.EqualTo("hix<|im_ends"));
            Assert.That(tokenizer.TokenId("<|im_end|>"), Is.EqualTo(151645));
            Assert.That(tokenizer.TokenId("<|nothing|>"), Is.Null);
            Assert.That(tokenizer.VocabularySize, Is.EqualTo(151657));
        });
    }

    [Test]
    public void Broken_input_does_not_break_it()
    {
        var tokenizer = QwenTokenizer.Full;
        Assert.Multiple(() =>
        {
            Assert.That(tokenizer.Encode("a\uD83Db\uDE00"), Is.EqualTo(tokenizer.Encode("a\uFFFDb\uFFFD")));
            Assert.That(tokenizer.Encode(""), Is.Empty);
            Assert.That(tokenizer.Decode([tokenizer.Encode("\u00E9")[0], -1, 151_999, int.MaxValue]), Is.EqualTo("\u00E9"));
            Assert.That(tokenizer.Decode(tokenizer.Encode("\U000102AB")[..1]), Does.Contain("\uFFFD"));
        });
    }

    [Test]
    public void Older_files_write_merges_as_one_string()
    {
        var file = Changed(json =>
        {
            var merges = json["model"]!["merges"]!.AsArray();
            json["model"]!["merges"] = new JsonArray([.. merges.Select(pair => JsonValue.Create($"{pair![0]} {pair[1]}"))]);
        });
        const string Text = "Looking at the washer, the edges and the texture are regular.";
        Assert.That(Tokenizer.Load(file).Encode(Text), Is.EqualTo(Tiny.Encode(Text)));
    }

    [Test]
    public void Added_tokens_are_found_longest_first_and_ordinary_ones_in_any_text()
    {
        var file = Changed(json =>
        {
            var tokens = json["added_tokens"]!.AsArray();
            tokens.Add(new JsonObject { ["id"] = 4000, ["content"] = "<|im_end|>!", ["special"] = true });
            tokens.Add(new JsonObject { ["id"] = 4001, ["content"] = "<tool>", ["special"] = false });
            tokens.Add(new JsonObject { ["id"] = 4002, ["content"] = "e\u0301t\u00E9", ["special"] = false, ["normalized"] = true });
        });
        var tokenizer = Tokenizer.Load(file);
        Assert.Multiple(() =>
        {
            Assert.That(tokenizer.EncodeWithSpecial("<|im_end|>!<|im_end|>"), Is.EqualTo([4000, tokenizer.TokenId("<|im_end|>")]));
            Assert.That(tokenizer.Encode("<tool>\u00E9te\u0301"), Is.EqualTo([4001, 4002]));
            Assert.That(tokenizer.Decode([4001, 3500], skipSpecial: true), Is.EqualTo("<tool>"));
            Assert.That(tokenizer.VocabularySize, Is.EqualTo(4003));
        });
    }

    [Test]
    public void Another_kind_of_tokenizer_is_refused()
    {
        Assert.Multiple(() =>
        {
            Refused(json => json["model"]!["type"] = "Unigram", "byte-level BPE");
            Refused(json => json["normalizer"]!["type"] = "NFKC", "NFKC");
            Refused(json => json["pre_tokenizer"]!["pretokenizers"]![0]!["pattern"]!["Regex"] = @"\w+", @"\w+");
            Refused(json => json["pre_tokenizer"]!["pretokenizers"]!.AsArray().RemoveAt(1), "pre_tokenizer");
            Refused(json => json["model"]!["merges"]![7] = new JsonArray("never", "seen"), "merges[7]");
            Refused(json => json["model"]!["merges"]![7] = "one", "$.model.merges[7]");
            Refused(json => json["model"]!["vocab"]!.AsObject().Remove("!"), "byte 33");
            Refused(json => json["model"]!["vocab"]!["!"] = -4, "-4");
            Refused(json => json["added_tokens"]![0]!["lstrip"] = true, "<|endoftext|>");
            Refused(json => json.AsObject().Remove("model"), "model");
            Refused(json => json["model"]!["vocab"] = null, "vocab");
        });
    }

    [Test]
    public void A_missing_or_garbled_file_is_named()
    {
        var garbled = Path.Combine(TestFiles.NewFolder(), "tokenizer.json");
        File.WriteAllText(garbled, File.ReadAllText(Path.Combine(TestFiles.TinyModel, "tokenizer.json"))[..5000]);
        var missing = Path.Combine(TestFiles.NewFolder(), "tokenizer.json");
        Assert.Multiple(() =>
        {
            Assert.That(() => Tokenizer.Load(garbled), Throws.TypeOf<InputException>().With.Message.Contains(garbled).And.Message.Contains("Line"));
            Assert.That(() => Tokenizer.Load(missing), Throws.TypeOf<InputException>().With.Message.Contains(missing));
        });
    }

    [Test]
    public void A_word_of_a_hundred_thousand_letters_takes_no_quadratic_time()
    {
        var letters = new StringBuilder();
        var random = new Random(1);
        for (var i = 0; i < 100_000; i++)
        {
            letters.Append((char)('a' + random.Next(26)));
        }

        var clock = Stopwatch.StartNew();
        var ids = QwenTokenizer.Full.Encode(letters.ToString());
        Assert.That(clock.Elapsed, Is.LessThan(TimeSpan.FromSeconds(5)));
        Assert.That(QwenTokenizer.Full.Decode(ids), Is.EqualTo(letters.ToString()));
    }

    private static Tokenizer Tiny { get; } = Tokenizer.Load(Path.Combine(TestFiles.TinyModel, "tokenizer.json"));

    private static string Changed(Action<JsonNode> change)
    {
        var json = JsonNode.Parse(File.ReadAllText(Path.Combine(TestFiles.TinyModel, "tokenizer.json")))!;
        change(json);
        var file = Path.Combine(TestFiles.NewFolder(), "tokenizer.json");
        File.WriteAllText(file, json.ToJsonString());
        return file;
    }

    private static void Refused(Action<JsonNode> change, string because)
    {
        var file = Changed(change);
        Assert.That(() => Tokenizer.Load(file), Throws.TypeOf<InputException>().With.Message.Contains(file).And.Message.Contains(because));
    }

    private static string Show(string text) => string.Concat(text.EnumerateRunes().Select(rune => rune.Value is > 0x20 and < 0x7F ? rune.ToString() : $"\\u{rune.Value:X4}"));
}
