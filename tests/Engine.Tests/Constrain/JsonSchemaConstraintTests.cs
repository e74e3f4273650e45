using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using CsCheck;
using Json.Schema;
using LrIad.Engine.Constrain;
using LrIad.Engine.Serving;
using LrIad.Engine.Tests.Text;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Constrain;

internal sealed class JsonSchemaConstraintTests
{
    private static readonly Lazy<Dictionary<string, int>> OfTiny = new(() => ShortTokens(Automata.Tiny));
    private static readonly Lazy<Dictionary<string, int>> OfFull = new(() => ShortTokens(QwenTokenizer.Full));
    private static readonly JsonSerializerOptions Compact = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    [Test]
    public void Whatever_is_written_is_a_value_of_the_schema()
    {
        Gen.Int.Sample(
            seed =>
            {
                var random = new Random(seed);
                var schema = RandomSchema.Next(random).ToJsonString(Compact);
                var automata = new Automata(OutputConstraint.ToJsonSchema(schema));
                var judge = JsonSchema.FromText(schema);
                for (var i = 0; i < 2; i++)
                {
                    var tokenizer = Automata.Either(random);
                    var text = automata.Walk(tokenizer, random);
                    using var value = JsonDocument.Parse(text);
                    Assert.That(judge.Evaluate(value.RootElement, new EvaluationOptions { RequireFormatValidation = true }).IsValid, Is.True, $"{schema} wrote {text}");

                    // However a text is cut into tokens, each is allowed. The tokenizer's own are those of the normalised text.
                    Assert.That(Nfc.Normalize(text) != text || automata.Allows(tokenizer, tokenizer.Encode(text)), Is.True, $"{schema}: {text}");
                    Assert.That(automata.Allows(tokenizer, Cut(tokenizer, text, random)), Is.True, $"{schema}: {text}");
                }
            },
            iter: 500);
    }

    [TestCase("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{}},"required":["b"]}""", """{"b":"x"}""", """{"a":1,"b":""}""", """{"a": 1, "b": "é\n\"\\\t", "c": [1,{"d":null}]}""")]
    [TestCase("""{"type":"object"}""", "{}", """{"a":{"b":{"c":[[1]]}},"d":-0.5e-3}""")]
    [TestCase("""{"properties":{"a":true},"additionalProperties":{"type":"integer"}}""", """{"aa":1,"":2}""", """{"a":"x","b":1}""", """{"ab":3}""")]
    [TestCase("""{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"}}""", "[]", "[1]", """[1,"a"]""", """[1, "a", null,null]""")]
    [TestCase("""{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":3}""", "[1,2]", "[1, 2, 3]")]
    [TestCase("""{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"next":{"$ref":"#/$defs/n"}}}}}""", "{}", """{"next":{"next":{"next":{"next":{}}}}}""")]
    [TestCase("""{"type":"number","minimum":0,"maximum":1}""", "0", "1", "0.5", "0.999", "1.0", "0.0", "0.000000000000000001")]
    [TestCase("""{"type":"number","exclusiveMinimum":-1.25,"maximum":-0.5}""", "-1.2", "-0.5", "-0.50", "-1", "-1.249")]
    [TestCase("""{"type":"integer","minimum":-12,"exclusiveMaximum":105}""", "-12", "-9", "0", "7", "99", "104")]
    [TestCase("""{"type":"string","pattern":"b+$"}""", "\"b\"", "\"\\\"abb\"")]
    [TestCase("""{"type":"string","minLength":1,"maxLength":2}""", "\"a\"", "\"😀é\"")]
    [TestCase("""{"type":["boolean","null"]}""", "true", "false", "null")]
    [TestCase("""{"enum":["a",1,[1,{"b":null}]]}""", "\"a\"", "1", """[1,{"b":null}]""", """[1, {"b": null}]""")]
    [TestCase("""{"type":"string","enum":["a",1]}""", "\"a\"")]
    [TestCase("true", "1", "\"x\"", "[[[[[1]]]]]")]
    public void Values_in_the_order_of_the_schema_can_be_written(string schema, params string[] values)
    {
        var automata = new Automata(OutputConstraint.ToJsonSchema(schema));
        foreach (var value in values)
        {
            Assert.That(automata.Accepts(value), Is.True, value);
            Assert.That(automata.Allows(Automata.Tiny, Automata.Tiny.Encode(value)), Is.True, value);
            Assert.That(automata.Allows(QwenTokenizer.Full, QwenTokenizer.Full.Encode(value)), Is.True, value);
        }
    }

    [TestCase("""{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["b"]}""", "{}", """{"a":1}""", """{"b":"x","a":1}""", """{"b":1}""", """{"b":"x","c":1}""", """{"b":  "x"}""", """{"b":"x",}""", """{ "b":"x"}""")]
    [TestCase("""{"properties":{"a":{"type":"string"}},"additionalProperties":{"type":"integer"}}""", """{"a":1}""", """{"b":"x"}""")]
    [TestCase("""{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}]}""", """["a"]""", """[1,"a",2]""")]
    [TestCase("""{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":3}""", "[]", "[1]", "[1,2,3,4]", "[1,2,]")]
    [TestCase("""{"type":"number","minimum":0,"maximum":1}""", "-1", "1.01", "2", "-0", "01", "1e0", "1.")]
    [TestCase("""{"type":"integer","minimum":-12,"exclusiveMaximum":105}""", "-13", "105", "1.5", "-120", "00")]
    [TestCase("""{"type":"string","maxLength":2}""", "\"abc\"", "\"", "\"\n\"", "\"\\u00e9\"", "\"\\u0001\"", "\"\u0001\"", "\"a\\/\"")]
    [TestCase("""{"type":"string","format":"date"}""", "\"2023-02-29\"", "\"2024-13-01\"", "\"2024-04-31\"")]
    public void Others_cannot(string schema, params string[] values)
    {
        var automata = new Automata(OutputConstraint.ToJsonSchema(schema));
        Assert.Multiple(() =>
        {
            foreach (var value in values)
            {
                Assert.That(automata.Accepts(value), Is.False, value);
            }
        });
    }

