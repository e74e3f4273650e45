using LrIad.Engine.Model;

namespace LrIad.Engine.Rollout;

/// <summary>A completion while it is being drawn. All its memory is taken before the first token.</summary>
internal sealed class Sequence(OpenGroup group, int index, KvSegment segment) : IDisposable
{
    private readonly int[] _tokens = new int[group.MaxLength];
    private readonly float[] _logProbs = new float[group.MaxLength];
    private readonly float[] _entropies = new float[group.MaxLength];

    /// <summary>What it belongs to.</summary>
    public OpenGroup Group { get; } = group;

    /// <summary>Which of the group's completions it is.</summary>
    public int Index { get; } = index;

    /// <summary>Which completion of the run it is: with the seed it determines every draw.</summary>
    public uint Sample => Group.Request.FirstSample + (uint)Index;

    public KvSegment Segment { get; } = segment;

    public int Length { get; private set; }

    public int LastToken => _tokens[Length - 1];

    public float LastLogProb => _logProbs[Length - 1];

    /// <summary>State of the group's constraint.</summary>
    public int State { get; set; } = group.How.Constraint?.Start ?? 0;

    /// <summary>Row of the last step's results.</summary>
    public int Row { get; set; }

    /// <summary>Whether its last token is an end token.</summary>
    public bool Ended { get; private set; }

    /// <summary>Whether it was ended without one.</summary>
    public bool Stopped { get; private set; }

    public bool Finished => Ended || Stopped || Length == _tokens.Length;

    public void Append(int token, float logProb, float entropy, bool isEnd)
    {
        _tokens[Length] = token;
        _logProbs[Length] = logProb;
        _entropies[Length] = entropy;
        Length++;
        Ended = isEnd;
    }

    /// <summary>Ends it where it is.</summary>
    public void Stop() => Stopped = true;

    public Completion ToCompletion() => new(Sample, _tokens[..Length], _logProbs[..Length], _entropies[..Length], Ended);

    public void Dispose() => Segment.Dispose();
}
