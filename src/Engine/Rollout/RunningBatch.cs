using LrIad.Engine.Compute;
using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Rollout;

/// <summary>
/// Completions being drawn side by side. A prompt is computed once for all that start from it, every completion forks its keys and values, and all unfinished completions of
/// all groups advance together, a token a step; groups join and leave at any step. What a completion draws depends on its own group alone. A step is any number of
/// <see cref="Advance"/> and <see cref="Start"/>, in this order, and one <see cref="Collect"/>, which is where the host waits for the device.
/// </summary>
internal sealed partial class RunningBatch : IDisposable
{
    /// <summary>Rows of a prompt pass while others wait for their next tokens.</summary>
    private const int ServingRows = 2048;

    /// <summary>Rows of a prompt pass where nobody waits; more do not make the products faster.</summary>
    private const int PassRows = 5120;

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
    private readonly ScoreBuffers? _scores;

    // The last rows' outputs of the prompts, and which places in there are free.
    private readonly Tensor _last;
    private readonly Stack<int> _places = [];

    private readonly HashSet<OpenPrompt> _prompts = [];
    private readonly List<OpenGroup> _opened = [];
    private readonly List<OpenGroup> _groups = [];
    private readonly List<OpenGroup> _probed = [];

    // Those with the same adapter stand together, those without one first; of these, those with the same prompt.
    private readonly List<Sequence> _active = [];
    private readonly List<Sequence> _drawn = [];
    private int _reserved;

    /// <summary>Takes all the memory it will ever need.</summary>
    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="options">What the probe compares.</param>
    /// <param name="limits">How much is held at a time.</param>
    /// <param name="serving">Whether constraints, the likeliest tokens and scores can be asked for.</param>
    public RunningBatch(QwenModel model, Backend backend, AnswerOptions options, GeneratorLimits limits, bool serving = false)
    {
        (_backend, _options, _limits) = (backend, options, limits);
        _endTokens = [.. model.EndTokens];
        _decoder = new Decoder(model, backend, serving ? Rows(limits, ServingRows) : Rows(limits));
        _arena = backend.CreateArena("drawing completions");
        var text = model.Geometry.Text;
        _cache = new KvCache(backend, _arena, backend.ActivationType, text.Layers, text.KeyValueHeads, text.HeadDim, CacheBlocks(limits, options.ProbeSuffix.Length));
        _features = new FeatureBuffer(backend, _arena, text.Hidden, _decoder.MaxRows);
        _head = new HeadBuffers(
            backend, _arena, limits.Sequences, [options.DefectToken, options.NormalToken], serving ? text.Vocabulary : 0, serving ? HeadResult.MostTop : 0);
        _scores = serving ? new ScoreBuffers(backend, _arena, limits.CompletionLength) : null;
        _last = _arena.Allocate(backend.ActivationType, limits.Sequences, text.Hidden);
        for (var place = limits.Sequences - 1; place >= 0; place--)
        {
            _places.Push(place);
        }
    }

    /// <summary>Keys and values.</summary>
    public KvCache Cache => _cache;

    /// <summary>What is being drawn.</summary>
    public IReadOnlyList<Sequence> Active => _active;

    /// <summary>Whether a group waits for <see cref="Start"/>.</summary>
    public bool HasOpened => _opened.Count > 0;

    /// <summary>Rows that a pass can have, where it does not serve.</summary>
    public static int Rows(GeneratorLimits limits)
    {
        ArgumentNullException.ThrowIfNull(limits);
        return Rows(limits, (int)Math.Min(PassRows, (long)limits.Prompts * limits.PromptLength));
    }

