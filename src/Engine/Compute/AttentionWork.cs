namespace LrIad.Engine.Compute;

/// <summary>
/// All attention of a packed batch in one layer: a list of pieces, on the backend and, for backends that plan ahead, on the host. Items are ordered by group, and
/// every row is named by at least one item with keys for it.
/// </summary>
/// <param name="backend">Where attention is computed.</param>
/// <param name="arena">Whose memory the lists take; their buffers grow by doubling and then stay.</param>
internal sealed class AttentionWork(Backend backend, Arena arena)
{
    private View<AttentionItem> _items;
    private View<int> _blocks;
    private AttentionItem[] _hostItems = [];
    private int[] _hostBlocks = [];
    private int _itemCount;
    private int _blockCount;
    private bool _itemsThere;
    private bool _blocksThere;

    /// <summary>The pieces.</summary>
    public View<AttentionItem> Items => Brought(ref _itemsThere, HostItems, ref _items);

    /// <summary>Block numbers that the pieces point into.</summary>
    public View<int> Blocks => Brought(ref _blocksThere, HostBlocks, ref _blocks);

    /// <summary>The pieces on the host.</summary>
    public ReadOnlySpan<AttentionItem> HostItems => _hostItems.AsSpan(0, _itemCount);

    /// <summary>Their block numbers on the host.</summary>
    public ReadOnlySpan<int> HostBlocks => _hostBlocks.AsSpan(0, _blockCount);

    /// <summary>Changes with every <see cref="Set"/>.</summary>
    public int Version { get; private set; }

    /// <summary>Takes over another batch's pieces.</summary>
    public void Set(ReadOnlySpan<AttentionItem> items, ReadOnlySpan<int> blocks)
    {
        Keep(items, ref _hostItems, out _itemCount);
        Keep(blocks, ref _hostBlocks, out _blockCount);
        (_itemsThere, _blocksThere) = (false, false);
        Version++;
    }

    private static void Keep<T>(ReadOnlySpan<T> source, ref T[] kept, out int count)
    {
        if (kept.Length < source.Length)
        {
            kept = new T[Math.Max(256, source.Length * 2)];
        }

        source.CopyTo(kept);
        count = source.Length;
    }

    // To the backend when it asks: one that plans on the host may never do.
    private View<T> Brought<T>(ref bool there, ReadOnlySpan<T> source, ref View<T> buffer)
        where T : unmanaged
    {
        if (buffer.Length < source.Length)
        {
            buffer = arena.Allocate<T>(Math.Max(256, source.Length * 2));
        }

        var view = buffer.Slice(0, source.Length);
        if (!there)
        {
            backend.Upload(source, view);
            there = true;
        }

        return view;
    }
}
