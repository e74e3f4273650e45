using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>
/// Rows of one decoder pass, side by side: any mix of prompts being filled in, single decode steps, and prompts with their completions for scoring or training.
/// Built on the host, then uploaded into fixed buffers; built again and again without allocating.
/// </summary>
internal sealed class PackedBatch
{
    private readonly List<int> _ids = [];
    private readonly List<TokenRow> _rows = [];
    private readonly List<AttentionItem> _items = [];
    private readonly List<int> _blocks = [];
    private readonly List<(int First, int Count)> _wanted = [];
    private readonly List<AttentionItem> _wantedItems = [];
    private int _wantedRows;

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

    /// <summary>Runs of rows whose results are wanted, in order; none: all rows are.</summary>
    public List<(int First, int Count)> Wanted => _wanted;

    /// <summary>Rows of the pass's result.</summary>
    public int Results => _wanted.Count > 0 ? _wantedRows : Count;

    /// <summary>Empties it, keeping its capacity.</summary>
    public void Clear()
    {
        _ids.Clear();
        _rows.Clear();
        _items.Clear();
        _blocks.Clear();
        _wanted.Clear();
        _wantedRows = 0;
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

    /// <summary>Adds a whole prompt; returns its last row, which every completion starts from.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="segment">An empty segment that takes its keys and values.</param>
    /// <param name="firstFeature">Row of the pass's features at which the prompt's own begin.</param>
    /// <param name="adapter">Whether the adapter acts.</param>
    /// <param name="group">Attention group.</param>
    /// <param name="dropoutId">The prompt's id, shared by all of its group.</param>
    public int AddPrompt(EncodedPrompt prompt, KvSegment segment, int firstFeature, bool adapter, int group, uint dropoutId = 0)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        var firstRow = Count;
        for (var i = 0; i < prompt.Length; i++)
        {
            var id = prompt.Ids[i];
            AddRow(segment, id < 0 ? id - firstFeature : id, prompt.Positions[i], adapter, dropoutId);
        }

        SeeCausal(firstRow, prompt.Length, segment, group);
        return Count - 1;
    }

    /// <summary>
    /// Adds the tokens of completions of one prompt, one completion after another; returns the first row. All their rows see the prompt first and then
    /// their own completion, as they do when drawn one by one, so that the results are the same to the last bit.
    /// </summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="promptSegment">Its keys and values, in the cache or in this pass.</param>
    /// <param name="completions">Tokens to add, each completion with a fork of the prompt's segment and its dropout id.</param>
    /// <param name="adapter">Whether the adapter acts.</param>
    /// <param name="group">Attention group, that of the prompt where it is in this pass.</param>
    public int AddCompletions(
        EncodedPrompt prompt, KvSegment promptSegment, IReadOnlyList<(ReadOnlyMemory<int> Tokens, KvSegment Segment, uint DropoutId)> completions, bool adapter, int group)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        ArgumentNullException.ThrowIfNull(completions);
        var firstRow = Count;
        foreach (var (tokens, segment, dropoutId) in completions)
        {
            for (var i = 0; i < tokens.Length; i++)
            {
                var position = prompt.NextPosition + i;
                AddRow(segment, tokens.Span[i], (position, position, position), adapter, dropoutId);
            }
        }

        if (Count > firstRow)
        {
            See(firstRow, Count - firstRow, promptSegment, group);
        }

        var row = firstRow;
        foreach (var (tokens, segment, _) in completions)
        {
            if (tokens.Length > 0)
            {
                SeeCausal(row, tokens.Length, segment, group);
                row += tokens.Length;
            }
        }

        return firstRow;
    }

    /// <summary>
    /// Says that the results of these rows are wanted. Once any are, nothing but keys and values is computed in the last layer for the rows that are not: nobody looks at what
    /// comes behind. Rows are named in order, and for a backward pass the last one of every segment among them: its gradient reaches all keys in front of it.
    /// </summary>
    /// <returns>The first one's row in the pass's result, where wanted rows stand side by side.</returns>
    public int Want(int firstRow, int rows = 1)
    {
        var (first, count) = _wanted.Count > 0 ? _wanted[^1] : (0, 0);
        ArgumentOutOfRangeException.ThrowIfLessThan(firstRow, first + count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(firstRow + rows, Count);
        if (count > 0 && firstRow == first + count)
        {
            _wanted[^1] = (first, count + rows);
        }
        else if (rows > 0)
        {
            _wanted.Add((firstRow, rows));
        }

        _wantedRows += rows;
        return _wantedRows - rows;
    }

    /// <summary>The attention of the wanted rows, by the numbers they have in the result.</summary>
    internal List<AttentionItem> WantedItems()
    {
        _wantedItems.Clear();
        foreach (var item in _items)
        {
            var result = 0;
            foreach (var (first, count) in _wanted)
            {
                var (from, behind) = (Math.Max(first, item.FirstRow), item.FirstRow + item.Rows - first - count);
                var rows = item.FirstRow + item.Rows - Math.Max(0, behind) - from;
                if (rows > 0)
                {
                    // The last of an item's rows sees all of its keys; one that has others behind it sees as many less.
                    _wantedItems.Add(item with { FirstRow = result + from - first, Rows = rows, Keys = item.Keys - (item.Causal * Math.Max(0, behind)) });
                }

                result += count;
            }
        }

        return _wantedItems;
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
