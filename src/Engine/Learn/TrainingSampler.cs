using LrIad.Engine.Compute;

namespace LrIad.Engine.Learn;

/// <summary>
/// The order of training samples, a function of the seed: draw number n is always the same sample, so a position is all a checkpoint needs. Every epoch has
/// its own shuffle; balanced, the two classes take turns, each in its own shuffles.
/// </summary>
internal sealed class TrainingSampler
{
    private readonly int[][] _pools;
    private readonly ulong _seed;
    private readonly (uint Epoch, int[] Order)?[] _shuffled;

    /// <param name="labels">Whether each sample is a defect.</param>
    /// <param name="balance">Draw the classes in equal numbers.</param>
    /// <param name="seed">The run's seed.</param>
    public TrainingSampler(IReadOnlyList<bool> labels, bool balance, ulong seed)
    {
        ArgumentNullException.ThrowIfNull(labels);
        var all = Enumerable.Range(0, labels.Count);
        _pools = balance ? [[.. all.Where(i => labels[i])], [.. all.Where(i => !labels[i])]] : [[.. all]];
        if (_pools.Any(pool => pool.Length == 0))
        {
            throw new InputException("The training data hold one class alone; both normal and defect images are needed.");
        }

        _seed = seed;
        _shuffled = new (uint, int[])?[_pools.Length];
    }

    /// <summary>The sample of draw number <paramref name="position"/>.</summary>
    public int At(long position)
    {
        var pool = (int)(position % _pools.Length);
        var within = position / _pools.Length;
        var epoch = (uint)(within / _pools[pool].Length);
        if (_shuffled[pool] is not { } cached || cached.Epoch != epoch)
        {
            cached = (epoch, Shuffle(pool, epoch));
            _shuffled[pool] = cached;
        }

        return cached.Order[within % _pools[pool].Length];
    }

    // Fisher-Yates.
    private int[] Shuffle(int pool, uint epoch)
    {
        var order = (int[])_pools[pool].Clone();
        for (var i = order.Length - 1; i > 0; i--)
        {
            var j = Philox.Below(i + 1, _seed, (epoch * 2) + (uint)pool, (uint)i);
            (order[i], order[j]) = (order[j], order[i]);
        }

        return order;
    }
}

/// <summary>The learning rate over a run.</summary>
internal static class LearningRateSchedule
{
    /// <summary>Learning rate of a step.</summary>
    /// <param name="schedule"><c>constant</c> or <c>cosine</c> (to zero at the last step).</param>
    /// <param name="peak">The rate after warm-up.</param>
    /// <param name="step">Steps done so far.</param>
    /// <param name="warmup">Steps of linear warm-up.</param>
    /// <param name="total">Steps in all.</param>
    public static double At(string schedule, double peak, int step, int warmup, int total)
    {
        if (step < warmup)
        {
            return peak * step / warmup;
        }

        var progress = (double)(step - warmup) / Math.Max(1, total - warmup);
        return schedule switch
        {
            "constant" => peak,
            "cosine" => peak * 0.5 * (1 + Math.Cos(Math.PI * Math.Min(1, progress))),
            _ => throw new InputException($"--lr-schedule is '{schedule}'; it is constant or cosine."),
        };
    }
}
