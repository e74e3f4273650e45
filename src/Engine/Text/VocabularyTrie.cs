namespace LrIad.Engine.Text;

/// <summary>
/// The bytes of a vocabulary's tokens as a tree, written down in one row: a node is followed by its children's subtrees, and knows where its own ends. So a walk that gives a branch up
/// jumps, and one that goes on reads the next entry. Special and other added tokens are not in it.
/// </summary>
internal sealed class VocabularyTrie
{
    private readonly byte[][] _tokens;
    private readonly List<Node> _nodes = [];

    /// <param name="tokens">Each token's bytes; none: not in the tree.</param>
    public VocabularyTrie(byte[][] tokens)
    {
        _tokens = tokens;
        var order = Enumerable.Range(0, tokens.Length).Where(id => tokens[id].Length > 0).ToArray();
        Array.Sort(order, (a, b) => tokens[a].AsSpan().SequenceCompareTo(tokens[b]));
        var path = new List<int>();
        foreach (var id in order)
        {
            var bytes = tokens[id];
            var shared = 0;
            while (shared < Math.Min(path.Count, bytes.Length) && _nodes[path[shared]].Byte == bytes[shared])
            {
                shared++;
            }

            Close(path, shared);
            for (var depth = shared; depth < bytes.Length; depth++)
            {
                path.Add(_nodes.Count);
                _nodes.Add(new Node(bytes[depth], depth, depth + 1 == bytes.Length ? id : -1, 0));
            }

            MaxDepth = Math.Max(MaxDepth, bytes.Length);
        }

        Close(path, 0);
    }

    /// <summary>Bytes of the longest token.</summary>
    public int MaxDepth { get; }

    /// <summary>Largest token id + 1.</summary>
    public int VocabularySize => _tokens.Length;

    public ReadOnlySpan<Node> Nodes => System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_nodes);

    /// <summary>A token's bytes; none for one that is not in the tree.</summary>
    public ReadOnlySpan<byte> Bytes(int token) => (uint)token < (uint)_tokens.Length ? _tokens[token] : [];

    private void Close(List<int> path, int depth)
    {
        for (var i = depth; i < path.Count; i++)
        {
            _nodes[path[i]] = _nodes[path[i]] with { End = _nodes.Count };
        }

        path.RemoveRange(depth, path.Count - depth);
    }

    /// <param name="Byte">The byte that leads here.</param>
    /// <param name="Depth">Bytes before it.</param>
    /// <param name="Token">The token that ends here, or -1.</param>
    /// <param name="End">The first node after those below it.</param>
    public readonly record struct Node(byte Byte, int Depth, int Token, int End);
}
