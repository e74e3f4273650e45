using LrIad.Engine.Compute;
using LrIad.Engine.Model;

namespace LrIad.Engine.Bench;

// One operation of the seam at a time, on the device alone.
internal sealed partial class Benchmark
{
    private const int AdapterRank = 4;

    /// <summary>Images, and prompts' token ids, that an operation takes in turn where its weights alone are not larger than the L2.</summary>
    private const int InputsInTurn = 32;

    /// <summary>One product of the decoder with few rows: its weights are read once.</summary>
    public BenchRow Linear(int rows)
    {
        using var arena = _backend.CreateArena("benchmark");
        var layers = _model.Layers;
        var up = layers[0].FeedForward.Up;
        var (x, residual, y) = (Normal(arena, rows, up.Inputs), Normal(arena, rows, up.Outputs), arena.Allocate(ElementType.BFloat16, rows, up.Outputs));
        return Product(
            $"linear {up.Inputs} → {up.Outputs}, {rows} rows", turn => _backend.ProjectOut(x, layers[turn % layers.Count].FeedForward.Up, residual, y), rows, [up.Weight], x, residual, y);
    }

    /// <summary>Causal attention over whole sequences.</summary>
    public BenchRow Attention(int sequences, int length)
    {
        using var pass = Prompts(sequences, length);
        return pass.Attention();
    }

    /// <summary>The chain rule through <see cref="Attention"/>.</summary>
    public BenchRow AttentionBackward(int sequences, int length)
    {
        using var pass = Prompts(sequences, length);
        return pass.AttentionBackward();
    }

    /// <summary>Every operation of the seam as decoder and vision encoder use it. A row is measured when it is asked for.</summary>
    public IEnumerable<BenchRow> Operations()
    {
        foreach (var make in new Func<Pass>[] { () => Decoding(1), () => Decoding(8), () => Prompts(1, PromptTokens) })
        {
            using var pass = make();
            using var adapter = Adapter();
            yield return Embed(pass.Count);
            yield return pass.Qkv(null);
            yield return pass.Qkv(adapter);
            yield return pass.Attention();
            yield return pass.Output();
            yield return pass.FeedForward();
        }

        yield return Attention(8, PromptTokens);
        yield return PatchEmbedding();
        using (var pass = Patches())
        {
            yield return pass.Qkv(null);
            yield return pass.Attention();
            yield return pass.Output();
            yield return pass.FeedForward();
        }

        yield return Merger();
        foreach (var rows in new[] { 8, 64, 256 })
        {
            yield return Draw(rows, $"{rows} rows", 0, 1f);
            yield return Draw(rows, $"{rows} rows, top-k 50, top-p 0.95", 50, 0.95f);
        }

        yield return LogProb(256);
    }

    private BenchRow Embed(int rows)
    {
        using var arena = _backend.CreateArena("benchmark");
        var (ids, x) = (arena.Allocate<int>(rows * InputsInTurn), arena.Allocate(ElementType.BFloat16, rows, Text.Hidden));
        _backend.Upload<int>(Enumerable.Range(0, ids.Length).Select(_ => _random.Next(Text.Vocabulary)).ToArray(), ids);
        var time = OnDevice(turn => _backend.Embed(ids.Slice(turn % InputsInTurn * rows, rows), _model.Embedding, default, x));
        return Row($"embed, {rows} rows", time, 2 * Bytes(x), 0);
    }

    private BenchRow PatchEmbedding()
    {
        const int patches = GridH * GridW;
        using var arena = _backend.CreateArena("benchmark");
        var pixels = Normal(arena, patches * InputsInTurn, Vision.PatchValues);
        var x = arena.Allocate(ElementType.BFloat16, patches, Vision.EmbedDim);
        return Product(
            $"patch embedding, {patches:N0} patches", turn => _backend.PatchEmbed(pixels.Slice(turn % InputsInTurn * patches, patches), _model.PatchEmbedding, x), patches,
            [_model.PatchEmbedding], pixels.Slice(0, patches), x);
    }

