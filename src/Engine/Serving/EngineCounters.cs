namespace LrIad.Engine.Serving;

/// <summary>What an engine has done so far, counted by several threads.</summary>
internal sealed class EngineCounters
{
    private readonly long[] _counts = new long[Enum.GetValues<Count>().Length];

    public enum Count
    {
        PromptTokens,
        SharedPromptTokens,
        GeneratedTokens,
        Finished,
        Cancelled,
        TimedOut,
        Refused,
    }

    public long this[Count what] => Interlocked.Read(ref _counts[(int)what]);

    public void Add(Count what, long count = 1) => Interlocked.Add(ref _counts[(int)what], count);
}
