using System.Diagnostics;
using System.Globalization;
using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Data;
using LrIad.Engine.Model;

namespace LrIad.Engine.Bench;

/// <summary>A measured time beside the least that the GPU's own ceilings allow.</summary>
/// <param name="Name">What was measured.</param>
/// <param name="Milliseconds">Median.</param>
/// <param name="Floor">Milliseconds that the bytes or the operations take at the ceiling measured in the same run.</param>
/// <param name="Bound">Which of the two, and how much.</param>
public sealed record BenchRow(string Name, double Milliseconds, double Floor, string Bound);

/// <summary>What the GPU can do at best, measured.</summary>
/// <param name="ReadBytesPerSecond">Reading device memory.</param>
/// <param name="FlopsPerSecond">A product of 8192 × 8192 × 8192 in bfloat16.</param>
public sealed record Ceilings(double ReadBytesPerSecond, double FlopsPerSecond);

/// <summary>Measures the engine on the GPU with weights that mean nothing: through the seam, as inspection and rollout use it.</summary>
public sealed class Benchmark : IDisposable
{
    /// <summary>Patches of the image that is measured: 44 × 46, 506 tokens.</summary>
    private const int GridH = 44;
    private const int GridW = 46;
    private const int TextTokens = 102;
    private const int PromptTokens = (GridH * GridW / 4) + TextTokens;
    private const int CompletionTokens = 112;
    private const int GroupSize = 8;
    private const int Repeats = 15;
    private const int InARow = 10;

    private readonly CudaBackend _backend;
    private readonly QwenModel _model;
    private readonly Random _random = new(0);

    /// <param name="backend">The GPU.</param>
    /// <param name="geometry">Sizes of the model.</param>
    public Benchmark(CudaBackend backend, ModelGeometry geometry)
    {
        ArgumentNullException.ThrowIfNull(backend);
        _backend = backend;
        _model = QwenModel.Random(geometry, backend);
        Ceilings = backend.MeasureCeilings();
    }

    /// <summary>The GPU's ceilings, measured when the benchmark began.</summary>
    public Ceilings Ceilings { get; }

    private TextGeometry Text => _model.Geometry.Text;

    private VisionGeometry Vision => _model.Geometry.Vision;

    // What a token costs in the decoder's layers: its products, a multiplication and an addition a weight.
    private long LayerWeights => (long)Text.Layers * ((((long)Text.Heads + (2 * Text.KeyValueHeads)) * Text.HeadDim * Text.Hidden) + ((long)Text.Heads * Text.HeadDim * Text.Hidden) + (3L * Text.Hidden * Text.Intermediate));

    private long HeadWeights => (long)Text.Vocabulary * Text.Hidden;

    private long KvBytes => (long)Text.Layers * 2 * Text.KeyValueHeads * Text.HeadDim * sizeof(ushort);

    /// <summary>One product of the decoder with few rows: its weights are read once.</summary>
    public BenchRow Linear(int rows)
    {
        using var arena = _backend.CreateArena("benchmark");
        var layers = _model.Layers;
        var (x, y) = (Normal(arena, rows, Text.Hidden), arena.Allocate(ElementType.BFloat16, rows, Text.Intermediate));
        var i = 0;
        var time = OnDevice(() => _backend.ProjectOut(x, layers[i++ % layers.Count].FeedForward.Up, y, y), reset: () => _backend.Clear(y));
        return Row($"linear {Text.Hidden} → {Text.Intermediate}, {rows} rows", time, (long)Text.Hidden * Text.Intermediate * sizeof(ushort), 2L * rows * Text.Hidden * Text.Intermediate);
    }

    /// <summary>Causal attention over whole sequences.</summary>
    public BenchRow Attention(int sequences, int length)
    {
        using var arena = _backend.CreateArena("benchmark");
        var cache = new KvCache(_backend, arena, ElementType.BFloat16, 1, Text.KeyValueHeads, Text.HeadDim, sequences * KvCache.BlocksFor(length));
        Fill(cache.Layers[0].Data);
        var batch = new PackedBatch();
        for (var s = 0; s < sequences; s++)
        {
            AddText(batch, cache.NewSegment(), length, s);
        }

        var columns = Text.Heads * Text.HeadDim;
        var (q, o) = (Normal(arena, batch.Count, columns), arena.Allocate(ElementType.BFloat16, batch.Count, columns));
        var logSumExp = arena.Allocate(ElementType.Float32, batch.Count, Text.Heads);
        var work = new AttentionWork(_backend, arena);
        work.Set(batch.Items.ToArray(), batch.Blocks.ToArray());
        var time = OnDevice(() => _backend.Attend(q, cache.Layers[0], work, o, logSumExp));
        var pairs = (long)sequences * length * (length + 1) / 2;
        return Row($"attention, causal, {sequences} × {length}", time, 2 * q.Length * sizeof(ushort), 4 * pairs * columns);
    }

