using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>What the forward pass keeps of every layer for the backward pass.</summary>
public sealed class Tape
{
    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="arena">Whose memory it takes.</param>
    /// <param name="cache">The cache of the passes to come: its gradient gets the same form.</param>
    /// <param name="maxRows">Rows of the largest pass.</param>
    /// <param name="rank">Rank of the adapter.</param>
    public Tape(QwenModel model, Backend backend, Arena arena, KvCache cache, int maxRows, int rank)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(arena);
        ArgumentNullException.ThrowIfNull(cache);
        var (text, type) = (model.Geometry.Text, backend.ActivationType);
        var queries = text.Heads * text.HeadDim;
        Cache = cache;
        Layers = [.. model.Layers.Select(layer => new Layer(
            arena.Allocate(type, maxRows, text.Hidden), arena.Allocate(type, maxRows, queries), arena.Allocate(type, maxRows, queries),
            arena.Allocate(ElementType.Float32, maxRows, text.Heads), arena.Allocate(ElementType.Float32, maxRows, 2 * rank),
            arena.Allocate(type, maxRows, text.Hidden), arena.Allocate(type, maxRows, layer.FeedForward.SavedColumns)))];
        DQuery = arena.Allocate(type, maxRows, queries);
        DOutput = arena.Allocate(type, maxRows, queries);
        var kv = cache.Layers[0];
        DKeyValue = kv with { Data = arena.Allocate(ElementType.Float32, kv.Data.Rows, kv.Data.Columns) };
    }

    /// <summary>Bytes it takes for passes of up to <paramref name="maxRows"/> rows over a cache of <paramref name="blocks"/> blocks.</summary>
    public static long Bytes(TextGeometry text, ElementType type, int maxRows, int blocks, int rank)
    {
        ArgumentNullException.ThrowIfNull(text);
        long hidden = text.Hidden, queries = (long)text.Heads * text.HeadDim;
        var layer = (type.Bytes() * (hidden + (2 * queries) + hidden + (2L * text.Intermediate))) + (sizeof(float) * (text.Heads + (2L * rank)));
        return (maxRows * ((text.Layers * layer) + (2 * queries * type.Bytes()))) + KvCache.Bytes(text, ElementType.Float32, 1, blocks);
    }

    internal KvCache Cache { get; }

    internal Layer[] Layers { get; }

    internal Tensor DQuery { get; }

    internal Tensor DOutput { get; }

    internal KvLayer DKeyValue { get; }

    /// <summary>The dropout of the pass that was taped.</summary>
    internal Dropout Dropout { get; set; }

    /// <summary>The adapter of the pass that was taped.</summary>
    internal AdapterLayer[]? Adapter { get; set; }

    internal sealed record Layer(Tensor X, Tensor Q, Tensor O, Tensor LogSumExp, Tensor LowRank, Tensor Middle, Tensor Saved);
}

/// <summary>The decoder over packed batches: forward for drawing and scoring, and the chain rule back to the adapter's factors.</summary>
public sealed class Decoder : IDisposable
{
    private readonly QwenModel _model;
    private readonly Backend _backend;
    private readonly Arena _arena;
    private readonly Tensor _x;
    private readonly Tensor _q;
    private readonly Tensor _o;
    private readonly Tensor _logSumExp;
    private readonly View<int> _ids;
    private readonly View<TokenRow> _rows;
    private readonly AttentionWork _work;

