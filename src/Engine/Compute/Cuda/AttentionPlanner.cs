using System.Runtime.InteropServices;

namespace LrIad.Engine.Compute.Cuda;

/// <summary>
/// Cuts a work list into tiles for the GPU, in one of two ways. Long stretches of rows that see the same items (prompts, images, completions being scored) go
/// tile by tile through all their keys. Where almost every row has items of its own (decoding), each item is a tile instead, so that a group reads its prompt
/// once, and its keys are cut into ranges so that there is work for the whole GPU; partial results are merged. The ranges depend on an item's keys alone.
/// </summary>
internal sealed class AttentionPlanner
{
    /// <summary>Packed query rows of a tile whose keys are cut into ranges.</summary>
    public const int TileRows = 64;

    /// <summary>Keys of a range.</summary>
    public const int RangeKeys = 128;

    private readonly List<(int Row, int Slot)> _partials = [];
    private readonly List<int> _active = [];
    private int[] _order = [];
    private int[] _edges = [];

    /// <summary>What thread blocks do, one each (and a key-value head).</summary>
    public List<AttendTile> Tiles { get; } = [];

    /// <summary>Runs of keys that tiles go through.</summary>
    public List<AttendRun> Runs { get; } = [];

    /// <summary>Rows to merge from partial results.</summary>
    public List<AttendMerge> Merges { get; } = [];

    /// <summary>Slots of partial results, row by row.</summary>
    public List<int> Parts { get; } = [];

    /// <summary>Slots that partial results need.</summary>
    public int Slots { get; private set; }

    /// <summary>Plans a work list.</summary>
    /// <param name="items">The pieces.</param>
    /// <param name="perHead">Query heads that read one key-value head.</param>
    /// <param name="wideRows">Packed query rows of a tile that goes through all its keys; 0 if every item is to be a tile.</param>
    public void Plan(ReadOnlySpan<AttentionItem> items, int perHead, int wideRows)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(perHead, TileRows);
        Clear();
        var rows = 0;
        foreach (var item in items)
        {
            rows += item.Rows;
        }

        if (wideRows > 0 && rows > 2 * items.Length)
        {
            PlanByRow(items, wideRows / perHead);
        }
        else
        {
            PlanByItem(items, TileRows / perHead);
            Merge();
        }
    }

    /// <summary>Plans a work list as tiles of rows that go through all their keys, whatever it looks like.</summary>
    /// <param name="items">The pieces.</param>
    /// <param name="tileRows">Rows of a tile.</param>
    public void PlanRows(ReadOnlySpan<AttentionItem> items, int tileRows)
    {
        Clear();
        PlanByRow(items, tileRows);
    }

    /// <summary>How many keys the first of an item's rows from <paramref name="row"/> on sees.</summary>
    public static int Limit(in AttentionItem item, int row) => item.Causal != 0 ? item.Keys - item.Rows + 1 + (row - item.FirstRow) : item.Keys;

    private void Clear()
    {
        Tiles.Clear();
        Runs.Clear();
        Merges.Clear();
        Parts.Clear();
        _partials.Clear();
        Slots = 0;
    }

    private int Keys(AttendTile tile)
    {
        var keys = 0;
        for (var run = tile.FirstRun; run < tile.FirstRun + tile.Runs; run++)
        {
            keys += Runs[run].Keys;
        }

        return keys;
    }

    private void PlanByRow(ReadOnlySpan<AttentionItem> items, int tileRows)
    {
        Array.Resize(ref _order, Math.Max(_order.Length, items.Length));
        Array.Resize(ref _edges, Math.Max(_edges.Length, 2 * items.Length));
        for (var i = 0; i < items.Length; i++)
        {
            (_order[i], _edges[2 * i], _edges[(2 * i) + 1]) = (i, items[i].FirstRow, items[i].FirstRow + items[i].Rows);
        }

        var starts = new int[items.Length];
        for (var i = 0; i < items.Length; i++)
        {
            starts[i] = items[i].FirstRow;
        }

        // Stable: items that start together stay in the order of the list.
        Array.Sort(_order, 0, items.Length, Comparer<int>.Create((a, b) => starts[a] != starts[b] ? starts[a].CompareTo(starts[b]) : a.CompareTo(b)));
        Array.Sort(_edges, 0, 2 * items.Length);
        _active.Clear();
        var next = 0;
        for (var e = 0; e + 1 < 2 * items.Length; e++)
        {
            var (first, end) = (_edges[e], _edges[e + 1]);
            if (first == end)
            {
                continue;
            }

            for (var i = _active.Count - 1; i >= 0; i--)
            {
                if (items[_active[i]].FirstRow + items[_active[i]].Rows <= first)
                {
                    _active.RemoveAt(i);
                }
            }

            for (; next < items.Length && items[_order[next]].FirstRow <= first; next++)
            {
                _active.Insert(~_active.BinarySearch(_order[next]), _order[next]);
            }

            for (var row = first; row < end && _active.Count > 0; row += tileRows)
            {
                var rows = Math.Min(tileRows, end - row);
                Tiles.Add(new AttendTile(row, rows, Runs.Count, _active.Count, -1));
                foreach (var i in _active)
                {
                    var limit = Limit(items[i], row);
                    var causal = items[i].Causal != 0;
                    Runs.Add(new AttendRun(items[i].FirstBlock, causal ? Math.Min(items[i].Keys, limit + rows - 1) : items[i].Keys, limit, causal ? 1 : 0));
                }
            }
        }

        // Tiles with the most keys first: what is left for the end is small.
        Tiles.Sort((a, b) => Keys(b) != Keys(a) ? Keys(b).CompareTo(Keys(a)) : a.Row.CompareTo(b.Row));
    }

    private void PlanByItem(ReadOnlySpan<AttentionItem> items, int tileRows)
    {
        foreach (ref readonly var item in items)
        {
            for (var row = item.FirstRow; row < item.FirstRow + item.Rows; row += tileRows)
            {
                var rows = Math.Min(tileRows, item.FirstRow + item.Rows - row);
                var (limit, causal) = (Limit(item, row), item.Causal != 0);
                var keys = causal ? Math.Min(item.Keys, limit + rows - 1) : item.Keys;
                for (var key = 0; key < keys; key += RangeKeys)
                {
                    Tiles.Add(new AttendTile(row, rows, Runs.Count, 1, Slots));
                    Runs.Add(new AttendRun(item.FirstBlock + (key / KvLayer.BlockSize), Math.Min(RangeKeys, keys - key), limit - key, causal ? 1 : 0));
                    for (var i = 0; i < rows; i++)
                    {
                        _partials.Add((row + i, Slots++));
                    }
                }
            }
        }
    }

    // Slots count up, so a row's parts come in the order of the list and of the keys.
    private void Merge()
    {
        var partials = CollectionsMarshal.AsSpan(_partials);
        partials.Sort((a, b) => a.Row != b.Row ? a.Row.CompareTo(b.Row) : a.Slot.CompareTo(b.Slot));
        for (int first = 0, end; first < partials.Length; first = end)
        {
            for (end = first; end < partials.Length && partials[end].Row == partials[first].Row; end++)
            {
                Parts.Add(partials[end].Slot);
            }

            Merges.Add(new AttendMerge(partials[first].Row, first, end - first));
        }
    }
}
