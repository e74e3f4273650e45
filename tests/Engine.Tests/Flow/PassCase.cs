using LrIad.Engine.Compute;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Tests.Flow;

/// <summary>Two groups through a random model of three layers, forward and back, in several ways that must come to the same.</summary>
internal sealed class PassCase : IDisposable
{
    private const int Rank = 3;
    private const float Temperature = 0.9f;

    private static readonly Dropout Dropout = new(0.2f, 7, 1, 0);

    private readonly Backend _backend;
    private readonly QwenModel _model;
    private readonly AdapterWeights _adapter;
    private readonly AdapterWeights _gradients;
    private readonly Group[] _groups;

    public PassCase(Backend backend)
    {
        var made = new RandomModel(
            new TextGeometry
            {
                Hidden = 64,
                Layers = 3,
                Heads = 7,
                KeyValueHeads = 1,
                HeadDim = 128,
                Intermediate = 96,
                Vocabulary = 160,
                NormEpsilon = 1e-6f,
                RopeTheta = 10_000,
                MRopeSection = [16, 24, 24],
                TiedHead = false,
            },
            seed: 11);
        _backend = backend;
        _model = QwenModel.Load(made.Folder, backend);
        var shape = AdapterWeights.ShapeFor(_model.Geometry, Rank);
        (_adapter, _gradients) = (new AdapterWeights(backend, shape), new AdapterWeights(backend, shape));
        _adapter.Upload(made.Factors(shape));
        _groups = [.. new[] { made.Group(90, 0, 7, 1, 70), made.Group(9, 3, 66, 0, 5) }.Select(group => group with { Prompt = group.Prompt with { Features = OnBackend(group.Prompt) } })];
    }

    /// <summary>Log-probs of all completion tokens and the gradient of every factor, as training computes them.</summary>
    public (float[] LogProbs, float[] Gradient) Train(bool recompute)
    {
        using var pass = new PolicyPass(_model, _backend, Rows, maxSegments: 8, Rank, recompute);
        var logProbs = pass.Forward(_groups, Temperature, _adapter, Dropout);
        _gradients.Clear();
        pass.Backward(Weights(logProbs.Length), _gradients);
        return (logProbs, Gradient());
    }

    /// <summary>The same from a pass in which nobody says which rows are wanted.</summary>
    public (float[] LogProbs, float[] Gradient) TrainAllRows()
    {
        using var arena = _backend.CreateArena("test");
        using var decoder = new Decoder(_model, _backend, Rows);
        var (cache, features, batch) = (Cache(arena), Features(arena), new PackedBatch());
        var tape = new Tape(_model, _backend, arena, cache, Rows, Rank, recompute: false);
        var targets = Pack(batch, cache, features);
        var x = decoder.Forward(batch, cache, features.Features, _adapter.Layers, Dropout, tape);

        var (list, dx) = (arena.Allocate<LogProbRow>(targets.Count), arena.Allocate(ElementType.Float32, Rows, _model.Geometry.Text.Hidden));
        View<float> Floats() => arena.Allocate<float>(targets.Count);
        var (result, weights) = (new HeadResult(default, Floats(), Floats(), Floats(), default), Floats());
        _backend.Upload<LogProbRow>(targets.ToArray(), list);
        _backend.LogProb(x, decoder.Head, list, default, result);
        var logProbs = new float[targets.Count];
        _backend.Download(result.LogProb, logProbs);
        _backend.Upload<float>(Weights(targets.Count), weights);
        _backend.LogProbBackward(x, decoder.Head, list, result.LogSumExp, weights, dx);
        _gradients.Clear();
        decoder.Backward(batch, tape, dx, _gradients.Layers);
        return (logProbs, Gradient());
    }

    /// <summary>Rows of the pass.</summary>
    public int Rows => _groups.Sum(PolicyPass.Rows);

    /// <summary>What comes out of the last layer where runs of rows are wanted; none: all are.</summary>
    public float[][] Results(IEnumerable<(int First, int Count)> wanted)
    {
        using var arena = _backend.CreateArena("test");
        using var decoder = new Decoder(_model, _backend, Rows);
        var (cache, features, batch) = (Cache(arena), Features(arena), new PackedBatch());
        Pack(batch, cache, features);
        foreach (var (first, count) in wanted)
        {
            batch.Want(first, count);
        }

        var x = decoder.Forward(batch, cache, features.Features, _adapter.Layers);
        var values = new float[x.Length];
        _backend.Download(x, values);
        return [.. values.Chunk(x.Columns)];
    }

    public void Dispose()
    {
        _gradients.Dispose();
        _adapter.Dispose();
        _model.Dispose();
    }

    private static float[] Weights(int count)
    {
        var random = new Random(count);
        return [.. Enumerable.Range(0, count).Select(_ => random.NextSingle() - 0.5f)];
    }

    private float[] Gradient() => [.. _gradients.Download().SelectMany(layer => new[] { layer.QueryA, layer.QueryB, layer.ValueA, layer.ValueB }).SelectMany(factor => factor)];

    private KvCache Cache(Arena arena)
    {
        var text = _model.Geometry.Text;
        return new KvCache(_backend, arena, _backend.ActivationType, text.Layers, text.KeyValueHeads, text.HeadDim, (Rows / KvLayer.BlockSize) + 8);
    }

    private FeatureBuffer Features(Arena arena) => new(_backend, arena, _model.Geometry.Text.Hidden, Rows);

    private List<LogProbRow> Pack(PackedBatch batch, KvCache cache, FeatureBuffer features)
    {
        var targets = new List<LogProbRow>();
        foreach (var (group, number) in _groups.Select((group, number) => (group, number)))
        {
            var prompt = cache.NewSegment();
            var promptRow = batch.AddPrompt(group.Prompt, prompt, features.Add(group.Prompt.Features), adapter: true, number, group.Completions[0].Sample | 0x8000_0000);
            var row = batch.AddCompletions(
                group.Prompt, prompt, [.. group.Completions.Select(completion => (new ReadOnlyMemory<int>(completion.Tokens)[..Math.Max(0, completion.Tokens.Length - 1)], prompt.Fork(), completion.Sample))],
                adapter: true, number);
            targets.AddRange(group.Completions.SelectMany(completion => completion.Tokens.Select((token, i) => new LogProbRow(i == 0 ? promptRow : row++, token, Temperature))));
        }

        return targets;
    }

    // Random models give float32 features; here they are the backend's bytes.
    private byte[] OnBackend(EncodedPrompt prompt)
    {
        var values = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(prompt.Features).ToArray();
        using var arena = _backend.CreateArena("test");
        var tensor = arena.Allocate(_backend.ActivationType, values.Length / _model.Geometry.Text.Hidden, _model.Geometry.Text.Hidden);
        _backend.Upload(values, tensor);
        var bytes = new byte[tensor.Bytes.Length];
        _backend.Download<byte>(tensor.Bytes, bytes);
        return bytes;
    }
}
