using System.Text;
using LrIad.Engine.Constrain;
using LrIad.Engine.Serving;
using LrIad.Engine.Tests.Text;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Constrain;

/// <summary>A constraint's automaton under both tokenizers, and walks through it.</summary>
internal sealed class Automata
{
    private const int Far = int.MaxValue;

    private readonly int[] _distance;

    public Automata(OutputConstraint constraint)
    {
        Dfa = TokenConstraints.Automaton(constraint, _ => true);
        _distance = Distances(Dfa);
    }

    public static Tokenizer Tiny { get; } = Tokenizer.Load(Path.Combine(TestFiles.TinyModel, "tokenizer.json"));

    public Dfa Dfa { get; }

    public static int EndOf(Tokenizer tokenizer) => tokenizer.TokenId("<|im_end|>")!.Value;

    // Mostly the small one: drawing from 150,000 tokens a step takes its time.
    public static Tokenizer Either(Random random) => random.Next(5) == 0 ? QwenTokenizer.Full : Tiny;

    public static bool IsAllowed(ITokenConstraint automaton, int state, int token) => (automaton.Allowed(state)[token >> 5] >> (token & 31) & 1) != 0;

    public TokenAutomaton With(Tokenizer tokenizer) => new(Dfa, tokenizer.Trie, [EndOf(tokenizer)]);

    public bool Accepts(string text) => Dfa.Next(Dfa.Start, Encoding.UTF8.GetBytes(text)) is >= 0 and var state && Dfa.Accepts(state);

    /// <summary>A text of random allowed tokens. After some of them only those are taken that lead nearer to the end.</summary>
    public string Walk(Tokenizer tokenizer, Random random)
    {
        var (automaton, end, tokens) = (With(tokenizer), EndOf(tokenizer), new List<int>());
        var free = random.Next(30);
        for (var state = automaton.Start; ;)
        {
            var allowed = Members(automaton.Allowed(state));
            Assert.That(allowed, Is.Not.Empty, "A state from which nothing leads on was entered.");
            if (allowed.Contains(end) && (tokens.Count >= free || allowed.Length == 1 || random.Next(4) == 0))
            {
                break;
            }

            var drawn = Enumerable.Range(0, 1 + (random.Next(3) * 4)).Select(_ => allowed[random.Next(allowed.Length)]).Where(token => token != end);
            var nearest = tokens.Count < free ? drawn : allowed.Where(token => token != end);
            var next = nearest.DefaultIfEmpty(allowed.First(token => token != end)).MinBy(token => _distance[automaton.Next(state, token)]);
            tokens.Add(next);
            state = automaton.Next(state, next);
        }

        // Whole characters alone: decoding would show half of one as U+FFFD.
        return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString([.. tokens.SelectMany(token => tokenizer.Trie.Bytes(token).ToArray())]);
    }

    /// <summary>Whether the tokens are allowed one after the other, and then the end.</summary>
    public bool Allows(Tokenizer tokenizer, IEnumerable<int> tokens)
    {
        var automaton = With(tokenizer);
        var state = automaton.Start;
        foreach (var token in tokens)
        {
            if (!IsAllowed(automaton, state, token))
            {
                return false;
            }

            state = automaton.Next(state, token);
        }

        return IsAllowed(automaton, state, EndOf(tokenizer));
    }

    public static int[] Members(ReadOnlySpan<uint> mask)
    {
        var members = new List<int>();
        for (var word = 0; word < mask.Length; word++)
        {
            for (var bits = mask[word]; bits != 0; bits &= bits - 1)
            {
                members.Add((word * 32) + int.TrailingZeroCount((int)bits));
            }
        }

        return [.. members];
    }

    private static int[] Distances(Dfa dfa)
    {
        var distance = new int[dfa.Count];
        Array.Fill(distance, Far);
        var before = new Predecessors(dfa.Table, dfa.Count, dfa.Classes.Count);
        var pending = new Queue<int>(Enumerable.Range(0, dfa.Count).Where(dfa.Accepts));
        foreach (var state in pending)
        {
            distance[state] = 0;
        }

        while (pending.TryDequeue(out var state))
        {
            for (var c = 0; c < dfa.Classes.Count; c++)
            {
                foreach (var source in before.Of(state, c))
                {
                    if (distance[source] == Far)
                    {
                        distance[source] = distance[state] + 1;
                        pending.Enqueue(source);
                    }
                }
            }
        }

        return distance;
    }
}