    private BenchRow Merger()
    {
        const int patches = GridH * GridW;
        using var arena = _backend.CreateArena("benchmark");
        var (x, features) = (Normal(arena, patches, Vision.EmbedDim), arena.Allocate(ElementType.BFloat16, patches / 4, Text.Hidden));
        return Product(
            $"merger, {patches:N0} patches", _ => _backend.MergePatches(x, _model.Merger, features), features.Rows, [_model.Merger.First.Weight, _model.Merger.Second.Weight], x, features);
    }

    private BenchRow Draw(int rows, string size, int topK, float topP)
    {
        using var arena = _backend.CreateArena("benchmark");
        var (x, samples) = (Normal(arena, rows, Text.Hidden), arena.Allocate<SampleRow>(rows));
        _backend.Upload<SampleRow>(Enumerable.Range(0, rows).Select(row => new SampleRow(row, 1f, topK, topP, 1, 2, (uint)row, 0)).ToArray(), samples);
        var result = new Compute.HeadResult(arena.Allocate<int>(rows), arena.Allocate<float>(rows), arena.Allocate<float>(rows), default, default);
        return Product($"head + draw, {size}", _ => _backend.Sample(x, _model.Head, samples, result), rows, [_model.Head.Weight], x);
    }

    private BenchRow LogProb(int rows)
    {
        using var arena = _backend.CreateArena("benchmark");
        var (x, targets) = (Normal(arena, rows, Text.Hidden), arena.Allocate<LogProbRow>(rows));
        _backend.Upload<LogProbRow>(Enumerable.Range(0, rows).Select(row => new LogProbRow(row, _random.Next(Text.Vocabulary), 1f)).ToArray(), targets);
        var result = new Compute.HeadResult(default, arena.Allocate<float>(rows), arena.Allocate<float>(rows), arena.Allocate<float>(rows), default);
        return Product($"head + log-prob, {rows} rows", _ => _backend.LogProb(x, _model.Head, targets, default, result), rows, [_model.Head.Weight], x);
    }

    // A row whose floor is that of products: every weight and activation is moved once, every weight multiplied with every row.
    private BenchRow Product(string name, Action<int> operation, int rows, Tensor[] weights, params Tensor[] activations) =>
        Row(name, OnDevice(operation), Bytes(weights) + Bytes(activations), 2L * rows * weights.Sum(weight => weight.Length));

    private static long Bytes(params Tensor[] tensors) => tensors.Sum(tensor => tensor.Length * tensor.ElementBytes);

    private AdapterWeights Adapter()
    {
        var adapter = new AdapterWeights(_backend, AdapterWeights.ShapeFor(_model.Geometry, AdapterRank));
        foreach (var layer in adapter.Layers)
        {
            Fill(layer.Query.A);
            Fill(layer.Query.B);
            Fill(layer.Value.A);
            Fill(layer.Value.B);
        }

        return adapter;
    }

    // Keys and values of a prompt have just been written when they are attended to: one layer's.
    private Pass Prompts(int count, int length)
    {
        var arena = _backend.CreateArena("benchmark");
        var cache = new KvCache(_backend, arena, ElementType.BFloat16, 1, Text.KeyValueHeads, Text.HeadDim, count * KvCache.BlocksFor(length));
        var batch = new PackedBatch();
        for (var i = 0; i < count; i++)
        {
            AddText(batch, cache.NewSegment(), length, i);
        }

        return new Pass(this, $"{batch.Count} rows", $"attention, causal, {count} × {length}", arena, cache, batch, _model.DecoderRotary, DecoderLayers);
    }

