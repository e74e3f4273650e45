using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>What the forward pass keeps of every layer for the backward pass.</summary>
internal sealed class Tape
{
    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="arena">Whose memory it takes.</param>
    /// <param name="cache">The cache of the passes to come: its gradient gets the same form.</param>
    /// <param name="maxRows">Rows of the largest pass.</param>
    /// <param name="rank">Rank of the adapter.</param>
    /// <param name="recompute">Keep the layers' inputs alone, and compute the rest of each layer once more when the backward pass gets there.</param>
    public Tape(QwenModel model, Backend backend, Arena arena, KvCache cache, int maxRows, int rank, bool recompute)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(arena);
        ArgumentNullException.ThrowIfNull(cache);
        var (text, type) = (model.Geometry.Text, backend.ActivationType);
        var queries = text.Heads * text.HeadDim;
        (Cache, Recompute) = (cache, recompute);
        Layers = new Layer[model.Layers.Count];
        for (var i = 0; i < Layers.Length; i++)
        {
            var x = arena.Allocate(type, maxRows, text.Hidden);
            Layers[i] = recompute && i > 0 ? Layers[0] with { X = x } : new Layer(
                x, arena.Allocate(type, maxRows, queries), i > 0 && !backend.KeepsAttentionOutput ? Layers[0].O : arena.Allocate(type, maxRows, queries),
                arena.Allocate(ElementType.Float32, maxRows, text.Heads), arena.Allocate(ElementType.Float32, maxRows, 2 * rank),
                arena.Allocate(type, maxRows, text.Hidden), arena.Allocate(type, maxRows, model.Layers[i].FeedForward.SavedColumns),
                type == ElementType.Float32 ? default : arena.Allocate<uint>(2 * maxRows * MaskWords(text)));
        }

        DQuery = arena.Allocate(type, maxRows, queries);
        DOutput = arena.Allocate(type, maxRows, queries);
        DX = arena.Allocate(ElementType.Float32, maxRows, text.Hidden);
        Rounded = type == ElementType.Float32 ? default : arena.Allocate(type, maxRows, text.Hidden);
        var kv = cache.Layers[0];
        DKeyValue = kv with { Data = arena.Allocate(ElementType.Float32, kv.Data.Rows, kv.Data.Columns) };
    }

    private static int MaskWords(TextGeometry text) => (text.Hidden + 31) / 32;

    /// <summary>Bytes it takes on a GPU for passes of up to <paramref name="maxRows"/> rows over a cache of <paramref name="blocks"/> blocks.</summary>
    public static long Bytes(TextGeometry text, ElementType type, int maxRows, int blocks, int rank, bool recompute)
    {
        ArgumentNullException.ThrowIfNull(text);
        long hidden = text.Hidden, queries = (long)text.Heads * text.HeadDim;
        var inside = (type.Bytes() * (queries + hidden + (2L * text.Intermediate))) + (sizeof(float) * (text.Heads + (2L * rank) + (2L * MaskWords(text))));
        var row = (text.Layers * hidden * type.Bytes()) + ((recompute ? 1 : text.Layers) * inside) + (((3 * queries) + hidden) * type.Bytes()) + (hidden * sizeof(float));
        return (maxRows * row) + KvCache.Bytes(text, ElementType.Float32, 1, blocks);
    }

    /// <summary>Whether layers share what lies behind their inputs: it is that of the layer which was computed last.</summary>
    internal bool Recompute { get; }

    internal KvCache Cache { get; }

    internal Layer[] Layers { get; }

    internal Tensor DQuery { get; }

    internal Tensor DOutput { get; }

    internal Tensor DX { get; }

    /// <summary>The residual stream's gradient as products take it; empty where they take float32.</summary>
    internal Tensor Rounded { get; }

    internal KvLayer DKeyValue { get; }

    /// <summary>The dropout of the pass that was taped.</summary>
    internal Dropout Dropout { get; set; }

    /// <summary>The adapter of the pass that was taped.</summary>
    internal AdapterLayer[]? Adapter { get; set; }

    internal sealed record Layer(Tensor X, Tensor Q, Tensor O, Tensor LogSumExp, Tensor LowRank, Tensor Middle, Tensor Saved, View<uint> Mask);
}