    /// <summary>Takes the buffers of passes of up to <paramref name="maxRows"/> rows.</summary>
    public Decoder(QwenModel model, Backend backend, int maxRows)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        (_model, _backend, MaxRows) = (model, backend, maxRows);
        var text = model.Geometry.Text;
        _arena = backend.CreateArena("decoder");
        _x = _arena.Allocate(backend.ActivationType, maxRows, text.Hidden);
        _q = _arena.Allocate(backend.ActivationType, maxRows, text.Heads * text.HeadDim);
        _o = _arena.Allocate(backend.ActivationType, maxRows, text.Heads * text.HeadDim);
        _logSumExp = _arena.Allocate(ElementType.Float32, maxRows, text.Heads);
        _ids = _arena.Allocate<int>(maxRows);
        _rows = _arena.Allocate<TokenRow>(maxRows);
        _work = new AttentionWork(backend, _arena);
    }

    /// <summary>Rows a pass can have.</summary>
    public int MaxRows { get; }

    /// <summary>Bytes it takes for passes of up to <paramref name="maxRows"/> rows.</summary>
    public static long Bytes(TextGeometry text, ElementType type, int maxRows)
    {
        ArgumentNullException.ThrowIfNull(text);
        var columns = text.Hidden + (2L * text.Heads * text.HeadDim);
        return maxRows * ((columns * type.Bytes()) + ((text.Heads + 1L) * sizeof(float)) + Unsafe.SizeOf<TokenRow>());
    }

    /// <summary>What turns the rows of <see cref="Forward"/> into log-probs and draws.</summary>
    public HeadWeights Head => _model.Head;

    /// <summary>Runs all layers; the result, [rows, hidden] before the final norm, stays valid until the next pass.</summary>
    /// <param name="batch">The rows.</param>
    /// <param name="cache">Takes and holds their keys and values.</param>
    /// <param name="features">Image features that negative ids name, or empty.</param>
    /// <param name="adapter">A layer each, or null.</param>
    /// <param name="dropout">LoRA dropout; its layer is filled in here.</param>
    /// <param name="tape">Where to keep what <see cref="Backward"/> needs, or null.</param>
    public Tensor Forward(PackedBatch batch, KvCache cache, Tensor features, AdapterLayer[]? adapter, Dropout dropout = default, Tape? tape = null)
    {
        ArgumentNullException.ThrowIfNull(batch);
        ArgumentNullException.ThrowIfNull(cache);
        var count = batch.Count;
        var rows = Upload(batch);
        var x = Rows(tape?.Layers[0].X ?? _x, count);
        _backend.Embed(_ids.Slice(0, count), _model.Embedding, features, x);
        if (tape is not null)
        {
            (tape.Dropout, tape.Adapter) = (dropout, adapter);
        }

        for (var i = 0; i < _model.Layers.Count; i++)
        {
            var (layer, kept) = (_model.Layers[i], tape?.Layers[i]);
            var (q, o, logSumExp) = (Rows(kept?.Q ?? _q, count), Rows(kept?.O ?? _o, count), Rows(kept?.LogSumExp ?? _logSumExp, count));
            var lowRank = kept is null || adapter is null ? default : Rows(kept.LowRank, count);
            _backend.ProjectQkv(x, layer.Qkv, adapter?[i], dropout with { Layer = i }, _model.DecoderRotary, rows, q, cache.Layers[i], lowRank);
            _backend.Attend(q, cache.Layers[i], _work, o, logSumExp);

            // Without a tape the residual stream is updated in place; with one, every layer leaves its own.
            var middle = kept is null ? x : Rows(kept.Middle, count);
            _backend.ProjectOut(o, layer.Output, x, middle);
            var next = kept is null ? x : i + 1 < tape!.Layers.Length ? Rows(tape.Layers[i + 1].X, count) : Rows(_x, count);
            _backend.FeedForward(middle, layer.FeedForward, next, kept is null ? default : Rows(kept.Saved, count));
            x = next;
        }

        return x;
    }

    /// <summary>The chain rule through the taped pass, down to every factor of the adapter.</summary>
    /// <param name="batch">The rows of the taped pass.</param>
    /// <param name="tape">What it kept.</param>
    /// <param name="dx">[rows, hidden] gradient of the pass's result; overwritten.</param>
    /// <param name="gradients">Factor gradients, added to; a layer each.</param>
    public void Backward(PackedBatch batch, Tape tape, Tensor dx, AdapterLayer[] gradients)
    {
        ArgumentNullException.ThrowIfNull(batch);
        ArgumentNullException.ThrowIfNull(tape);
        ArgumentNullException.ThrowIfNull(gradients);
        var count = batch.Count;
        var rows = _rows.Slice(0, count);
        for (var i = _model.Layers.Count - 1; i >= 0; i--)
        {
            var (layer, kept) = (_model.Layers[i], tape.Layers[i]);
            var (dq, dO) = (Rows(tape.DQuery, count), Rows(tape.DOutput, count));
            _backend.FeedForwardBackward(Rows(kept.Middle, count), layer.FeedForward, Rows(kept.Saved, count), dx, dx);
            _backend.ProjectOutBackward(dx, layer.Output, dO);
            _backend.AttendBackward(Rows(kept.Q, count), tape.Cache.Layers[i], _work, Rows(kept.O, count), Rows(kept.LogSumExp, count), dO, dq, tape.DKeyValue);
            _backend.ProjectQkvBackward(
                Rows(kept.X, count), layer.Qkv, tape.Adapter?[i], tape.Dropout with { Layer = i }, _model.DecoderRotary, rows,
                Rows(kept.LowRank, count), dq, tape.DKeyValue, dx, dx, gradients[i]);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _arena.Dispose();

    private static Tensor Rows(Tensor buffer, int count) => buffer.Slice(0, count);

    private View<TokenRow> Upload(PackedBatch batch)
    {
        if (batch.Count > MaxRows)
        {
            throw new ArgumentException($"A pass of {batch.Count} rows does not fit buffers for {MaxRows}.");
        }

        var rows = _rows.Slice(0, batch.Count);
        _backend.Upload<int>(CollectionsMarshal.AsSpan(batch.Ids), _ids.Slice(0, batch.Count));
        _backend.Upload<TokenRow>(CollectionsMarshal.AsSpan(batch.Rows), rows);
        _work.Set(CollectionsMarshal.AsSpan(batch.Items), CollectionsMarshal.AsSpan(batch.Blocks));
        return rows;
    }
}
