namespace LrIad.Engine.Compute.Cuda;

/// <summary>
/// Cuts a work list into tiles of keys for the backward of attention: a page of keys, or two that follow each other, with all rows that see them, whichever items
/// they see them through. Pages that very many rows see, as completions do their prompt's, are several tiles, whose sums are added up in order.
/// </summary>
internal sealed class BackwardPlanner
{
    /// <summary>Packed query rows of a tile, about: beyond, a page is cut.</summary>
    private const int TilePackedRows = 1344;

    private readonly List<(int Block, int SecondBlock, RowRun Run)> _seen = [];

    /// <summary>What thread blocks do, one each (and a key-value head); the heaviest first.</summary>
    public List<KeyTile> Tiles { get; } = [];

    /// <summary>Runs of rows that tiles go through.</summary>
    public List<RowRun> Runs { get; } = [];

    /// <summary>Pages to add up from several tiles.</summary>
    public List<KeyMerge> Merges { get; } = [];

    /// <summary>Pages of partial sums that are needed.</summary>
    public int Slots { get; private set; }

    /// <summary>Plans a work list.</summary>
    /// <param name="items">The pieces.</param>
    /// <param name="blocks">Block numbers that they point into.</param>
    /// <param name="perHead">Query heads that read one key-value head.</param>
    /// <param name="pages">Pages of a tile: 1 or 2. Items that share a run of keys share it from its start.</param>
    public void Plan(ReadOnlySpan<AttentionItem> items, ReadOnlySpan<int> blocks, int perHead, int pages)
    {
        Tiles.Clear();
        Runs.Clear();
        Merges.Clear();
        _seen.Clear();
        Slots = 0;
        var tileKeys = pages * KvLayer.BlockSize;
        foreach (ref readonly var item in items)
        {
            for (var key = 0; key < item.Keys; key += tileKeys)
            {
                // Causally, the rows in front of the first that sees the page's first key have no part in it.
                var (limit, causal) = (AttentionPlanner.Limit(item, item.FirstRow) - key, item.Causal != 0);
                var skipped = causal ? Math.Max(0, 1 - limit) : 0;
                if (skipped < item.Rows)
                {
                    var block = item.FirstBlock + (key / KvLayer.BlockSize);
                    _seen.Add((blocks[block], pages > 1 && key + KvLayer.BlockSize < item.Keys ? blocks[block + 1] : -1, new RowRun(
                        item.FirstRow + skipped, item.Rows - skipped, Math.Min(tileKeys, item.Keys - key), limit + skipped, causal ? 1 : 0)));
                }
            }
        }

        // Stable: a page's runs stay in the order of the items.
        var order = _seen.Select((seen, i) => (seen.Block, Number: i)).Order().ToArray();
        for (int first = 0, end; first < order.Length; first = end)
        {
            for (end = first; end < order.Length && order[end].Block == order[first].Block; end++)
            {
            }

            AddPages(order[first].Block, order.AsSpan(first, end - first), Math.Max(1, TilePackedRows / perHead));
        }

        Tiles.Sort((a, b) => Rows(b) != Rows(a) ? Rows(b).CompareTo(Rows(a)) : (a.Block, a.Slot).CompareTo((b.Block, b.Slot)));
    }

    private void AddPages(int block, ReadOnlySpan<(int Block, int Number)> seen, int tileRows)
    {
        var (firstTile, firstRun, room, second) = (Tiles.Count, Runs.Count, tileRows, -1);
        foreach (var (_, number) in seen)
        {
            second = Math.Max(second, _seen[number].SecondBlock);
        }

        foreach (var (_, number) in seen)
        {
            var run = _seen[number].Run;
            while (run.Rows > room)
            {
                if (room > 0)
                {
                    Runs.Add(run with { Rows = room });
                }

                Close();
                run = run with { Row = run.Row + room, Rows = run.Rows - room, Limit = run.Limit + (run.Step * room) };
                (firstRun, room) = (Runs.Count, tileRows);
            }

            Runs.Add(run);
            room -= run.Rows;
        }

        Close();
        var tiles = Tiles.Count - firstTile;
        if (tiles == 1)
        {
            return;
        }

        // A page's slots lie side by side.
        for (var i = 0; i < tiles; i++)
        {
            Tiles[firstTile + i] = Tiles[firstTile + i] with { Slot = Slots + i, SecondSlot = second < 0 ? -1 : Slots + tiles + i };
        }

        Merges.Add(new KeyMerge(block, Slots, tiles));
        Slots += tiles;
        if (second >= 0)
        {
            Merges.Add(new KeyMerge(second, Slots, tiles));
            Slots += tiles;
        }

        void Close() => Tiles.Add(new KeyTile(block, second, -1, -1, firstRun, Runs.Count - firstRun));
    }

    private int Rows(KeyTile tile)
    {
        var rows = 0;
        for (var run = tile.FirstRun; run < tile.FirstRun + tile.Runs; run++)
        {
            rows += Runs[run].Rows;
        }

        return rows;
    }
}