    [Test]
    public void Bounds_of_numbers_hold_to_the_last_digit()
    {
        Gen.Select(Gen.Int[-3000, 3000], Gen.Int[0, 3000], Gen.Int[0, 3], Gen.Bool, Gen.Bool, Gen.Int[-4000, 4000].Array[60]).Sample(
            (low, width, digits, lowExclusive, highExclusive, probes) =>
            {
                var scale = (decimal)Math.Pow(10, -digits);
                var (min, max) = (low * scale, (low + width) * scale);
                var node = DecimalRange.Numbers(new DecimalRange.Bound(min, lowExclusive), new DecimalRange.Bound(max, highExclusive));
                var dfa = Determinizer.Run(new Nfa(node));
                foreach (var probe in probes.Concat([low, low + 1, low - 1, low + width, low + width - 1, low + width + 1]).SelectMany(probe => new[] { probe * scale, probe * scale / 10, (probe * scale) + 0.0001m }))
                {
                    var text = probe.ToString("0.##################", CultureInfo.InvariantCulture);
                    var state = dfa.Next(dfa.Start, System.Text.Encoding.UTF8.GetBytes(text));
                    Assert.That(state >= 0 && dfa.Accepts(state), Is.EqualTo((lowExclusive ? probe > min : probe >= min) && (highExclusive ? probe < max : probe <= max)), $"{text} in {min}…{max}");
                }
            },
            iter: 300);
    }

    [TestCase("""{"properties":{"a":{"not":{}}}}""", "/properties/a uses 'not'")]
    [TestCase("""{"anyOf":[{"type":"object","patternProperties":{}}]}""", "/anyOf/0 uses 'patternProperties'")]
    [TestCase("""{"type":"array","uniqueItems":true}""", "uses 'uniqueItems'")]
    [TestCase("""{"type":"number","multipleOf":2}""", "uses 'multipleOf'")]
    [TestCase("""{"if":{}}""", "uses 'if'")]
    [TestCase("""{"allOf":[{"type":"string"},{"type":"string"}]}""", "'allOf' of more than one")]
    [TestCase("""{"anyOf":[{}],"type":"object"}""", "'type' beside 'anyOf'")]
    [TestCase("""{"type":"string","maxLength":3,"pattern":"a"}""", "schema uses more than one of 'pattern'")]
    [TestCase("""{"type":"string","format":"hostname"}""", "format 'hostname'")]
    [TestCase("""{"type":"string","pattern":"(?=a)"}""", "/pattern uses look-ahead")]
    [TestCase("""{"type":"strin"}""", "'strin'")]
    [TestCase("""{"type":"object","properties":[]}""", "/properties must be an object")]
    [TestCase("""{"type":"object","properties":{"a":3}}""", "/properties/a is no schema")]
    [TestCase("""{"type":"array","items":[{}]}""", "/items is no schema")]
    [TestCase("""{"type":"object","required":"a"}""", "/required must be a list of strings")]
    [TestCase("""{"type":"string","minLength":-1}""", "/minLength must be")]
    [TestCase("""{"enum":[]}""", "/enum must be")]
    [TestCase("""{"$ref":"other.json"}""", "other.json")]
    [TestCase("""{"$ref":"#/$defs/x"}""", "not there")]
    [TestCase("""{"$ref":"#"}""", "No JSON value fits")]
    [TestCase("""{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}""", "No JSON value fits")]
    [TestCase("""{"type":"string","minLength":3,"maxLength":2}""", "No JSON value fits")]
    [TestCase("""{"type":"integer","minimum":3,"maximum":2}""", "No JSON value fits")]
    [TestCase("""{"type":"integer","minimum":"3"}""", "/minimum must be")]
    [TestCase("""{"a":1,"a":2}""", "not readable JSON")]
    [TestCase("""{"const":"\ud800"}""", "surrogate")]
    [TestCase("{", "not readable JSON")]
    [TestCase("[]", "is no schema")]
    [TestCase("", "not readable JSON")]
    public void Others_are_refused_by_name_and_place(string schema, string because) =>
        Assert.That(() => new Automata(OutputConstraint.ToJsonSchema(schema)), Throws.TypeOf<InputException>().With.Message.Contains(because));

    private static Dictionary<string, int> ShortTokens(Tokenizer tokenizer) =>
        Enumerable.Range(0, tokenizer.VocabularySize).Where(id => tokenizer.Trie.Bytes(id).Length is > 0 and < 4).ToDictionary(id => Convert.ToHexString(tokenizer.Trie.Bytes(id)));

    // Tokens of random lengths that spell the text, by no merges' leave.
    private static List<int> Cut(Tokenizer tokenizer, string text, Random random)
    {
        var shortest = tokenizer == Automata.Tiny ? OfTiny.Value : OfFull.Value;
        var bytes = System.Text.Encoding.UTF8.GetBytes(text);
        var tokens = new List<int>();
        for (var at = 0; at < bytes.Length;)
        {
            var length = Math.Min(1 + random.Next(3), bytes.Length - at);
            while (!shortest.ContainsKey(Convert.ToHexString(bytes, at, length)))
            {
                length--;
            }

            tokens.Add(shortest[Convert.ToHexString(bytes, at, length)]);
            at += length;
        }

        return tokens;
    }
}
