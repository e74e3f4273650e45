using LrIad.Engine.Model;

namespace LrIad.Engine.Rollout;

/// <summary>A completion while it is being drawn. All its memory is taken before the first token.</summary>
internal sealed class Sequence(int group, uint sample, KvSegment segment, int maxLength) : IDisposable
{
    private readonly int[] _tokens = new int[maxLength];
    private readonly float[] _logProbs = new float[maxLength];
    private readonly float[] _entropies = new float[maxLength];

    /// <summary>Which group it belongs to, among those being drawn.</summary>
    public int Group { get; } = group;

    public uint Sample { get; } = sample;

    public KvSegment Segment { get; } = segment;

    public int Length { get; private set; }

    public int LastToken => _tokens[Length - 1];

    public bool Ended { get; private set; }

    public bool Finished => Ended || Length == _tokens.Length;

    public void Append(int token, float logProb, float entropy, bool isEnd)
    {
        _tokens[Length] = token;
        _logProbs[Length] = logProb;
        _entropies[Length] = entropy;
        Length++;
        Ended = isEnd;
    }

    public Completion ToCompletion() => new(Sample, _tokens[..Length], _logProbs[..Length], _entropies[..Length], Ended);

    public void Dispose() => Segment.Dispose();
}
