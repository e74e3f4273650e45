namespace LrIad.Engine.Evaluate;

/// <summary>Figures of a ranking, from how many images of each class have each place in it; ties share a place.</summary>
internal static class Ranking
{
    /// <summary>The places of scores, 0 for the lowest and −1 where there is no score, and how many there are.</summary>
    public static (int[] Places, int Count) Of(IReadOnlyList<double?> scores)
    {
        double[] order = [.. scores.OfType<double>().Distinct().Order()];
        return ([.. scores.Select(score => score is { } value ? Array.BinarySearch(order, value) : -1)], order.Length);
    }

    /// <summary>Chance that a defect stands above a normal image, ties counting half; null without both classes.</summary>
    /// <param name="normals">Normal images at each place.</param>
    /// <param name="defects">Defects at each place.</param>
    public static double? Auroc(int[] normals, int[] defects)
    {
        double wins = 0;
        long below = 0, positives = 0;
        for (var place = 0; place < defects.Length; place++)
        {
            wins += defects[place] * (below + (normals[place] / 2.0));
            below += normals[place];
            positives += defects[place];
        }

        return below == 0 || positives == 0 ? null : wins / ((double)positives * below);
    }

    /// <summary>Σ (recall step · precision) from the top down; null without defects.</summary>
    /// <inheritdoc cref="Auroc"/>
    public static double? AveragePrecision(int[] normals, int[] defects)
    {
        double sum = 0;
        long found = 0, seen = 0;
        for (var place = defects.Length - 1; place >= 0; place--)
        {
            found += defects[place];
            seen += defects[place] + normals[place];
            sum += defects[place] == 0 ? 0 : (double)defects[place] * found / seen;
        }

        return found == 0 ? null : sum / found;
    }
}