    // The last token of every completion. Its keys and values come from memory: those of all layers, in turn.
    private Pass Decoding(int groups)
    {
        var arena = _backend.CreateArena("benchmark");
        var blocks = groups * (KvCache.BlocksFor(PromptTokens) + (GroupSize * KvCache.BlocksFor(CompletionTokens)));
        var cache = new KvCache(_backend, arena, ElementType.BFloat16, Text.Layers, Text.KeyValueHeads, Text.HeadDim, blocks);
        var prompts = Enumerable.Range(0, groups).Select(_ => Grown(cache.NewSegment(), PromptTokens)).ToArray();
        var completions = prompts.SelectMany(prompt => Enumerable.Range(0, GroupSize).Select(_ => Grown(prompt.Fork(), CompletionTokens - 1))).ToArray();
        var batch = new PackedBatch();
        AddStep(batch, prompts, completions, new int[completions.Length]);
        return new Pass(
            this, $"{batch.Count} rows", $"attention, decode, {batch.Count} sequences of {PromptTokens} + {CompletionTokens}", arena, cache, batch, _model.DecoderRotary, DecoderLayers);
    }

    private Pass Patches()
    {
        const int patches = GridH * GridW;
        var arena = _backend.CreateArena("benchmark");
        var cache = new KvCache(_backend, arena, ElementType.BFloat16, 1, Vision.Heads, Vision.HeadDim, KvCache.BlocksFor(patches));
        var (batch, segment) = (new PackedBatch(), cache.NewSegment());
        for (var i = 0; i < patches; i++)
        {
            batch.AddRow(segment, 0, (0, i / GridW, i % GridW), adapter: false);
        }

        batch.See(0, patches, segment, group: 0);
        return new Pass(this, $"vision, {patches:N0} patches", $"attention, vision, {patches:N0} patches", arena, cache, batch, _model.VisionRotary, VisionLayers);
    }

    private Layer[] DecoderLayers => [.. _model.Layers.Select(layer => new Layer(layer.Qkv, layer.Output, layer.FeedForward))];

    private Layer[] VisionLayers => [.. _model.VisionLayers.Select(layer => new Layer(layer.Qkv, layer.Output, layer.FeedForward))];

    private static KvSegment Grown(KvSegment segment, int tokens)
    {
        for (var i = 0; i < tokens; i++)
        {
            segment.Append();
        }

        return segment;
    }

    /// <summary>A layer of the decoder or of the vision encoder.</summary>
    private sealed record Layer(QkvWeights Qkv, Linear Output, FeedForwardWeights FeedForward);

    /// <summary>The rows and buffers of a pass through the layers, and the layers' operations over them, one by one.</summary>
    private sealed class Pass : IDisposable
    {
        private readonly Benchmark _owner;
        private readonly string _size;
        private readonly string _attention;
        private readonly Arena _arena;
        private readonly KvCache _cache;
        private readonly PackedBatch _batch;
        private readonly Rotary _rotary;
        private readonly Layer[] _layers;
        private readonly Tensor _x;
        private readonly Tensor _y;
        private readonly Tensor _q;
        private readonly Tensor _o;

        public Pass(Benchmark owner, string size, string attention, Arena arena, KvCache cache, PackedBatch batch, Rotary rotary, Layer[] layers)
        {
            (_owner, _size, _attention, _arena, _cache, _batch, _rotary, _layers) = (owner, size, attention, arena, cache, batch, rotary, layers);
            var query = layers[0].Qkv.Query;
            (_x, _y) = (owner.Normal(arena, Count, query.Inputs), arena.Allocate(ElementType.BFloat16, Count, query.Inputs));
            (_q, _o) = (owner.Normal(arena, Count, query.Outputs), owner.Normal(arena, Count, query.Outputs));
            owner.Fill(cache.Layers[0].Data);
            foreach (var layer in cache.Layers.Skip(1))
            {
                owner._backend.Copy(cache.Layers[0].Data, layer.Data);
            }
        }

        public int Count => _batch.Count;

        private Backend Backend => _owner._backend;

