namespace LrIad.Engine.Compute;

/// <summary>
/// All attention of a packed batch in one layer: a list of pieces, on the backend and, for backends that plan ahead, on the host. Items are ordered by group, and
/// every row is named by at least one item with keys for it.
/// </summary>
/// <param name="backend">Where attention is computed.</param>
/// <param name="arena">Whose memory the lists take; their buffers grow by doubling and then stay.</param>
public sealed class AttentionWork(Backend backend, Arena arena)
{
    private View<AttentionItem> _items;
    private View<int> _blocks;
    private AttentionItem[] _hostItems = [];

    /// <summary>The pieces.</summary>
    public View<AttentionItem> Items { get; private set; }

    /// <summary>Block numbers that the pieces point into.</summary>
    public View<int> Blocks { get; private set; }

    /// <summary>The pieces again, on the host.</summary>
    public ReadOnlySpan<AttentionItem> HostItems => _hostItems.AsSpan(0, Items.Length);

    /// <summary>Changes with every <see cref="Set"/>.</summary>
    public int Version { get; private set; }

    /// <summary>Takes over another batch's pieces.</summary>
    public void Set(ReadOnlySpan<AttentionItem> items, ReadOnlySpan<int> blocks)
    {
        if (_items.Length < items.Length)
        {
            _items = arena.Allocate<AttentionItem>(Math.Max(256, items.Length * 2));
            _hostItems = new AttentionItem[_items.Length];
        }

        if (_blocks.Length < blocks.Length)
        {
            _blocks = arena.Allocate<int>(Math.Max(256, blocks.Length * 2));
        }

        (Items, Blocks) = (_items.Slice(0, items.Length), _blocks.Slice(0, blocks.Length));
        backend.Upload(items, Items);
        backend.Upload(blocks, Blocks);
        items.CopyTo(_hostItems);
        Version++;
    }
}
