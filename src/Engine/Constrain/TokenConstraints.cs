using System.Text;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;

namespace LrIad.Engine.Constrain;

/// <summary>What a completion must look like, made into which tokens may come next.</summary>
internal static class TokenConstraints
{
    private const int MaxChoices = 500;
    private const int MaxChoiceCharacters = 64 * 1024;

    /// <exception cref="InputException">The constraint is malformed, uses what is not supported, or is too large; or no text meets it.</exception>
    public static ITokenConstraint Compile(OutputConstraint constraint, Tokenizer tokenizer, IReadOnlyList<int> endTokens, CancellationToken cancellation = default)
    {
        // Every byte of Qwen2's is a token; one that has become an added or an end token cannot be written, and no text is begun that needs it.
        var vocabulary = tokenizer.Trie;
        var bytes = vocabulary.Nodes.ToArray().Where(node => node is { Depth: 0, Token: >= 0 } && !endTokens.Contains(node.Token)).Select(node => node.Byte).ToHashSet();
        return new TokenAutomaton(Automaton(constraint, bytes.Contains, cancellation), vocabulary, endTokens);
    }

    /// <summary>The automaton of the texts that meet the constraint, as far as there are bytes to write them.</summary>
    /// <inheritdoc cref="Compile"/>
    public static Dfa Automaton(OutputConstraint constraint, Func<byte, bool> exists, CancellationToken cancellation = default)
    {
        var texts = constraint switch
        {
            { JsonSchema: { } schema } => JsonSchemaGrammar.Parse(schema),
            { Regex: { } pattern } => RegexParser.Parse(pattern, "The regular expression"),
            { Choices: { } choices } => Choices(choices),
            _ => throw new ArgumentException("The constraint says nothing.", nameof(constraint)),
        };
        var dfa = Determinizer.Run(new Nfa(texts), cancellation).Trimmed(exists) ?? throw new InputException("No text meets the constraint.");
        return Minimizer.Run(dfa, cancellation);
    }

    private static RegexNode Choices(IReadOnlyList<string> choices)
    {
        if (choices.Count is 0 or > MaxChoices)
        {
            throw new InputException($"There are {choices.Count:N0} choices; 1 to {MaxChoices} are supported.");
        }

        if (choices.Sum(choice => (long)choice.Length) > MaxChoiceCharacters)
        {
            throw new InputException($"The choices are longer than {MaxChoiceCharacters:N0} characters together, which is not supported.");
        }

        if (choices.GroupBy(choice => choice).FirstOrDefault(group => group.Count() > 1) is { } twice)
        {
            throw new InputException($"The choice \"{twice.Key}\" is there twice.");
        }

        if (choices.FirstOrDefault(choice => HasHalfPair(choice)) is { } half)
        {
            throw new InputException($"The choice \"{half}\" has half a surrogate pair.");
        }

        return RegexNode.AnyOf([.. choices.Select(RegexNode.Literal)]);
    }

    private static bool HasHalfPair(string text)
    {
        for (var at = 0; at < text.Length;)
        {
            if (!Rune.TryGetRuneAt(text, at, out var rune))
            {
                return true;
            }

            at += rune.Utf16SequenceLength;
        }

        return false;
    }
}
