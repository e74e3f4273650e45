using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>
/// Keys and values of all decoder layers in reference-counted blocks of <see cref="KvLayer.BlockSize"/> slots. A block number means the same slots in every layer.
/// </summary>
internal sealed class KvCache
{
    private readonly Stack<int> _free;
    private readonly int[] _references;

    /// <summary>Takes the memory for <paramref name="blocks"/> blocks a layer from the arena.</summary>
    public KvCache(Backend backend, Arena arena, ElementType type, int layers, int heads, int headDim, int blocks)
    {
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(arena);
        Layers = new KvLayer[layers];
        for (var layer = 0; layer < layers; layer++)
        {
            Layers[layer] = new KvLayer(arena.Allocate(type, blocks, KvLayer.BlockColumns(heads, headDim)), heads, headDim);
        }

        _references = new int[blocks];
        _free = new Stack<int>(blocks);
        for (var block = blocks - 1; block >= 0; block--)
        {
            _free.Push(block);
        }
    }

    /// <summary>One view a decoder layer.</summary>
    public KvLayer[] Layers { get; }

    /// <summary>Blocks not in use.</summary>
    public int FreeBlocks => _free.Count;

    /// <summary>Blocks in all.</summary>
    public int Blocks => _references.Length;

    /// <summary>Bytes of some layers with <paramref name="blocks"/> blocks each.</summary>
    public static long Bytes(TextGeometry text, ElementType type, int layers, int blocks)
    {
        ArgumentNullException.ThrowIfNull(text);
        return (long)layers * blocks * KvLayer.BlockColumns(text.KeyValueHeads, text.HeadDim) * type.Bytes();
    }

    /// <summary>Blocks that <paramref name="tokens"/> tokens of one segment take.</summary>
    public static int BlocksFor(int tokens) => (tokens + KvLayer.BlockSize - 1) / KvLayer.BlockSize;

    /// <summary>A new, empty segment; a child sees all of its parent's keys first.</summary>
    public KvSegment NewSegment(KvSegment? parent = null) => new(this, parent);

    internal int Take()
    {
        if (!_free.TryPop(out var block))
        {
            throw new InvalidOperationException($"The key-value cache is full ({_references.Length} blocks of {KvLayer.BlockSize} tokens). Lower --prompts-per-step, --num-generations or --max-completion-length.");
        }

        _references[block] = 1;
        return block;
    }

    internal void Retain(int block) => _references[block]++;

    internal void Release(int block)
    {
        if (--_references[block] == 0)
        {
            _free.Push(block);
        }
    }
}

/// <summary>
/// A run of consecutive tokens of one sequence: a prompt, or one completion after it. A sequence is the chain of its segments. Forking shares the blocks of
/// everything up to here and goes on in fresh blocks, so nothing is ever copied; and attention always meets the same pieces, whether a completion
/// is drawn token by token or scored in one go.
/// </summary>
internal sealed class KvSegment : IDisposable
{
    private readonly KvCache _cache;
    private readonly List<int> _blocks = [];
    private bool _forked;
    private bool _disposed;

    internal KvSegment(KvCache cache, KvSegment? parent)
    {
        _cache = cache;
        Parent = parent;
        if (parent is not null)
        {
            ObjectDisposedException.ThrowIf(parent._disposed, parent);
            parent._forked = true;
        }

        for (var ancestor = parent; ancestor is not null; ancestor = ancestor.Parent)
        {
            foreach (var block in ancestor._blocks)
            {
                cache.Retain(block);
            }
        }
    }

    /// <summary>What comes before, or null.</summary>
    public KvSegment? Parent { get; }

    /// <summary>Tokens in this segment.</summary>
    public int Length { get; private set; }

    /// <summary>This segment's own blocks.</summary>
    public IReadOnlyList<int> Blocks => _blocks;

    /// <summary>Takes a slot for one more token.</summary>
    /// <exception cref="InvalidOperationException">The cache is full, or the segment has been forked: its children would see the token too.</exception>
    public int Append()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_forked)
        {
            throw new InvalidOperationException("A segment that has been forked cannot grow.");
        }

        if (Length % KvLayer.BlockSize == 0)
        {
            _blocks.Add(_cache.Take());
        }

        var slot = (_blocks[^1] * KvLayer.BlockSize) + (Length % KvLayer.BlockSize);
        Length++;
        return slot;
    }

    /// <summary>A child: it keeps all blocks so far alive, even after this segment is disposed. From now on this segment cannot grow.</summary>
    public KvSegment Fork() => _cache.NewSegment(this);

    /// <summary>Gives back its hold on its own and its ancestors' blocks.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        for (var segment = this; segment is not null; segment = segment.Parent)
        {
            foreach (var block in segment._blocks)
            {
                _cache.Release(block);
            }
        }
    }
}