        /// <summary>Norm, products, rotary, keys and values to their slots; the adapter, if any, on for every row.</summary>
        public BenchRow Qkv(AdapterWeights? adapter)
        {
            var rows = _arena.Allocate<TokenRow>(Count);
            Backend.Upload<TokenRow>(_batch.Rows.Select(row => row with { Adapter = adapter is null ? 0 : 1 }).ToArray(), rows);
            var (weights, low) = (_layers[0].Qkv, adapter?.Layers[0]);
            Tensor[] factors = low is null ? [] : [low.Query.A, low.Query.B, low.Value.A, low.Value.B];
            return _owner.Product(
                $"QKV, {_size}{(adapter is null ? "" : $", adapter of rank {adapter.Shape.Rank}")}",
                turn => Backend.ProjectQkv(_x, At(turn).Qkv, adapter?.Layers[turn % _layers.Length], default, _rotary, rows, _q, CacheAt(turn), default),
                Count, [weights.Query.Weight, weights.Key.Weight, weights.Value.Weight, .. factors], _x, _q);
        }

        public BenchRow Attention()
        {
            var (work, logSumExp) = AttentionParts();
            var time = _owner.OnDevice(turn => Backend.Attend(_q, CacheAt(turn), work, _o, logSumExp));
            return _owner.Row(_attention, time, Bytes(_q, _o) + KvBytes, 4 * Pairs * _q.Columns);
        }

        public BenchRow AttentionBackward()
        {
            var (work, logSumExp) = AttentionParts();
            var kv = _cache.Layers[0];
            var (dO, dq) = (_owner.Normal(_arena, Count, _q.Columns), _arena.Allocate(ElementType.BFloat16, Count, _q.Columns));
            var dKv = kv with { Data = _arena.Allocate(ElementType.Float32, kv.Data.Rows, kv.Data.Columns) };
            Backend.Attend(_q, kv, work, _o, logSumExp);
            var time = _owner.OnDevice(_ => Backend.AttendBackward(_q, kv, work, _o, logSumExp, dO, dq, dKv));
            return _owner.Row($"attention backward{_attention["attention".Length..]}", time, Bytes(_q, _o, dO, dq) + (3 * KvBytes), 10 * Pairs * _q.Columns);
        }

        public BenchRow Output() =>
            _owner.Product($"output projection, {_size}", turn => Backend.ProjectOut(_o, At(turn).Output, _x, _y), Count, [_layers[0].Output.Weight], _o, _x, _y);

        public BenchRow FeedForward()
        {
            var weights = _layers[0].FeedForward;
            Tensor[] products = weights.Gate is null ? [weights.Up.Weight, weights.Down.Weight] : [weights.Gate.Weight, weights.Up.Weight, weights.Down.Weight];
            return _owner.Product($"feed-forward, {_size}", turn => Backend.FeedForward(_x, At(turn).FeedForward, _y, default), Count, products, _x, _y);
        }

        public void Dispose() => _arena.Dispose();

        // Of keys and values that the rows see, and of pairs of a row and a key.
        private long KvBytes => _batch.Items.Sum(item => (long)item.Keys) * 2 * _cache.Layers[0].Heads * _cache.Layers[0].HeadDim * sizeof(ushort);

        private long Pairs => _batch.Items.Sum(item => ((long)item.Rows * item.Keys) - (item.Causal * (long)item.Rows * (item.Rows - 1) / 2));

        private (AttentionWork Work, Tensor LogSumExp) AttentionParts()
        {
            var work = new AttentionWork(Backend, _arena);
            work.Set(_batch.Items.ToArray(), _batch.Blocks.ToArray());
            return (work, _arena.Allocate(ElementType.Float32, Count, _q.Columns / _cache.Layers[0].HeadDim));
        }

        private Layer At(int turn) => _layers[turn % _layers.Length];

        private KvLayer CacheAt(int turn) => _cache.Layers[turn % _cache.Layers.Length];
    }
}