/// <summary>The decoder over packed batches: forward for drawing and scoring, and the chain rule back to the adapter's factors.</summary>
internal sealed class Decoder : IDisposable
{
    private readonly QwenModel _model;
    private readonly Backend _backend;
    private readonly Arena _arena;
    private readonly Tensor _x;
    private readonly Tensor _q;
    private readonly Tensor _o;
    private readonly Tensor _logSumExp;
    private readonly Tensor _wantedX;
    private readonly View<int> _ids;
    private readonly View<TokenRow> _rows;
    private readonly AttentionWork _work;
    private readonly AttentionWork _wantedWork;

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
        _wantedX = _arena.Allocate(backend.ActivationType, maxRows, text.Hidden);
        _ids = _arena.Allocate<int>(maxRows);
        _rows = _arena.Allocate<TokenRow>(maxRows);
        _work = new AttentionWork(backend, _arena);
        _wantedWork = new AttentionWork(backend, _arena);
    }

    /// <summary>Rows a pass can have.</summary>
    public int MaxRows { get; }

    /// <summary>Bytes it takes for passes of up to <paramref name="maxRows"/> rows.</summary>
    public static long Bytes(TextGeometry text, ElementType type, int maxRows)
    {
        ArgumentNullException.ThrowIfNull(text);
        var columns = (2L * text.Hidden) + (2L * text.Heads * text.HeadDim);
        return maxRows * ((columns * type.Bytes()) + ((text.Heads + 1L) * sizeof(float)) + Unsafe.SizeOf<TokenRow>());
    }

    /// <summary>What turns the rows of <see cref="Forward"/> into log-probs and draws.</summary>
    public HeadWeights Head => _model.Head;

    /// <summary>Runs all layers; the result, [wanted rows, hidden] before the final norm, stays valid until the next pass.</summary>
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
        Upload(batch);
        var x = Rows(tape?.Layers[0].X ?? _x, batch.Count);
        _backend.Embed(_ids.Slice(0, batch.Count), _model.Embedding, features, x);
        if (tape is not null)
        {
            (tape.Dropout, tape.Adapter) = (dropout, adapter);
        }

        for (var i = 0; i < _model.Layers.Count; i++)
        {
            x = Layer(i, batch, x, cache.Layers[i], adapter?[i], dropout, tape);
        }

        return x;
    }

    /// <summary>The chain rule through the taped pass, down to every factor of the adapter.</summary>
    /// <param name="batch">The rows of the taped pass.</param>
    /// <param name="tape">What it kept.</param>
    /// <param name="dx">[wanted rows, hidden] gradient of the pass's result; overwritten.</param>
    /// <param name="gradients">Factor gradients, added to; a layer each.</param>
    public void Backward(PackedBatch batch, Tape tape, Tensor dx, AdapterLayer[] gradients)
    {
        ArgumentNullException.ThrowIfNull(batch);
        ArgumentNullException.ThrowIfNull(tape);
        ArgumentNullException.ThrowIfNull(gradients);
        var count = batch.Count;
        var rows = _rows.Slice(0, count);
        Tensor roundedDx = default;
        for (var i = _model.Layers.Count - 1; i >= 0; i--)
        {
            var (layer, kept, wanted) = (_model.Layers[i], tape.Layers[i], IsLast(i) && batch.Wanted.Count > 0);
            if (tape.Recompute && !IsLast(i))
            {
                Layer(i, batch, Rows(kept.X, count), tape.Cache.Layers[i], tape.Adapter?[i], tape.Dropout, tape);
            }

            var (few, work) = wanted ? (batch.Results, _wantedWork) : (count, _work);
            var (dq, dO) = (Rows(tape.DQuery, few), Rows(tape.DOutput, few));
            var rounded = tape.Rounded.IsEmpty ? default : Rows(tape.Rounded, few);
            _backend.FeedForwardBackward(Rows(kept.Middle, few), layer.FeedForward, Rows(kept.Saved, few), dx, dx, roundedDx, rounded);
            _backend.ProjectOutBackward(dx, layer.Output, dO, rounded);
            _backend.AttendBackward(Rows(kept.Q, few), tape.Cache.Layers[i], work, Rows(kept.O, few), Rows(kept.LogSumExp, few), dO, dq, tape.DKeyValue);
            if (wanted)
            {
                // From here on all rows; dO has been used up.
                (dq, dx) = (Spread(batch, dq, Rows(tape.DOutput, count)), Spread(batch, dx, Rows(tape.DX, count)));
            }

            _backend.ProjectQkvBackward(
                Rows(kept.X, count), layer.Qkv, tape.Adapter?[i], tape.Dropout with { Layer = i }, _model.DecoderRotary, rows,
                Rows(kept.LowRank, count), dq, tape.DKeyValue, dx, dx, gradients[i], roundedDx = tape.Rounded.IsEmpty ? default : Rows(tape.Rounded, count), kept.Mask);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _arena.Dispose();

    private static Tensor Rows(Tensor buffer, int count) => buffer.Slice(0, count);

    private bool IsLast(int layer) => layer == _model.Layers.Count - 1;

    // From a layer's input to the next one's. The last layer goes on with the wanted rows alone as soon as all rows have their keys and values.
    private Tensor Layer(int i, PackedBatch batch, Tensor x, KvLayer kv, AdapterLayer? adapter, Dropout dropout, Tape? tape)
    {
        var (layer, kept, count, work, wanted) = (_model.Layers[i], tape?.Layers[i], batch.Count, _work, IsLast(i) && batch.Wanted.Count > 0);

        // What is attention's result later on has room for the queries of all rows.
        var q = Rows(wanted ? _o : kept?.Q ?? _q, count);
        var lowRank = kept is null || adapter is null ? default : Rows(kept.LowRank, count);
        _backend.ProjectQkv(x, layer.Qkv, adapter, dropout with { Layer = i }, _model.DecoderRotary, _rows.Slice(0, count), q, kv, lowRank, kept?.Mask ?? default);
        if (wanted)
        {
            (count, work) = (batch.Results, _wantedWork);
            (x, q) = (Gather(batch, x, Rows(kept?.Middle ?? _wantedX, count)), Gather(batch, q, Rows(kept?.Q ?? _q, count)));
        }

        var o = Rows(kept?.O ?? _o, count);
        _backend.Attend(q, kv, work, o, Rows(kept?.LogSumExp ?? _logSumExp, count));

        // Without a tape the residual stream is updated in place; with one, every layer leaves its own.
        var middle = kept is null ? x : Rows(kept.Middle, count);
        _backend.ProjectOut(o, layer.Output, x, middle);
        var next = kept is null ? x : Rows(IsLast(i) ? _x : tape!.Layers[i + 1].X, count);
        _backend.FeedForward(middle, layer.FeedForward, next, kept is null ? default : Rows(kept.Saved, count));
        return next;
    }

    // The wanted rows side by side.
    private Tensor Gather(PackedBatch batch, Tensor all, Tensor wanted)
    {
        var at = 0;
        foreach (var (first, count) in batch.Wanted)
        {
            _backend.Copy(all.Slice(first, count), wanted.Slice(at, count));
            at += count;
        }

        return wanted;
    }

    // The wanted rows back in their places, and zero in all others.
    private Tensor Spread(PackedBatch batch, Tensor wanted, Tensor all)
    {
        var at = 0;
        _backend.Clear(all);
        foreach (var (first, count) in batch.Wanted)
        {
            _backend.Copy(wanted.Slice(at, count), all.Slice(first, count));
            at += count;
        }

        return all;
    }

    private void Upload(PackedBatch batch)
    {
        if (batch.Count > MaxRows)
        {
            throw new ArgumentException($"A pass of {batch.Count} rows does not fit buffers for {MaxRows}.");
        }

        _backend.Upload<int>(CollectionsMarshal.AsSpan(batch.Ids), _ids.Slice(0, batch.Count));
        _backend.Upload<TokenRow>(CollectionsMarshal.AsSpan(batch.Rows), _rows.Slice(0, batch.Count));
        _work.Set(CollectionsMarshal.AsSpan(batch.Items), CollectionsMarshal.AsSpan(batch.Blocks));
        if (batch.Wanted.Count > 0)
        {
            _wantedWork.Set(CollectionsMarshal.AsSpan(batch.WantedItems()), CollectionsMarshal.AsSpan(batch.Blocks));
        }
    }
}
