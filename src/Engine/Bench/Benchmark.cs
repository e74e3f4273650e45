using System.Diagnostics;
using System.Globalization;
using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Data;
using LrIad.Engine.Model;

namespace LrIad.Engine.Bench;

/// <summary>Measures the engine on the GPU with weights that mean nothing: through the seam, as inspection and rollout use it.</summary>
internal sealed partial class Benchmark : IDisposable
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
    private const int OperationsBefore = 8;

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

    // What the last layer needs not compute of a row that is only there for its keys and values.
    private long UnseenWeights => (2L * Text.Heads * Text.HeadDim * Text.Hidden) + (3L * Text.Hidden * Text.Intermediate);

    private long HeadWeights => (long)Text.Vocabulary * Text.Hidden;

    private long KvBytes => (long)Text.Layers * 2 * Text.KeyValueHeads * Text.HeadDim * sizeof(ushort);

    /// <summary>The vision encoder on one image.</summary>
    public BenchRow VisionEncoder()
    {
        using var arena = _backend.CreateArena("benchmark");
        var features = arena.Allocate(ElementType.BFloat16, GridH * GridW / 4, Text.Hidden);
        using var encoder = new VisionEncoder(_model, _backend);
        var image = Image();
        var time = OnHost(() => encoder.Encode([image], features));
        return Row($"vision encoder, {GridH * GridW:N0} patches", time, VisionBytes, VisionFlops);
    }

    /// <summary>Prompts of one image each, images included, up to their first tokens.</summary>
    public BenchRow Prefill(int prompts)
    {
        using var state = new Sequences(this, prompts, 1, PromptTokens * prompts);
        using var encoder = new VisionEncoder(_model, _backend);
        var images = Enumerable.Range(0, prompts).Select(_ => Image()).ToArray();
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
            (prompts * VisionFlops) + (2 * tokens * LayerWeights) - (2 * (tokens - prompts) * UnseenWeights) + (4L * prompts * PromptTokens * (PromptTokens + 1) / 2 * Text.Heads * Text.HeadDim * Text.Layers));
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

        return DecodeRow($"decode step, {sequences} sequences", OnHost(state.Step), groups, sequences);
    }

    private BenchRow DecodeRow(string name, double milliseconds, int groups, int sequences)
    {
        var context = ((long)groups * PromptTokens) + ((long)sequences * CompletionTokens);
        return Row(name, milliseconds, ((LayerWeights + HeadWeights) * sizeof(ushort)) + (context * KvBytes), 2 * sequences * (LayerWeights + HeadWeights));
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
            ? new BenchRow(name, milliseconds, byBytes, Amount(bytes, "B"))
            : new BenchRow(name, milliseconds, byFlops, Amount(flops, "FLOP"));
    }

    private static string Amount(double value, string unit)
    {
        var (scale, prefix) = value switch { >= 1e12 => (1e12, "T"), >= 1e9 => (1e9, "G"), _ => (1e6, "M") };
        return string.Create(CultureInfo.InvariantCulture, $"{value / scale:F2} {prefix}{unit}");
    }

    // Many in a row: one alone would be lost in the time it takes to start. Each is told its number, so that it can go over weights that are not in the L2 yet; and
    // the GPU has something else to do before, so that the host has asked for all of them when the clock starts.
    private double OnDevice(Action<int> operation)
    {
        using var arena = _backend.CreateArena("benchmark");
        var (x, y) = (Normal(arena, PromptTokens, Text.Hidden), arena.Allocate(ElementType.BFloat16, PromptTokens, Text.Hidden));
        var turn = 0;
        return Median(() =>
        {
            for (var i = 0; i < OperationsBefore; i++)
            {
                _backend.FeedForward(x, _model.Layers[i].FeedForward, y, default);
            }

            return _backend.Measure(() =>
            {
                for (var i = 0; i < InARow; i++)
                {
                    operation(turn++);
                }
            }) / InARow;
        });
    }

    private double OnHost(Action action) => Median(() =>
    {
        _backend.Synchronize();
        var start = Stopwatch.GetTimestamp();
        action();
        _backend.Synchronize();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    });

    private static double Median(Func<double> measure)
    {
        for (var i = 0; i < 3; i++)
        {
            measure();
        }

        var times = new double[Repeats];
        for (var i = 0; i < times.Length; i++)
        {
            times[i] = measure();
        }

        Array.Sort(times);
        return times[times.Length / 2];
    }

    private ImagePatches Image()
    {
        var levels = new byte[GridH * GridW * Vision.PatchValues / Vision.TemporalPatchSize];
        _random.NextBytes(levels);
        return new ImagePatches(levels, 1, GridH, GridW);
    }

    private Tensor Normal(Arena arena, int rows, int columns)
    {
        var tensor = arena.Allocate(ElementType.BFloat16, rows, columns);
        Fill(tensor);
        return tensor;
    }

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
    // The next token of every completion, each group's completions one after another.
    private static void AddStep(PackedBatch batch, IReadOnlyList<KvSegment> prompts, IReadOnlyList<KvSegment> completions, ReadOnlySpan<int> tokens)
    {
        var groupSize = completions.Count / prompts.Count;
        for (var row = 0; row < completions.Count; row++)
        {
            var position = PromptTokens + completions[row].Length;
            batch.AddRow(completions[row], tokens[row], (position, position, position), adapter: false);
        }

        for (var group = 0; group < prompts.Count; group++)
        {
            batch.See(group * groupSize, groupSize, prompts[group], group);
            for (var row = group * groupSize; row < (group + 1) * groupSize; row++)
            {
                batch.SeeCausal(row, 1, completions[row], group);
            }
        }
    }
}
