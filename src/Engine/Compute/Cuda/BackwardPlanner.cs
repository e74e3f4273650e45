namespace LrIad.Engine.Compute.Cuda;

/// <summary>
/// Cuts a work list into tiles of keys for the backward of attention: a page of keys with all rows that see it, whichever items they see it through. A page that
/// very many rows see, as completions do their prompt's, is several tiles, whose sums are added up in order.
/// </summary>
internal sealed class BackwardPlanner
{
    /// <summary>Packed query rows of a tile, about: beyond, a page is cut.</summary>
    private const int TilePackedRows = 2048;

    private readonly List<(int Block, RowRun Run)> _seen = [];

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
    public void Plan(ReadOnlySpan<AttentionItem> items, ReadOnlySpan<int> blocks, int perHead)
    {
        Tiles.Clear();
        Runs.Clear();
        Merges.Clear();
        _seen.Clear();
        Slots = 0;
        foreach (ref readonly var item in items)
        {
            for (var key = 0; key < item.Keys; key += KvLayer.BlockSize)
            {
                // Causally, the rows in front of the first that sees the page's first key have no part in it.
                var (limit, causal) = (AttentionPlanner.Limit(item, item.FirstRow) - key, item.Causal != 0);
                var skipped = causal ? Math.Max(0, 1 - limit) : 0;
                if (skipped < item.Rows)
                {
                    _seen.Add((blocks[item.FirstBlock + (key / KvLayer.BlockSize)], new RowRun(
                        item.FirstRow + skipped, item.Rows - skipped, Math.Min(KvLayer.BlockSize, item.Keys - key), limit + skipped, causal ? 1 : 0)));
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

            AddPage(order[first].Block, order.AsSpan(first, end - first), Math.Max(1, TilePackedRows / perHead));
        }

        Tiles.Sort((a, b) => Rows(b) != Rows(a) ? Rows(b).CompareTo(Rows(a)) : (a.Block, a.Slot).CompareTo((b.Block, b.Slot)));
    }

    private void AddPage(int block, ReadOnlySpan<(int Block, int Number)> page, int tileRows)
    {
        var (firstTile, firstRun, room) = (Tiles.Count, Runs.Count, tileRows);
        foreach (var (_, number) in page)
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

        Merges.Add(new KeyMerge(block, Slots, tiles));
        for (var i = firstTile; i < Tiles.Count; i++)
        {
            Tiles[i] = Tiles[i] with { Slot = Slots++ };
        }

        void Close() => Tiles.Add(new KeyTile(block, -1, -1, -1, firstRun, Runs.Count - firstRun));
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
