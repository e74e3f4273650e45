using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Rollout;

/// <summary>How much can be held at a time.</summary>
/// <param name="Prompts">Prompts whose completions are drawn side by side.</param>
/// <param name="Sequences">Completions drawn side by side, of all prompts together.</param>
/// <param name="PromptLength">Longest prompt in tokens.</param>
/// <param name="CompletionLength">Longest completion in tokens.</param>
internal sealed record GeneratorLimits(int Prompts, int Sequences, int PromptLength, int CompletionLength);

/// <summary>Draws the completions of a list of prompts, all in one way. Groups that wait join as soon as finished ones have left them room.</summary>
internal sealed class Generator : IDisposable
{
    private readonly RunningBatch _batch;

    /// <summary>Takes all the memory it will ever need.</summary>
    public Generator(QwenModel model, Backend backend, AnswerOptions options, GeneratorLimits limits)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(limits);
        _batch = new RunningBatch(model, backend, options, limits);
    }

    /// <summary>Bytes it takes.</summary>
    public static long Bytes(TextGeometry text, ElementType type, GeneratorLimits limits) => RunningBatch.Bytes(text, type, limits);

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
        var how = new DrawOptions(sampling, seed, adapter) { Probe = probe };
        var groups = new List<OpenGroup>(requests.Count);
        try
        {
            do
            {
                cancellation.ThrowIfCancellationRequested();
                while (Open(requests, how, groups))
                {
                    _batch.Start();
                    _batch.Collect();
                }

                _batch.Leave();
                if (_batch.Active.Count > 0)
                {
                    _batch.Advance();
                    _batch.Collect();
                    _batch.Leave();
                }
            }
            while (_batch.Active.Count > 0 || groups.Count < requests.Count);
            return [.. groups.Select(group => group.ToGroup())];
        }
        finally
        {
            _batch.Clear();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _batch.Dispose();

    /// <summary>Takes in waiting groups, as many as one pass and the cache have room for; false where that is none.</summary>
    private bool Open(IReadOnlyList<GroupRequest> requests, DrawOptions how, List<OpenGroup> groups)
    {
        while (groups.Count < requests.Count && _batch.TryOpen(requests[groups.Count], how) is { } group)
        {
            groups.Add(group);
        }

        return _batch.HasOpened;
    }
}
