namespace LrIad.Engine.Tests.Oracle;

/// <summary>Random operands, and what comparisons with an oracle need.</summary>
internal static class Reference
{
    public static float[] Normal(Random random, int count, float scale) =>
        [.. Enumerable.Range(0, count).Select(_ => scale * (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble())))];

    public static double[] Widen(IEnumerable<float> values) => [.. values.Select(value => (double)value)];

    /// <summary>Norm of the difference over norm of what is expected.</summary>
    public static double RelativeError(IReadOnlyList<float> actual, IReadOnlyList<double> expected)
    {
        var (difference, norm) = (0.0, 0.0);
        for (var i = 0; i < expected.Count; i++)
        {
            difference += Math.Pow(actual[i] - expected[i], 2);
            norm += expected[i] * expected[i];
        }

        return Math.Sqrt(difference) / Math.Sqrt(norm);
    }

    /// <summary>
    /// Compares a gradient with central differences of the float64 function it should be the gradient of, along random directions in which all of
    /// <paramref name="at"/> moves, and along single coordinates. The largest error over the gradient's own norm.
    /// </summary>
    /// <param name="function">The function.</param>
    /// <param name="at">Where.</param>
    /// <param name="gradient">The gradient to be checked.</param>
    /// <param name="moves">Coordinates that may be moved; null: all.</param>
    /// <param name="random">Chooses directions.</param>
    /// <param name="coordinates">How many single coordinates are looked at.</param>
    public static double GradientError(Func<double[], double> function, double[] at, IReadOnlyList<float> gradient, int[]? moves, Random random, int coordinates = 40)
    {
        const double step = 1e-4;
        moves ??= [.. Enumerable.Range(0, at.Length)];
        var norm = Math.Sqrt(moves.Sum(i => (double)gradient[i] * gradient[i]));
        var worst = 0.0;
        for (var trial = 0; trial < coordinates + 4; trial++)
        {
            var direction = trial < 4 ? moves.Select(i => (i, By: (double)Normal(random, 1, 1f)[0])).ToArray() : [(moves[random.Next(moves.Length)], 1.0)];
            var slope = (function(Moved(at, direction, step)) - function(Moved(at, direction, -step))) / (2 * step);
            worst = Math.Max(worst, Math.Abs(slope - direction.Sum(move => move.By * gradient[move.i])) / norm);
        }

        return worst;
    }

    private static double[] Moved(double[] at, (int I, double By)[] direction, double step)
    {
        var moved = (double[])at.Clone();
        foreach (var (i, by) in direction)
        {
            moved[i] += step * by;
        }

        return moved;
    }
}
