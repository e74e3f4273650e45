namespace LrIad.Engine.Data;

/// <summary>How many of what: a row of the paper's Table I.</summary>
/// <param name="Defect">Defect images.</param>
/// <param name="Normal">Normal images.</param>
internal readonly record struct ClassCounts(int Defect, int Normal)
{
    /// <summary>Share of defects; null where there are no images.</summary>
    public double? DefectShare => Defect + Normal == 0 ? null : (double)Defect / (Defect + Normal);

    internal static ClassCounts Of(IEnumerable<Sample> samples)
    {
        var defects = samples.ToLookup(sample => sample.Defect);
        return new ClassCounts(defects[true].Count(), defects[false].Count());
    }
}

/// <summary>The counts of a data set or of one of its categories.</summary>
/// <param name="Counts">Of all its images.</param>
/// <param name="Splits">Of each split; of <c>all</c> alone where the layout names none.</param>
/// <param name="DefectTypes">Images of each defect that the data set names.</param>
internal sealed record DataCounts(ClassCounts Counts, IReadOnlyDictionary<string, ClassCounts> Splits, IReadOnlyDictionary<string, int> DefectTypes)
{
    internal static DataCounts Of(IReadOnlyList<Sample> samples) => new(
        ClassCounts.Of(samples),
        samples.GroupBy(sample => sample.Split).OrderByDescending(split => split.Key, StringComparer.Ordinal).ToDictionary(split => split.Key, ClassCounts.Of),
        samples.Where(sample => sample.DefectType is not null).GroupBy(sample => sample.DefectType!).OrderBy(type => type.Key, StringComparer.Ordinal).ToDictionary(type => type.Key, type => type.Count()));
}

/// <summary>The paper's Table I for a data set.</summary>
/// <param name="All">All of it.</param>
/// <param name="Categories">The same for each category.</param>
internal sealed record DataStats(DataCounts All, IReadOnlyDictionary<string, DataCounts> Categories)
{
    /// <summary>Counts a data set.</summary>
    public static DataStats Of(IReadOnlyList<Sample> samples)
    {
        ArgumentNullException.ThrowIfNull(samples);
        return new DataStats(
            DataCounts.Of(samples),
            samples.GroupBy(sample => sample.Object).OrderBy(group => group.Key, StringComparer.Ordinal).ToDictionary(group => group.Key, group => DataCounts.Of([.. group])));
    }
}
