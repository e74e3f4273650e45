using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Rollout;

/// <summary>How much a generator can hold at a time.</summary>
/// <param name="Prompts">Prompts whose completions are drawn side by side.</param>
/// <param name="Sequences">Completions drawn side by side, of all prompts together.</param>
/// <param name="PromptLength">Longest prompt in tokens.</param>
/// <param name="CompletionLength">Longest completion in tokens.</param>
public sealed record GeneratorLimits(int Prompts, int Sequences, int PromptLength, int CompletionLength);

/// <summary>
/// Draws completions. A prompt is computed once for its whole group, every completion forks its keys and values, and all unfinished completions
/// of all groups advance together, a token a pass. Groups that wait join as soon as finished ones have left them room.
/// </summary>
public sealed class Generator : IDisposable
{
    /// <summary>Rows of a prompt pass; more do not make the products faster.</summary>
    private const int PassRows = 2048;

    private readonly Backend _backend;
    private readonly Decoder _decoder;
    private readonly AnswerOptions _options;
    private readonly GeneratorLimits _limits;
    private readonly HashSet<int> _endTokens;
    private readonly Arena _arena;
    private readonly KvCache _cache;
    private readonly PackedBatch _batch = new();
    private readonly FeatureBuffer _features;
    private readonly HeadBuffers _head;

    private readonly List<OpenGroup> _groups = [];
    private readonly List<Sequence> _active = [];

