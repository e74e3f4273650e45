using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Model;
using LrIad.Engine.Serving;

namespace LrIad.Engine.Rollout;

/// <summary>How the completions of a group are drawn.</summary>
/// <param name="Sampling">Temperature, truncation and longest completion.</param>
/// <param name="Seed">With a completion's number it determines every draw.</param>
/// <param name="Adapter">A layer each, or null for the base model.</param>
internal sealed record DrawOptions(SamplingOptions Sampling, ulong Seed, AdapterLayer[]? Adapter)
{
    /// <summary>What completions must look like, or null.</summary>
    public ITokenConstraint? Constraint { get; init; }

    /// <summary>Whether end tokens are tokens like others.</summary>
    public bool IgnoreEnd { get; init; }

    /// <summary>Likeliest tokens wanted at every place.</summary>
    public int TopLogProbs { get; init; }

    /// <summary>Whether the probe is wanted.</summary>
    public bool Probe { get; init; }
}

/// <summary>A prompt whose keys and values are in the cache, or will be after the next step, for as long as somebody holds it.</summary>
/// <param name="encoded">The prompt.</param>
/// <param name="segment">Its keys and values.</param>
/// <param name="place">Where its last row's output is kept, from which every first token is drawn.</param>
internal sealed class OpenPrompt(EncodedPrompt encoded, KvSegment segment, int place)
{
    public EncodedPrompt Encoded { get; } = encoded;

    public KvSegment Segment { get; } = segment;

    public int Place { get; } = place;

    /// <summary>Row of its result in the pass that computes it.</summary>
    public int Row { get; set; }

    public int Holders { get; set; }

    public bool Computed { get; set; }
}

/// <summary>The completions of one prompt while they are being drawn.</summary>
internal sealed class OpenGroup(GroupRequest request, OpenPrompt prompt, DrawOptions how)
{
    private readonly Completion?[] _completions = new Completion?[request.Completions];

    public GroupRequest Request { get; } = request;

    public OpenPrompt Prompt { get; } = prompt;

    public DrawOptions How { get; } = how;

    public int MaxLength => How.Sampling.MaxCompletionLength;

    /// <summary>Completions not yet finished.</summary>
    public int Open { get; private set; } = request.Completions;

    /// <summary>Log-odds of the first option over the second after the forced, empty reasoning.</summary>
    public float? Probe { get; set; }

    public void Finish(Sequence sequence)
    {
        _completions[sequence.Index] = sequence.ToCompletion();
        Open--;
    }

    public Group ToGroup() => new(Request.Prompt, [.. _completions.Select(completion => completion!)], Probe);
}