    /// <summary>The vision encoder on one image.</summary>
    public BenchRow VisionEncoder()
    {
        using var arena = _backend.CreateArena("benchmark");
        var features = arena.Allocate(ElementType.BFloat16, GridH * GridW / 4, Text.Hidden);
        var (encoder, image) = (new VisionEncoder(_model, _backend), Image());
        var time = OnHost(() => encoder.Encode([image], features));
        return Row($"vision encoder, {GridH * GridW:N0} patches", time, VisionBytes, VisionFlops);
    }

    /// <summary>Prompts of one image each, images included, up to their first tokens.</summary>
    public BenchRow Prefill(int prompts)
    {
        using var state = new Sequences(this, prompts, 1, PromptTokens * prompts);
        var (encoder, images) = (new VisionEncoder(_model, _backend), Enumerable.Range(0, prompts).Select(_ => Image()).ToArray());
        var features = state.Arena.Allocate(ElementType.BFloat16, prompts * GridH * GridW / 4, Text.Hidden);
        var time = OnHost(() =>
        {
            encoder.Encode(images, features);
            state.Prefill(0, prompts);
            state.Draw();
        });
        var tokens = (long)prompts * PromptTokens;
        return Row(
            $"prefill, {prompts} × {PromptTokens} tokens, images included", time, VisionBytes + ((LayerWeights + HeadWeights) * sizeof(ushort)),
            (prompts * VisionFlops) + (2 * tokens * LayerWeights) + (4L * prompts * PromptTokens * (PromptTokens + 1) / 2 * Text.Heads * Text.HeadDim * Text.Layers));
    }

    /// <summary>One more token for every completion of some groups: forward pass, head, draw, and the tokens on the host.</summary>
    public BenchRow Decode(int sequences)
    {
        var groups = sequences / GroupSize;
        using var state = new Sequences(this, groups, GroupSize, Math.Max(PromptTokens * Math.Min(groups, 4), sequences));
        for (var first = 0; first < groups; first += 4)
        {
            state.Prefill(first, Math.Min(4, groups - first));
        }

        state.Fork();
        for (var token = 0; token < CompletionTokens - Repeats; token++)
        {
            state.Step();
        }

        var time = OnHost(state.Step);
        var context = ((long)groups * PromptTokens) + ((long)sequences * CompletionTokens);
        return Row($"decode step, {sequences} sequences", time, ((LayerWeights + HeadWeights) * sizeof(ushort)) + (context * KvBytes), 2 * sequences * (LayerWeights + HeadWeights));
    }

    /// <inheritdoc/>
    public void Dispose() => _model.Dispose();

    private long VisionWeights => ((long)Vision.Depth * ((4L * Vision.EmbedDim * Vision.EmbedDim) + (2L * Vision.EmbedDim * Vision.Intermediate))) + ((long)Vision.PatchValues * Vision.EmbedDim);

    private long VisionBytes => VisionWeights * sizeof(ushort);

    private long VisionFlops
    {
        get
        {
            const long patches = GridH * GridW;
            var merged = 4L * Vision.EmbedDim;
            return (2 * patches * VisionWeights) + (4 * patches * patches * Vision.EmbedDim * Vision.Depth) + (2 * patches / 4 * ((merged * merged) + (merged * Text.Hidden)));
        }
    }

    private BenchRow Row(string name, double milliseconds, long bytes, long flops)
    {
        var (byBytes, byFlops) = (bytes / Ceilings.ReadBytesPerSecond * 1e3, flops / Ceilings.FlopsPerSecond * 1e3);
        return byBytes > byFlops
            ? new BenchRow(name, milliseconds, byBytes, string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:F2} GB"))
            : new BenchRow(name, milliseconds, byFlops, string.Create(CultureInfo.InvariantCulture, $"{flops / 1e12:F2} TFLOP"));
    }

    // Many in a row: one alone would be lost in the time it takes to start.
    private double OnDevice(Action action, Action? reset = null) => Median(
        () => _backend.Measure(() =>
        {
            for (var i = 0; i < InARow; i++)
            {
                action();
            }
        }) / InARow,
        reset);

    private double OnHost(Action action) => Median(() =>
    {
        _backend.Synchronize();
        var start = Stopwatch.GetTimestamp();
        action();
        _backend.Synchronize();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    });

    private static double Median(Func<double> measure, Action? reset = null)
    {
        for (var i = 0; i < 3; i++)
        {
            measure();
        }

        var times = new double[Repeats];
        for (var i = 0; i < times.Length; i++)
        {
            reset?.Invoke();
            times[i] = measure();
        }

        Array.Sort(times);
        return times[times.Length / 2];
    }