    /// <summary>Takes all the memory it will ever need.</summary>
    public Generator(QwenModel model, Backend backend, AnswerOptions options, GeneratorLimits limits)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(limits);
        (_backend, _options, _limits) = (backend, options, limits);
        _endTokens = [.. model.EndTokens];
        _decoder = new Decoder(model, backend, Rows(limits));
        _arena = backend.CreateArena("drawing completions");
        var text = model.Geometry.Text;
        _cache = new KvCache(backend, _arena, backend.ActivationType, text.Layers, text.KeyValueHeads, text.HeadDim, CacheBlocks(limits, options.ProbeSuffix.Length));
        _features = new FeatureBuffer(backend, _arena, text.Hidden, _decoder.MaxRows);
        _head = new HeadBuffers(backend, _arena, limits.Sequences, [options.DefectToken, options.NormalToken]);
    }

    /// <summary>Bytes it takes.</summary>
    public static long Bytes(TextGeometry text, ElementType type, GeneratorLimits limits)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(limits);
        return Decoder.Bytes(text, type, Rows(limits)) + ((long)Rows(limits) * text.Hidden * type.Bytes()) + KvCache.Bytes(text, type, text.Layers, CacheBlocks(limits, KvLayer.BlockSize));
    }

    /// <summary>Draws every request's completions; the groups come back in the order of the requests.</summary>
    /// <param name="requests">What to draw.</param>
    /// <param name="sampling">How. Its length limit is at most the generator's.</param>
    /// <param name="seed">The run's seed.</param>
    /// <param name="adapter">The adapter, or null for the base model.</param>
    /// <param name="probe">Whether to compute each prompt's probe.</param>
    /// <param name="cancellation">Looked at before every token.</param>
    public IReadOnlyList<Group> Run(
        IReadOnlyList<GroupRequest> requests, SamplingOptions sampling, ulong seed, AdapterLayer[]? adapter, bool probe, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(requests);
        ArgumentNullException.ThrowIfNull(sampling);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(sampling.MaxCompletionLength, _limits.CompletionLength);
        try
        {
            do
            {
                cancellation.ThrowIfCancellationRequested();
                while (Admit(requests) is var first && first < _groups.Count)
                {
                    ComputePrompts(first, sampling, seed, adapter);
                    if (probe)
                    {
                        Probe(first, adapter);
                    }
                }

                Leave();
                if (_active.Count > 0)
                {
                    Advance(sampling, seed, adapter);
                    Leave();
                }
            }
            while (_active.Count > 0 || _groups.Count < requests.Count);
            return [.. _groups.Select(group => group.ToGroup())];
        }
        finally
        {
            _active.ForEach(sequence => sequence.Dispose());
            _active.Clear();
            _groups.ForEach(group => group.Dispose());
            _groups.Clear();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _decoder.Dispose();
        _arena.Dispose();
    }

    /// <summary>Takes in waiting groups, as many as one pass and the cache have room for; returns the number of the first.</summary>
    private int Admit(IReadOnlyList<GroupRequest> requests)
    {
        var first = _groups.Count;
        if (first == requests.Count)
        {
            return first;
        }

        var (rows, sequences, blocks) = (0, _active.Count, 0);
        foreach (var group in _groups)
        {
            blocks += group.Open > 0 ? BlocksFor(group.Request.Prompt.Length, group.Request.Completions) : 0;
        }

        while (_groups.Count < requests.Count)
        {
            var request = requests[_groups.Count];
            if (request.Prompt.Length > _limits.PromptLength || request.Completions > _limits.Sequences)
            {
                throw new ArgumentException($"{request.Completions} completions of a prompt of {request.Prompt.Length} tokens exceed the generator's limits ({_limits}).");
            }

            rows += request.Prompt.Length;
            sequences += Math.Max(1, request.Completions);
            blocks += BlocksFor(request.Prompt.Length, request.Completions);
            if (rows > _decoder.MaxRows || sequences > _limits.Sequences || blocks > _cache.Blocks)
            {
                break;
            }

            _groups.Add(new OpenGroup(request, _cache.NewSegment()));
        }

        return first;
    }

    private int BlocksFor(int promptLength, int completions) => BlocksFor(_limits, _options.ProbeSuffix.Length, promptLength, completions);

    private static int BlocksFor(GeneratorLimits limits, int probeLength, int promptLength, int completions) =>
        KvCache.BlocksFor(promptLength) + KvCache.BlocksFor(probeLength) + (completions * KvCache.BlocksFor(limits.CompletionLength));

    private static int Rows(GeneratorLimits limits) => Math.Max(PassRows, Math.Max(limits.PromptLength, limits.Sequences));

    private static int CacheBlocks(GeneratorLimits limits, int probeLength) =>
        (limits.Prompts * BlocksFor(limits, probeLength, limits.PromptLength, 0)) + (limits.Sequences * KvCache.BlocksFor(limits.CompletionLength));

    /// <summary>Computes the prompts from group <paramref name="first"/> on, forks every completion off its prompt and draws its first token.</summary>
    private void ComputePrompts(int first, SamplingOptions sampling, ulong seed, AdapterLayer[]? adapter)
    {
        _batch.Clear();
        _features.Clear();
        var firstSequence = _active.Count;
        for (var g = first; g < _groups.Count; g++)
        {
            var (prompt, segment) = (_groups[g].Request.Prompt, _groups[g].Prompt);
            var lastRow = _batch.Want(_batch.AddPrompt(prompt, segment, _features.Add(prompt.Features), adapter is not null, group: g - first));
            for (var i = 0; i < _groups[g].Request.Completions; i++)
            {
                var sample = _groups[g].Request.FirstSample + (uint)i;
                _head.Samples[_active.Count - firstSequence] = Row(lastRow, sample, 0, sampling, seed);
                _active.Add(new Sequence(g, sample, segment.Fork(), sampling.MaxCompletionLength));
            }
        }

        var x = _decoder.Forward(_batch, _cache, _features.Features, adapter);
        Draw(x, firstSequence);
    }

    /// <summary>Appends each unfinished completion's last token and draws its next one.</summary>
    private void Advance(SamplingOptions sampling, ulong seed, AdapterLayer[]? adapter)
    {
        _batch.Clear();
        for (var row = 0; row < _active.Count; row++)
        {
            var sequence = _active[row];
            var position = _groups[sequence.Group].Request.Prompt.NextPosition + sequence.Length - 1;
            _batch.AddRow(sequence.Segment, sequence.LastToken, (position, position, position), adapter is not null);
            _head.Samples[row] = Row(row, sequence.Sample, sequence.Length, sampling, seed);
        }

        // Completions of a group stand next to each other, so that the group's shared prompt is one work item.
        for (int row = 0, run; row < _active.Count; row += run)
        {
            var group = _active[row].Group;
            for (run = 1; row + run < _active.Count && _active[row + run].Group == group; run++)
            {
            }

            _batch.See(row, run, _groups[group].Prompt, group);
            for (var i = row; i < row + run; i++)
            {
                _batch.SeeCausal(i, 1, _active[i].Segment, group);
            }
        }

        Draw(_decoder.Forward(_batch, _cache, default, adapter), 0);
    }

    private void Draw(Tensor x, int firstSequence)
    {
        _head.Sample(x, _decoder.Head, _active.Count - firstSequence);
        for (var i = firstSequence; i < _active.Count; i++)
        {
            var r = i - firstSequence;
            _active[i].Append(_head.Tokens[r], _head.LogProbs[r], _head.Entropies[r], _endTokens.Contains(_head.Tokens[r]));
        }
    }

    /// <summary>Log-odds of the two options after the forced, empty reasoning, on prompts that are in the cache already.</summary>
    private void Probe(int first, AdapterLayer[]? adapter)
    {
        var suffix = _options.ProbeSuffix;
        var forks = new List<KvSegment>();
        _batch.Clear();
        for (var g = first; g < _groups.Count; g++)
        {
            var (prompt, fork) = (_groups[g].Request.Prompt, _groups[g].Prompt.Fork());
            forks.Add(fork);
            var firstRow = _batch.AddCompletions(prompt, _groups[g].Prompt, [(suffix, fork, 0)], adapter is not null, group: g - first);
            _head.Targets[g - first] = new LogProbRow(_batch.Want(firstRow + suffix.Length - 1), _options.DefectToken, 1f);
        }

        var x = _decoder.Forward(_batch, _cache, default, adapter);
        _head.LogProb(x, _decoder.Head, _groups.Count - first);
        for (var g = first; g < _groups.Count; g++)
        {
            _groups[g].Probe = _head.Options[(g - first) * 2] - _head.Options[((g - first) * 2) + 1];
        }

        forks.ForEach(fork => fork.Dispose());
    }

    /// <summary>Finished completions leave; a group's prompt goes with its last one.</summary>
    private void Leave()
    {
        var kept = 0;
        for (var i = 0; i < _active.Count; i++)
        {
            var sequence = _active[i];
            if (!sequence.Finished)
            {
                _active[kept++] = sequence;
                continue;
            }

            _groups[sequence.Group].Finish(sequence);
            sequence.Dispose();
        }

        _active.RemoveRange(kept, _active.Count - kept);
        foreach (var group in _groups)
        {
            if (group.Open == 0)
            {
                group.Dispose();
            }
        }
    }

    private static SampleRow Row(int row, uint sample, int position, SamplingOptions sampling, ulong seed) =>
        new(row, sampling.Temperature, sampling.TopK, sampling.TopP, (uint)seed, (uint)(seed >> 32), sample, (uint)position);

    private sealed class OpenGroup(GroupRequest request, KvSegment prompt) : IDisposable
    {
        private readonly Completion?[] _completions = new Completion?[request.Completions];

        public GroupRequest Request { get; } = request;

        public KvSegment Prompt { get; } = prompt;

        public int Open { get; private set; } = request.Completions;

        public float? Probe { get; set; }

        public void Finish(Sequence sequence)
        {
            _completions[sequence.Sample - Request.FirstSample] = sequence.ToCompletion();
            Open--;
        }

        public Group ToGroup() => new(Request.Prompt, [.. _completions.Select(completion => completion!)], Probe);

        public void Dispose() => Prompt.Dispose();
    }
}
