namespace LrIad.Server.Measure;

/// <summary>Values counted by size, as a Prometheus histogram has them. Safe to use from any thread.</summary>
/// <param name="bounds">Largest value of each bucket, ascending; what is larger still is counted in the total alone.</param>
internal sealed class Distribution(params double[] bounds)
{
    private readonly Lock _lock = new();
    private readonly long[] _counts = new long[bounds.Length];
    private double _sum;
    private long _total;

    /// <summary>Counts a value.</summary>
    public void Add(double value)
    {
        lock (_lock)
        {
            if (Array.FindIndex(bounds, bound => value <= bound) is >= 0 and var bucket)
            {
                _counts[bucket]++;
            }

            _sum += value;
            _total++;
        }
    }

    /// <summary>What it has come to: how many values are at most as large as each bound, their sum, and how many there are.</summary>
    public (IReadOnlyList<(double Bound, long AtMost)> Buckets, double Sum, long Total) Read()
    {
        lock (_lock)
        {
            var atMost = 0L;
            return ([.. bounds.Select((bound, i) => (bound, atMost += _counts[i]))], _sum, _total);
        }
    }
}
