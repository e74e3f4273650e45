using LrIad.Engine.Compute;
using LrIad.Engine.Model;

namespace LrIad.Engine.Rollout;

/// <summary>
/// Groups side by side in one pass, each as [prompt | completion 1 | … | completion G] with the prompt computed once: log-probs of all completion tokens,
/// and the chain rule from those back to the adapter's factors.
/// </summary>
internal sealed class PolicyPass : IDisposable
{
    private readonly Backend _backend;
    private readonly Decoder _decoder;
    private readonly Arena _arena;
    private readonly KvCache _cache;
    private readonly Tape _tape;
    private readonly PackedBatch _batch = new();
    private readonly FeatureBuffer _features;
    private readonly List<LogProbRow> _targets = [];
    private readonly View<LogProbRow> _targetsView;
    private readonly View<float> _dLogProb;
    private readonly HeadResult _result;
    private readonly Tensor _dx;
    private (IReadOnlyList<Group>? Groups, float Temperature) _packed;
    private Tensor _x;

    /// <summary>Takes the memory for passes of up to <paramref name="maxRows"/> rows.</summary>
    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="maxRows">Rows of a pass; at least one whole group's.</param>
    /// <param name="maxSegments">Prompts and completions of a pass.</param>
    /// <param name="rank">Rank of the adapter.</param>
    /// <param name="recompute">Keep little for the backward pass, which then computes every layer once more: slower, the same gradients.</param>
    public PolicyPass(QwenModel model, Backend backend, int maxRows, int maxSegments, int rank, bool recompute = false)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        _backend = backend;
        MaxRows = maxRows;
        MaxSegments = maxSegments;
        _decoder = new Decoder(model, backend, maxRows);
        _arena = backend.CreateArena("training pass");
        var text = model.Geometry.Text;
        _cache = new KvCache(backend, _arena, backend.ActivationType, text.Layers, text.KeyValueHeads, text.HeadDim, Blocks(maxRows, maxSegments));
        _tape = new Tape(model, backend, _arena, _cache, maxRows, rank, recompute);
        _features = new FeatureBuffer(backend, _arena, text.Hidden, maxRows);
        _targetsView = _arena.Allocate<LogProbRow>(maxRows + maxSegments);
        _dLogProb = _arena.Allocate<float>(maxRows + maxSegments);
        _result = new HeadResult(
            default, _arena.Allocate<float>(maxRows + maxSegments), _arena.Allocate<float>(maxRows + maxSegments), _arena.Allocate<float>(maxRows + maxSegments), default);
        _dx = _arena.Allocate(ElementType.Float32, maxRows, text.Hidden);
    }

    /// <summary>Rows a pass can have.</summary>
    public int MaxRows { get; }

    /// <summary>Prompts and completions a pass can have.</summary>
    public int MaxSegments { get; }

    /// <summary>Bytes it takes.</summary>
    public static long Bytes(TextGeometry text, ElementType type, int maxRows, int maxSegments, int rank, bool recompute)
    {
        ArgumentNullException.ThrowIfNull(text);
        var blocks = Blocks(maxRows, maxSegments);
        return Decoder.Bytes(text, type, maxRows) + KvCache.Bytes(text, type, text.Layers, blocks) + Tape.Bytes(text, type, maxRows, blocks, rank, recompute)
            + ((long)maxRows * text.Hidden * (type.Bytes() + sizeof(float))) + ((maxRows + maxSegments) * 28L);
    }

    /// <summary>Rows that a group takes: a completion's last token is only ever a target.</summary>
    public static int Rows(Group group)
    {
        ArgumentNullException.ThrowIfNull(group);
        return group.Prompt.Length + group.Completions.Sum(completion => Math.Max(0, completion.Tokens.Length - 1));
    }

    /// <summary>Cuts a batch into passes that fit.</summary>
    public IEnumerable<Group[]> MicroBatches(IReadOnlyList<Group> groups)
    {
        ArgumentNullException.ThrowIfNull(groups);
        var batch = new List<Group>();
        var (rows, segments) = (0, 0);
        foreach (var group in groups)
        {
            var (groupRows, groupSegments) = (Rows(group), 1 + group.Completions.Count);
            if (batch.Count > 0 && (rows + groupRows > MaxRows || segments + groupSegments > MaxSegments))
            {
                yield return [.. batch];
                batch.Clear();
                (rows, segments) = (0, 0);
            }

            batch.Add(group);
            rows += groupRows;
            segments += groupSegments;
        }

        if (batch.Count > 0)
        {
            yield return [.. batch];
        }
    }

    /// <summary>Log-probs of every completion token, group by group, completion by completion. What <see cref="Backward"/> needs is kept.</summary>
    /// <param name="groups">What to score.</param>
    /// <param name="temperature">The run's temperature.</param>
    /// <param name="adapter">The policy's adapter; null for the reference policy.</param>
    /// <param name="dropout">LoRA dropout; none when only scoring.</param>
    public float[] Forward(IReadOnlyList<Group> groups, float temperature, AdapterWeights? adapter, Dropout dropout)
    {
        ArgumentNullException.ThrowIfNull(groups);
        if ((groups, temperature) != _packed)
        {
            _packed = default;
            Pack(groups, temperature);
            _packed = (groups, temperature);
        }

        _x = _decoder.Forward(_batch, _cache, _features.Features, adapter?.Layers, dropout, _tape);

        var result = Result();
        _backend.Upload<LogProbRow>(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_targets), Targets);
        _backend.LogProb(_x, _decoder.Head, Targets, default, result);
        var logProbs = new float[_targets.Count];
        _backend.Download(result.LogProb, logProbs);
        Numbers.RequireFinite(logProbs);
        return logProbs;
    }

    /// <summary>Probability of the right one of two options where each completion of a group answers; 0 where it does not.</summary>
    /// <param name="group">The completions.</param>
    /// <param name="temperature">The run's temperature.</param>
    /// <param name="adapter">The policy's adapter.</param>
    /// <param name="locate">Where a completion's option token stands, and the two tokens that could stand there.</param>
    /// <param name="defect">Which option is right.</param>
    public double[] OptionProbabilities(Group group, float temperature, AdapterWeights adapter, Func<int[], (int Position, int Defect, int Normal)?> locate, bool defect)
    {
        ArgumentNullException.ThrowIfNull(group);
        ArgumentNullException.ThrowIfNull(locate);
        var places = group.Completions.Select(completion => locate(completion.Tokens)).ToArray();
        double[] LogProbs(Func<(int Position, int Defect, int Normal), int> option)
        {
            // The same completions with one option's token in place of the answer's.
            var changed = group.Completions.Select((completion, i) => completion with { Tokens = places[i] is { } place ? Replace(completion.Tokens, place.Position, option(place)) : completion.Tokens });
            var logProbs = Forward([group with { Completions = [.. changed] }], temperature, adapter, default);
            var start = 0;
            return [.. group.Completions.Select((completion, i) =>
            {
                var at = start + (places[i]?.Position ?? 0);
                start += completion.Tokens.Length;
                return (double)logProbs[at];
            })];
        }

        var (right, wrong) = (LogProbs(place => defect ? place.Defect : place.Normal), LogProbs(place => defect ? place.Normal : place.Defect));
        return [.. places.Select((place, i) => place is null ? 0 : 1 / (1 + Math.Exp(wrong[i] - right[i])))];
    }

    private static int[] Replace(int[] tokens, int position, int token)
    {
        var copy = (int[])tokens.Clone();
        copy[position] = token;
        return copy;
    }

    /// <summary>Adds the gradient of the last <see cref="Forward"/> to the factors' gradients.</summary>
    /// <param name="dLogProb">∂loss/∂log-prob, in the order <see cref="Forward"/> returned them.</param>
    /// <param name="gradients">Added to.</param>
    public void Backward(float[] dLogProb, AdapterWeights gradients)
    {
        ArgumentNullException.ThrowIfNull(dLogProb);
        ArgumentNullException.ThrowIfNull(gradients);
        var d = _dLogProb.Slice(0, dLogProb.Length);
        var dx = _dx.Slice(0, _batch.Results);
        _backend.Upload<float>(dLogProb, d);
        _backend.LogProbBackward(_x, _decoder.Head, Targets, Result().LogSumExp, d, dx);
        _decoder.Backward(_batch, _tape, dx, gradients.Layers);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _decoder.Dispose();
        _arena.Dispose();
    }

    private static int Blocks(int maxRows, int maxSegments) => (maxRows / KvLayer.BlockSize) + maxSegments;

    private View<LogProbRow> Targets => _targetsView.Slice(0, _targets.Count);

    private HeadResult Result() => new(default, _result.LogProb.Slice(0, _targets.Count), _result.Entropy.Slice(0, _targets.Count), _result.LogSumExp.Slice(0, _targets.Count), default);

    // The same groups come several times: under the reference and under the policy. What is packed stays good, the cache being used by one pass at a time.
    private void Pack(IReadOnlyList<Group> groups, float temperature)
    {
        var segments = new List<KvSegment>();
        _batch.Clear();
        _features.Clear();
        _targets.Clear();
        for (var g = 0; g < groups.Count; g++)
        {
            Pack(groups[g], g, temperature, segments);
        }

        segments.ForEach(segment => segment.Dispose());
    }

    private void Pack(Group group, int number, float temperature, List<KvSegment> segments)
    {
        var prompt = _cache.NewSegment();
        segments.Add(prompt);
        var firstSample = group.Completions.Count > 0 ? group.Completions[0].Sample : 0;
        var promptRow = _batch.AddPrompt(group.Prompt, prompt, _features.Add(group.Prompt.Features), adapter: true, number, PromptDropoutId(firstSample));
        var inputs = new List<(ReadOnlyMemory<int>, KvSegment, uint)>(group.Completions.Count);
        foreach (var completion in group.Completions)
        {
            var fork = prompt.Fork();
            segments.Add(fork);
            inputs.Add((completion.Tokens.AsMemory(0, Math.Max(0, completion.Tokens.Length - 1)), fork, completion.Sample));
        }

        var completionRow = _batch.AddCompletions(group.Prompt, prompt, inputs, adapter: true, number);

        // The loss sees the prompt through its last row alone, which every completion starts from.
        (promptRow, var row) = (_batch.Want(promptRow), _batch.Want(completionRow, _batch.Count - completionRow));
        foreach (var completion in group.Completions)
        {
            for (var t = 0; t < completion.Tokens.Length; t++)
            {
                _targets.Add(new LogProbRow(t == 0 ? promptRow : row++, completion.Tokens[t], temperature));
            }
        }
    }

    // Completions count up from zero; prompts take ids no completion has.
    private static uint PromptDropoutId(uint firstSample) => firstSample | 0x8000_0000;
}
