using LrIad.Engine.Serving;
using LrIad.Engine.Text;

namespace LrIad.Engine.Constrain;

/// <summary>
/// An automaton of texts, stepped by whole tokens. Which tokens a state allows is found when it is first asked for, by one walk over the vocabulary's tree, and kept, the latest found
/// of them within a bound of memory. Any number of threads may ask.
/// </summary>
internal sealed class TokenAutomaton : ITokenConstraint
{
    private const int MaskBytes = 32 << 20;

    private readonly Dfa _dfa;
    private readonly VocabularyTrie _vocabulary;
    private readonly HashSet<int> _ends;
    private readonly int _words;
    private readonly int _maxMasks;
    private readonly Dictionary<int, uint[]> _masks = [];
    private readonly Queue<int> _oldest = new();
    private readonly Lock _lock = new();

    /// <param name="dfa">The texts, trimmed to the bytes that are tokens.</param>
    /// <param name="vocabulary">The tokens.</param>
    /// <param name="endTokens">Tokens that end a text and are no part of it.</param>
    public TokenAutomaton(Dfa dfa, VocabularyTrie vocabulary, IReadOnlyList<int> endTokens)
    {
        (_dfa, _vocabulary, _ends) = (dfa, vocabulary, [.. endTokens]);
        _words = (Math.Max(vocabulary.VocabularySize, endTokens.DefaultIfEmpty(-1).Max() + 1) + 31) / 32;
        _maxMasks = Math.Max(1, MaskBytes / (_words * sizeof(uint)));
    }

    public int Start => _dfa.Start;

    public ReadOnlySpan<uint> Allowed(int state)
    {
        lock (_lock)
        {
            if (!_masks.TryGetValue(state, out var mask))
            {
                if (_masks.Count >= _maxMasks)
                {
                    _masks.Remove(_oldest.Dequeue());
                }

                mask = _masks[state] = Mask(state);
                _oldest.Enqueue(state);
            }

            return mask;
        }
    }

    /// <summary>The state after a token, or -1 where the token is not allowed or ends the text.</summary>
    public int Next(int state, int token)
    {
        var bytes = _vocabulary.Bytes(token);
        return bytes.Length == 0 || _ends.Contains(token) ? Dfa.Dead : _dfa.Next(state, bytes);
    }

    public bool IsFinal(int state) => _dfa.Accepts(state) && !_dfa.Continues(state);

    private uint[] Mask(int state)
    {
        var mask = new uint[_words];
        var nodes = _vocabulary.Nodes;
        var table = _dfa.Table;
        var classes = _dfa.Classes.All;
        var width = _dfa.Classes.Count;

        // states[d]: after d bytes of the path that leads to the node.
        var states = new int[_vocabulary.MaxDepth + 1];
        states[0] = state;
        for (var i = 0; i < nodes.Length;)
        {
            ref readonly var node = ref nodes[i];
            var next = table[(states[node.Depth] * width) + classes[node.Byte]];
            if (next == Dfa.Dead)
            {
                i = node.End;
                continue;
            }

            states[node.Depth + 1] = next;
            if (node.Token >= 0)
            {
                mask[node.Token >> 5] |= 1u << (node.Token & 31);
            }

            i++;
        }

        foreach (var end in _ends)
        {
            mask[end >> 5] = _dfa.Accepts(state) ? mask[end >> 5] | (1u << (end & 31)) : mask[end >> 5] & ~(1u << (end & 31));
        }

        return mask;
    }
}
