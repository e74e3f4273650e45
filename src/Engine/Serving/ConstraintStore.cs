using LrIad.Engine.Constrain;
using LrIad.Engine.Text;

namespace LrIad.Engine.Serving;

/// <summary>Constraints by their text, the most recently used of them: each is compiled once, on the thread that first asks for it. Safe to use from any thread.</summary>
internal sealed class ConstraintStore(Tokenizer tokenizer, IReadOnlyList<int> endTokens)
{
    private const int Most = 64;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, LinkedListNode<(string Key, Lazy<ITokenConstraint> Compiled)>> _byText = [];

    // The least recently used first.
    private readonly LinkedList<(string Key, Lazy<ITokenConstraint> Compiled)> _used = [];

    /// <exception cref="InputException">The constraint is malformed, uses what is not supported, or is too large.</exception>
    public ITokenConstraint Get(OutputConstraint constraint)
    {
        var key = constraint switch
        {
            { JsonSchema: { } schema } => "schema " + schema,
            { Regex: { } pattern } => "regex " + pattern,
            { Choices: { } choices } => "choices " + System.Text.Json.JsonSerializer.Serialize(choices),
            _ => throw new InputException("The constraint says nothing."),
        };
        Lazy<ITokenConstraint> compiled;
        lock (_lock)
        {
            if (_byText.TryGetValue(key, out var known))
            {
                _used.Remove(known);
                _used.AddLast(known);
            }
            else
            {
                known = _used.AddLast((key, new Lazy<ITokenConstraint>(() => TokenConstraints.Compile(constraint, tokenizer, endTokens))));
                _byText.Add(key, known);
                if (_used.Count > Most)
                {
                    _byText.Remove(_used.First!.Value.Key);
                    _used.RemoveFirst();
                }
            }

            compiled = known.Value.Compiled;
        }

        return compiled.Value;
    }
}
