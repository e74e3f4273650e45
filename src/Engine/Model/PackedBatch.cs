using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>
/// Rows of one decoder pass, side by side: any mix of prompts being filled in, single decode steps, and prompts with their completions for scoring or training.
/// Built on the host, then uploaded into fixed buffers; built again and again without allocating.
/// </summary>
public sealed class PackedBatch
{
    private readonly List<int> _ids = [];
    private readonly List<TokenRow> _rows = [];
    private readonly List<AttentionItem> _items = [];
    private readonly List<int> _blocks = [];

    /// <summary>Number of rows so far.</summary>
    public int Count => _ids.Count;

    /// <summary>Token ids; −f − 1 for image feature f.</summary>
    public List<int> Ids => _ids;

    /// <summary>Positions, slots and switches.</summary>
    public List<TokenRow> Rows => _rows;

    /// <summary>Attention work, by group.</summary>
    public List<AttentionItem> Items => _items;

    /// <summary>Block numbers the items point into.</summary>
    public List<int> Blocks => _blocks;

    /// <summary>Empties it, keeping its capacity.</summary>
    public void Clear()
    {
        _ids.Clear();
        _rows.Clear();
        _items.Clear();
        _blocks.Clear();
    }

    /// <summary>Adds a row for the next token of <paramref name="segment"/>; returns its row number.</summary>
    /// <param name="segment">Takes the token's key and value.</param>
    /// <param name="id">Token id, or −f − 1 for image feature f.</param>
    /// <param name="position">Rotary positions (temporal, height, width).</param>
    /// <param name="adapter">Whether the adapter acts on the row.</param>
    /// <param name="dropoutId">Whose dropout mask: the prompt's or the completion's id.</param>
    public int AddRow(KvSegment segment, int id, (int T, int H, int W) position, bool adapter, uint dropoutId = 0)
    {
        ArgumentNullException.ThrowIfNull(segment);
        var dropoutPosition = (uint)segment.Length;
        _ids.Add(id);
        _rows.Add(new TokenRow(position.T, position.H, position.W, segment.Append(), adapter ? 1 : 0, dropoutId, dropoutPosition));
        return _ids.Count - 1;
    }

    /// <summary>Lets the rows see every key of <paramref name="segment"/>.</summary>
    public void See(int firstRow, int rows, KvSegment segment, int group)
    {
        ArgumentNullException.ThrowIfNull(segment);
        AddItem(firstRow, rows, segment, causal: false, group);
    }

    /// <summary>Lets the rows, which are the newest tokens of <paramref name="segment"/>, see its keys up to their own.</summary>
    public void SeeCausal(int firstRow, int rows, KvSegment segment, int group)
    {
        ArgumentNullException.ThrowIfNull(segment);
        AddItem(firstRow, rows, segment, causal: true, group);
    }

    private void AddItem(int firstRow, int rows, KvSegment segment, bool causal, int group)
    {
        var firstBlock = _blocks.Count;
        for (var i = 0; i < segment.Blocks.Count; i++)
        {
            _blocks.Add(segment.Blocks[i]);
        }

        _items.Add(new AttentionItem(firstRow, rows, firstBlock, segment.Length, causal ? 1 : 0, group));
    }
}