    private ImagePatches Image() => new([.. Enumerable.Range(0, GridH * GridW * Vision.PatchValues).Select(_ => _random.NextSingle() - 0.5f)], 1, GridH, GridW);

    private Tensor Normal(Arena arena, int rows, int columns)
    {
        var tensor = arena.Allocate(ElementType.BFloat16, rows, columns);
        Fill(tensor);
        return tensor;
    }

    // One random row of values, again and again.
    private void Fill(Tensor tensor)
    {
        var values = new float[tensor.Length];
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = (_random.NextSingle() - 0.5f) * 3;
        }

        _backend.Upload(values, tensor);
    }

    private int AddText(PackedBatch batch, KvSegment segment, int length, int group)
    {
        var first = batch.Count;
        for (var i = 0; i < length; i++)
        {
            batch.AddRow(segment, _random.Next(Text.Vocabulary), (i, i, i), adapter: false);
        }

        batch.SeeCausal(first, length, segment, group);
        return batch.Count - 1;
    }

    /// <summary>Groups of completions on their way, as the generator keeps them.</summary>
    private sealed class Sequences : IDisposable
    {
        private readonly Benchmark _owner;
        private readonly int _groupSize;
        private readonly Decoder _decoder;
        private readonly KvCache _cache;
        private readonly KvSegment[] _prompts;
        private readonly List<KvSegment> _completions = [];
        private readonly PackedBatch _batch = new();
        private readonly SampleRow[] _rows;
        private readonly View<SampleRow> _rowsView;
        private readonly Compute.HeadResult _result;
        private readonly int[] _tokens;
        private Tensor _x;
        private int _drawn;

        public Sequences(Benchmark owner, int groups, int groupSize, int maxRows)
        {
            (_owner, _groupSize) = (owner, groupSize);
            var (backend, text) = (owner._backend, owner.Text);
            Arena = backend.CreateArena("benchmark");
            _decoder = new Decoder(owner._model, backend, maxRows);
            var blocks = groups * (KvCache.BlocksFor(PromptTokens) + (groupSize * KvCache.BlocksFor(CompletionTokens + 32)));
            _cache = new KvCache(backend, Arena, ElementType.BFloat16, text.Layers, text.KeyValueHeads, text.HeadDim, blocks);
            _prompts = new KvSegment[groups];
            var count = groups * groupSize;
            _rows = new SampleRow[count];
            _tokens = new int[count];
            _rowsView = Arena.Allocate<SampleRow>(count);
            _result = new Compute.HeadResult(Arena.Allocate<int>(count), Arena.Allocate<float>(count), Arena.Allocate<float>(count), default, default);
        }

        public Arena Arena { get; }

        /// <summary>Computes the prompts of some groups anew.</summary>
        public void Prefill(int first, int count)
        {
            _batch.Clear();
            for (var g = first; g < first + count; g++)
            {
                _prompts[g]?.Dispose();
                _prompts[g] = _cache.NewSegment();
                _rows[g - first] = Sample(_owner.AddText(_batch, _prompts[g], PromptTokens, g - first), g);
            }

            _x = _decoder.Forward(_batch, _cache, default, null);
            _drawn = count;
        }

        public void Fork()
        {
            foreach (var prompt in _prompts)
            {
                for (var i = 0; i < _groupSize; i++)
                {
                    _completions.Add(prompt.Fork());
                }
            }
        }

        public void Step()
        {
            _batch.Clear();
            for (var row = 0; row < _completions.Count; row++)
            {
                var position = PromptTokens + _completions[row].Length;
                _batch.AddRow(_completions[row], _tokens[row], (position, position, position), adapter: false);
                _rows[row] = Sample(row, row);
            }

            for (var group = 0; group < _prompts.Length; group++)
            {
                _batch.See(group * _groupSize, _groupSize, _prompts[group], group);
                for (var row = group * _groupSize; row < (group + 1) * _groupSize; row++)
                {
                    _batch.SeeCausal(row, 1, _completions[row], group);
                }
            }

            _x = _decoder.Forward(_batch, _cache, default, null);
            _drawn = _completions.Count;
            Draw();
        }

        public void Draw()
        {
            var rows = _rowsView.Slice(0, _drawn);
            _owner._backend.Upload<SampleRow>(_rows.AsSpan(0, _drawn), rows);
            var result = new Compute.HeadResult(_result.Token.Slice(0, _drawn), _result.LogProb.Slice(0, _drawn), _result.Entropy.Slice(0, _drawn), default, default);
            _owner._backend.Sample(_x, _decoder.Head, rows, result);
            _owner._backend.Download(result.Token, _tokens.AsSpan(0, _drawn));
        }

        public void Dispose()
        {
            _decoder.Dispose();
            Arena.Dispose();
        }

        private SampleRow Sample(int row, int sample) => new(row, 1f, 0, 1f, 1, 2, (uint)sample, (uint)_batch.Count);
    }
}
