using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using CsCheck;
using LrIad.Engine.Constrain;
using LrIad.Engine.Serving;
using LrIad.Engine.Tests.Text;

namespace LrIad.Engine.Tests.Constrain;

internal sealed class TokenAutomatonTests
{
    [Test]
    public void A_mask_is_what_trying_each_token_gives()
    {
        Gen.Int.Sample(
            seed =>
            {
                var random = new Random(seed);
                var constraint = random.Next(2) == 0 ? OutputConstraint.ToRegex("a*" + RandomPattern.Next(random).Trim('^', '$')) : OutputConstraint.ToJsonSchema(RandomSchema.Next(random).ToJsonString());
                Automata automata;
                try
                {
                    automata = new Automata(constraint);
                }
                catch (InputException)
                {
                    return;
                }

                var (tokenizer, end) = (Automata.Tiny, Automata.EndOf(Automata.Tiny));
                var automaton = automata.With(tokenizer);
                var state = automaton.Start;
                for (var step = 0; step < 8; step++)
                {
                    var expected = Enumerable.Range(0, tokenizer.VocabularySize).Where(token => token == end ? automata.Dfa.Accepts(state) : Leads(token)).ToArray();
                    Assert.That(Automata.Members(automaton.Allowed(state)), Is.EqualTo(expected), constraint.ToString());
                    Assert.That(automaton.IsFinal(state), Is.EqualTo(expected is [var only] && only == end), constraint.ToString());
                    var on = expected.Where(token => token != end).ToArray();
                    if (on.Length == 0)
                    {
                        break;
                    }

                    state = automaton.Next(state, on[random.Next(on.Length)]);
                }

                bool Leads(int token) => tokenizer.TokenId(tokenizer.Decode([token])) is null && automata.Dfa.Next(state, tokenizer.Trie.Bytes(token)) >= 0;
            },
            iter: 100);
    }

    [Test]
    public void Characters_may_be_cut_between_tokens()
    {
        var automata = new Automata(OutputConstraint.ToRegex("[é一😀]"));
        var (tokenizer, automaton) = (Automata.Tiny, automata.With(Automata.Tiny));
        foreach (var character in new[] { "é", "一", "😀" })
        {
            var state = automaton.Start;
            foreach (var b in System.Text.Encoding.UTF8.GetBytes(character))
            {
                Assert.That(Automata.Members(automaton.Allowed(state)), Does.Not.Contain(Automata.EndOf(tokenizer)), "No text ends within a character.");
                state = automaton.Next(state, Enumerable.Range(0, tokenizer.VocabularySize).First(token => tokenizer.Trie.Bytes(token).SequenceEqual([b])));
            }

            Assert.That(automaton.IsFinal(state), Is.True);
        }
    }

    [Test]
    public void Special_and_end_tokens_are_no_text()
    {
        var constraint = OutputConstraint.ToRegex("[^x]*");
        var (tokenizer, end) = (QwenTokenizer.Full, Automata.EndOf(QwenTokenizer.Full));
        var letter = tokenizer.Encode("a")[0];
        var automaton = TokenConstraints.Compile(constraint, tokenizer, [end, letter]);
        Assert.Multiple(() =>
        {
            Assert.That(Automata.Members(automaton.Allowed(automaton.Start)).Where(token => token >= 151_643), Is.EqualTo(new[] { end }));
            Assert.That(automaton.Next(automaton.Start, letter), Is.EqualTo(-1), "Here it is an end token.");
            Assert.That(automaton.Next(automaton.Start, end), Is.EqualTo(-1));
            Assert.That(automaton.Next(automaton.Start, tokenizer.TokenId("<|image_pad|>")!.Value), Is.EqualTo(-1));
            Assert.That(() => TokenConstraints.Compile(OutputConstraint.ToRegex("a"), tokenizer, [letter]), Throws.TypeOf<InputException>());
        });
    }

    [Test]
    public void Choices_are_all_that_can_be_written()
    {
        var automata = new Automata(OutputConstraint.ToChoice(["defect", "defective", "", "不良"]));
        Assert.Multiple(() =>
        {
            Assert.That(new[] { "defect", "defective", "", "不良" }.Select(automata.Accepts), Is.All.True);
            Assert.That(new[] { "defec", "defects", "不" }.Select(automata.Accepts), Is.All.False);
            Assert.That(Refusal([]), Does.Contain("0 choices"));
            Assert.That(Refusal(["a", "b", "a"]), Does.Contain("\"a\" is there twice"));
            Assert.That(Refusal(["\uD83D"]), Does.Contain("surrogate"));
            Assert.That(Refusal([.. Enumerable.Range(0, 501).Select(i => i.ToString(CultureInfo.InvariantCulture))]), Does.Contain("501"));
        });

        static string Refusal(string[] choices) => Assert.Throws<InputException>(() => new Automata(OutputConstraint.ToChoice(choices))).Message;
    }