    /// <summary>Bytes it takes, where it does not serve.</summary>
    public static long Bytes(TextGeometry text, ElementType type, GeneratorLimits limits)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(limits);
        var hiddenRows = (long)Rows(limits) + limits.Sequences;
        return Decoder.Bytes(text, type, Rows(limits)) + (hiddenRows * text.Hidden * type.Bytes()) + KvCache.Bytes(text, type, text.Layers, CacheBlocks(limits, KvLayer.BlockSize));
    }

    /// <summary>Takes a group in, to be started with the next <see cref="Start"/>; null where there is no room for it now.</summary>
    /// <param name="request">What to draw.</param>
    /// <param name="how">How to draw it.</param>
    /// <param name="shared">A prompt that is here already, or null.</param>
    public OpenGroup? TryOpen(GroupRequest request, DrawOptions how, OpenPrompt? shared = null)
    {
        if (request.Prompt.Length > _limits.PromptLength || request.Completions > _limits.Sequences || how.Sampling.MaxCompletionLength > _limits.CompletionLength)
        {
            throw new ArgumentException($"{request.Completions} completions of a prompt of {request.Prompt.Length} tokens exceed the limits ({_limits}).");
        }

        var (rows, sequences) = (shared is null ? request.Prompt.Length : 0, _active.Count + Math.Max(1, request.Completions));
        foreach (var group in _opened)
        {
            rows += group.Prompt.Computed ? 0 : group.Prompt.Encoded.Length;
            sequences += Math.Max(1, group.Request.Completions);
        }

        // A group without completions can be scored: that takes as much as one.
        var own = Math.Max(1, request.Completions) * KvCache.BlocksFor(how.Sampling.MaxCompletionLength);
        var blocks = _reserved + own + KvCache.BlocksFor(shared is null ? request.Prompt.Length : 0) + ((_opened.Count + 1) * KvCache.BlocksFor(_options.ProbeSuffix.Length));
        if (rows > _decoder.MaxRows || sequences > _limits.Sequences || blocks > _cache.Blocks || (shared is null && _places.Count == 0))
        {
            return null;
        }

        var opened = new OpenGroup(request, shared ?? NewPrompt(request.Prompt), how);
        _reserved += own;
        Hold(opened.Prompt);
        var after = _opened.FindLastIndex(group => ReferenceEquals(group.How.Adapter, how.Adapter));
        _opened.Insert(after < 0 ? _opened.Count : after + 1, opened);
        return opened;
    }

    /// <summary>Keeps a prompt in the cache until it is <see cref="Release">released</see>.</summary>
    public void Hold(OpenPrompt prompt) => prompt.Holders++;

    /// <summary>Lets go of a prompt; with its last holder its blocks go.</summary>
    public void Release(OpenPrompt prompt)
    {
        if (--prompt.Holders == 0 && _prompts.Remove(prompt))
        {
            prompt.Segment.Dispose();
            _reserved -= KvCache.BlocksFor(prompt.Encoded.Length);
            _places.Push(prompt.Place);
        }
    }

    /// <summary>Has every unfinished completion's last token appended and its next one drawn.</summary>
    public void Advance()
    {
        for (int first = 0, next; first < _active.Count; first = next)
        {
            // One adapter a pass: it acts on the rows that want it, and not on those without one.
            AdapterLayer[]? adapter = null;
            for (next = first; next < _active.Count && (adapter is null || ReferenceEquals(_active[next].Group.How.Adapter, adapter)); next++)
            {
                adapter = _active[next].Group.How.Adapter;
            }

            AdvancePass(first, next, adapter);
        }
    }

    /// <summary>Has the prompts of the groups taken in computed, every completion forked off its prompt and its first token drawn, and the probes computed.</summary>
    public void Start()
    {
        for (int first = 0, next; first < _opened.Count; first = next)
        {
            var adapter = _opened[first].How.Adapter;
            for (next = first + 1; next < _opened.Count && ReferenceEquals(_opened[next].How.Adapter, adapter); next++)
            {
            }

            ComputePrompts(first, next, adapter);
            for (var g = first; g < next; g++)
            {
                Fork(_opened[g]);
            }

            _head.Sample(_last, _decoder.Head, _drawn.Count);
            Probe(first, next, adapter);
        }

        _groups.AddRange(_opened);
        _opened.Clear();
    }

    /// <summary>Waits for the step's draws and takes them over.</summary>
    public void Collect()
    {
        if (_drawn.Count + _probed.Count > 0)
        {
            _head.Download();
        }

        for (var row = 0; row < _drawn.Count; row++)
        {
            var (sequence, token) = (_drawn[row], _head.Tokens[row]);
            var how = sequence.Group.How;
            var isEnd = _endTokens.Contains(token) && (!how.IgnoreEnd || how.Constraint is not null);
            sequence.Append(token, _head.LogProbs[row], _head.Entropies[row], isEnd);
            sequence.Row = row;
            if (how.Constraint is { } constraint && !isEnd)
            {
                sequence.State = constraint.Next(sequence.State, token);
                if (constraint.IsFinal(sequence.State))
                {
                    sequence.Stop();
                }
            }
        }

        for (var i = 0; i < _probed.Count; i++)
        {
            _probed[i].Probe = _head.Options[2 * i] - _head.Options[(2 * i) + 1];
        }

        _drawn.Clear();
        _probed.Clear();
    }

    /// <summary>The likeliest tokens where a completion's last token was drawn.</summary>
    public (int Token, float LogProb)[] Top(Sequence sequence)
    {
        var count = sequence.Group.How.TopLogProbs;
        var tokens = _head.TopTokens(sequence.Row, count);
        var logProbs = _head.TopLogProbs(sequence.Row, count);
        var top = new (int, float)[count];
        for (var i = 0; i < count; i++)
        {
            top[i] = (tokens[i], logProbs[i]);
        }

        return top;
    }

    /// <summary>Finished completions leave; a group lets go of its prompt with its last one.</summary>
    public void Leave()
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

            sequence.Group.Finish(sequence);
            _reserved -= KvCache.BlocksFor(sequence.Group.MaxLength);
            sequence.Dispose();
        }

        _active.RemoveRange(kept, _active.Count - kept);
        kept = 0;
        for (var i = 0; i < _groups.Count; i++)
        {
            if (_groups[i].Open > 0)
            {
                _groups[kept++] = _groups[i];
            }
            else
            {
                _reserved -= _groups[i].Request.Completions == 0 ? KvCache.BlocksFor(_groups[i].MaxLength) : 0;
                Release(_groups[i].Prompt);
            }
        }

        _groups.RemoveRange(kept, _groups.Count - kept);
    }

    /// <summary>Drops everything: all prompts, whoever holds them, and all completions.</summary>
    public void Clear()
    {
        _active.ForEach(sequence => sequence.Dispose());
        foreach (var prompt in _prompts)
        {
            prompt.Segment.Dispose();
            _places.Push(prompt.Place);
        }

        _prompts.Clear();
        _active.Clear();
        _drawn.Clear();
        _probed.Clear();
        _opened.Clear();
        _groups.Clear();
        _head.Clear();
        _reserved = 0;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _decoder.Dispose();
        _arena.Dispose();
    }

    private static int Rows(GeneratorLimits limits, int passRows) => Math.Max(Math.Max(passRows, limits.CompletionLength), Math.Max(limits.PromptLength, limits.Sequences));

    private static int CacheBlocks(GeneratorLimits limits, int probeLength) =>
        (limits.Prompts * (KvCache.BlocksFor(limits.PromptLength) + KvCache.BlocksFor(probeLength))) + (limits.Sequences * KvCache.BlocksFor(limits.CompletionLength));

    private OpenPrompt NewPrompt(EncodedPrompt encoded)
    {
        var prompt = new OpenPrompt(encoded, _cache.NewSegment(), _places.Pop());
        _prompts.Add(prompt);
        _reserved += KvCache.BlocksFor(encoded.Length);
        return prompt;
    }
}
