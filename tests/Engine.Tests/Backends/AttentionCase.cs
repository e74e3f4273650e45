using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Queries, keys and values with a work list over them. Blocks are scattered, and slots that no row may see hold huge values.</summary>
internal sealed class AttentionCase
{
    private const float Forbidden = 3e15f;

    private readonly Queue<int> _freeBlocks;
    private readonly List<AttentionItem> _items = [];
    private readonly List<int> _blocks = [];
    private readonly Random _random;
    private int _groups;

    public AttentionCase(int heads, int headDim, int perHead, int seed, int maxBlocks = 64)
    {
        (Heads, HeadDim, PerHead, MaxBlocks) = (heads, headDim, perHead, maxBlocks);
        _random = new Random(seed);
        var blocks = Enumerable.Range(0, maxBlocks).ToArray();
        _random.Shuffle(blocks);
        _freeBlocks = new Queue<int>(blocks);
        Kv = new float[maxBlocks * KvLayer.BlockColumns(heads, headDim)];
        Array.Fill(Kv, Forbidden);
    }

    public int Heads { get; }

    public int HeadDim { get; }

    public int PerHead { get; }

    public int MaxBlocks { get; }

    public int Columns => Heads * PerHead * HeadDim;

    public int Rows { get; private set; }

    public List<float> Q { get; } = [];

    public float[] Kv { get; }

    public AttentionItem[] Items => [.. _items];

    public int[] Blocks => [.. _blocks];

    /// <summary>The newest rows of a prompt.</summary>
    public AttentionCase Prefill(int keys, int rows)
    {
        _items.Add(new AttentionItem(Rows, rows, NewRun(keys), keys, 1, _groups++));
        AddRows(rows);
        return this;
    }

    /// <summary>An image: everything sees everything.</summary>
    public AttentionCase Full(int rows)
    {
        _items.Add(new AttentionItem(Rows, rows, NewRun(rows), rows, 0, _groups++));
        AddRows(rows);
        return this;
    }

    /// <summary>Completions of one prompt, each given by how many tokens it has and how many of them are rows, with or without the prompt's own rows.</summary>
    public AttentionCase Group(int prompt, bool withPrompt, params (int Keys, int Rows)[] completions)
    {
        var run = NewRun(prompt);
        if (withPrompt)
        {
            _items.Add(new AttentionItem(Rows, prompt, run, prompt, 1, _groups));
            AddRows(prompt);
        }

        _items.Add(new AttentionItem(Rows, completions.Sum(completion => completion.Rows), run, prompt, 0, _groups));
        foreach (var (keys, rows) in completions)
        {
            _items.Add(new AttentionItem(Rows, rows, NewRun(keys), keys, 1, _groups));
            AddRows(rows);
        }

        _groups++;
        return this;
    }

    /// <summary>The listed rows over the same keys, as a decode step has them: every row an item of its own, that ends with the last key it sees.</summary>
    public AttentionCase Only(params int[] rows)
    {
        var only = new AttentionCase(Heads, HeadDim, PerHead, 0, MaxBlocks);
        Kv.CopyTo(only.Kv, 0);
        only._blocks.AddRange(_blocks);
        foreach (var row in rows)
        {
            foreach (var item in _items.Where(item => row >= item.FirstRow && row < item.FirstRow + item.Rows))
            {
                only._items.Add(item with { FirstRow = only.Rows, Rows = 1, Keys = Visible(item, row), Group = only._groups });
            }

            only.Q.AddRange(Q.Slice(row * Columns, Columns));
            only.Rows++;
            only._groups++;
        }

        return only;
    }

    /// <summary>How many of an item's keys a row sees.</summary>
    public static int Visible(AttentionItem item, int row) => item.Causal == 0 ? item.Keys : item.Keys - (item.FirstRow + item.Rows - 1 - row);

    /// <summary>Where in <see cref="Kv"/> the key of a head starts; its value lies <see cref="ValueOffset"/> further.</summary>
    public int KeyAt(AttentionItem item, int key, int head) =>
        (_blocks[item.FirstBlock + (key / KvLayer.BlockSize)] * KvLayer.BlockColumns(Heads, HeadDim)) + (((head * KvLayer.BlockSize) + (key % KvLayer.BlockSize)) * HeadDim);

    public int ValueOffset => Heads * KvLayer.BlockSize * HeadDim;

    /// <summary>The operands in a backend's memory.</summary>
    public AttentionOperands On(Device device) => new(
        device.Put(Q.ToArray(), Rows), new KvLayer(device.Put(Kv, MaxBlocks), Heads, HeadDim), device.Work(Items, Blocks),
        device.New(Rows, Columns), device.New(Rows, Heads * PerHead, ElementType.Float32));

    private void AddRows(int rows)
    {
        Rows += rows;
        Q.AddRange(Reference.Normal(_random, rows * Columns, 1.5f));
    }

    private int NewRun(int keys)
    {
        var first = _blocks.Count;
        for (var key = 0; key < keys; key += KvLayer.BlockSize)
        {
            _blocks.Add(_freeBlocks.Dequeue());
        }

        var run = new AttentionItem(0, 0, first, keys, 0, 0);
        for (var key = 0; key < keys; key++)
        {
            for (var head = 0; head < Heads; head++)
            {
                Reference.Normal(_random, HeadDim, 1f).CopyTo(Kv, KeyAt(run, key, head));
                Reference.Normal(_random, HeadDim, 1f).CopyTo(Kv, KeyAt(run, key, head) + ValueOffset);
            }
        }

        return first;
    }
}

internal sealed record AttentionOperands(Tensor Q, KvLayer Kv, AttentionWork Work, Tensor O, Tensor LogSumExp)
{
    public void Attend(Device device) => device.Backend.Attend(Q, Kv, Work, O, LogSumExp);
}