    [Test]
    public void Many_may_ask_at_once()
    {
        var automata = new Automata(OutputConstraint.ToJsonSchema("""{"type":"array","items":{"type":"string","maxLength":40}}"""));
        var automaton = automata.With(QwenTokenizer.Full);
        var alone = automata.With(QwenTokenizer.Full);
        var states = Enumerable.Range(0, automata.Dfa.Count).ToArray();
        var masks = states.Select(state => alone.Allowed(state).ToArray()).ToArray();
        Parallel.For(0, 4 * states.Length, i => Assert.That(automaton.Allowed(i % states.Length).SequenceEqual(masks[i % states.Length]), Is.True));
    }

    /// <summary>The state that allows most: nothing is cut off in the walk over 150,000 tokens.</summary>
    [Test]
    public void The_widest_mask_takes_milliseconds()
    {
        var automata = new Automata(OutputConstraint.ToRegex("(.|\n)*"));
        var times = new List<double>();
        for (var i = 0; i < 15; i++)
        {
            var automaton = automata.With(QwenTokenizer.Full);
            var clock = Stopwatch.StartNew();
            automaton.Allowed(automaton.Start);
            times.Add(clock.Elapsed.TotalMilliseconds);
        }

        times.Sort();
        TestContext.Out.WriteLine($"least {times[0]:F2} ms, median {times[7]:F2} ms");
        Assert.That(times[0], Is.LessThan(20));
    }

    [Test]
    public void Hostile_constraints_end_soon()
    {
        var schemas = new[]
        {
            string.Concat(Enumerable.Repeat("{\"anyOf\":[", 5000)),
            $$"""{"enum":[{{string.Join(',', Enumerable.Range(0, 8000).Select(i => $"\"{i}\""))}}]}""",
            $$"""{"const":"{{new string('x', 60_000)}}"}""",
            "{\"properties\":{\"" + new string('x', 60_000) + "\":{}},\"additionalProperties\":true}",
            """{"type":"array","items":{"type":"array","items":{"type":"string","maxLength":10000},"maxItems":10000},"maxItems":10000}""",
            """{"type":"string","maxLength":2000000000}""",
            """{"$ref":"#/$defs/a0","$defs":{""" + string.Join(',', Enumerable.Range(0, 40).Select(i => $$"""
                "a{{i}}":{"anyOf":[{"$ref":"#/$defs/a{{i + 1}}"},{"$ref":"#/$defs/a{{i + 1}}"}]}
                """)) + ""","a40":{}}}""",
            """{"$ref":"#/$defs/a0","$defs":{""" + string.Join(',', Enumerable.Range(0, 2000).Select(i => $$"""
                "a{{i}}":{"$ref":"#/$defs/a{{i + 1}}"}
                """)) + ""","a2000":{}}}""",
            new JsonObject { ["properties"] = new JsonObject(Enumerable.Range(0, 20).Select(i => KeyValuePair.Create<string, JsonNode?>($"p{i}", new JsonObject { ["$ref"] = "#" }))) }.ToJsonString(),
        };
        var patterns = new[]
        {
            "(a{1000}){1000}", "((a{100}){100}){100}", "(a|b)*a(a|b){30}", ".*a.{1000}", "((){10000}){10000}", "(((a*)*)*)*b", string.Concat(Enumerable.Repeat("(", 10_000)),
            string.Concat(Enumerable.Repeat("\\p{L}", 2000)), "[\\p{L}\\p{N}]{0,10000}", string.Concat(Enumerable.Repeat("a?", 5000)) + new string('a', 5000), new string('a', 100_000),
            string.Join('|', Enumerable.Range(0, 3000).Select(i => $"{i}")), "(.*){50}x(.*){50}",
        };
        foreach (var constraint in schemas.Select(OutputConstraint.ToJsonSchema).Concat(patterns.Select(OutputConstraint.ToRegex)))
        {
            var text = (constraint.JsonSchema ?? constraint.Regex)!;
            var (clock, outcome) = (Stopwatch.StartNew(), "built");
            var before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                TokenConstraints.Compile(constraint, Automata.Tiny, []);
            }
            catch (InputException e)
            {
                outcome = e.Message;
            }

            var allocated = (GC.GetAllocatedBytesForCurrentThread() - before) >> 20;
            TestContext.Out.WriteLine($"{clock.ElapsedMilliseconds} ms, {allocated} MiB: {text[..Math.Min(text.Length, 60)]}: {outcome}");
            Assert.That(clock.Elapsed, Is.LessThan(TimeSpan.FromSeconds(5)), text[..Math.Min(text.Length, 60)]);
            Assert.That(allocated, Is.LessThan(1024), text[..Math.Min(text.Length, 60)]);
        }
    }
}
