using System.Text.Json.Serialization;

namespace LrIad.Engine.Data;

/// <summary>One labelled image.</summary>
/// <param name="ImagePath">Its file.</param>
/// <param name="Object">The kind of object: the category's name.</param>
/// <param name="Defect">The label.</param>
/// <param name="Split"><c>train</c>, <c>test</c> or <c>all</c> where the layout does not say.</param>
public sealed record Sample(string ImagePath, string Object, bool Defect, string Split);

/// <summary>An image that could not be used, and why.</summary>
/// <param name="ImagePath">Its file.</param>
/// <param name="Reason">Why.</param>
public sealed record Skipped([property: JsonPropertyName("image_path")] string ImagePath, [property: JsonPropertyName("reason")] string Reason);

/// <summary>The samples of a data folder in a fixed order, and what was wrong with the rest.</summary>
/// <param name="Layout">How the folder was read.</param>
/// <param name="Samples">The labelled images.</param>
/// <param name="Problems">Entries that could not be used.</param>
public sealed record DataSet(string Layout, IReadOnlyList<Sample> Samples, IReadOnlyList<Skipped> Problems);

/// <summary>The paper's Table I for a data set: how many of what.</summary>
/// <param name="Defect">Defect images.</param>
/// <param name="Normal">Normal images.</param>
/// <param name="Categories">The same for each category.</param>
public sealed record DataStats(int Defect, int Normal, IReadOnlyDictionary<string, (int Defect, int Normal)> Categories)
{
    /// <summary>Share of defects; null for an empty set.</summary>
    public double? DefectShare => Defect + Normal == 0 ? null : (double)Defect / (Defect + Normal);

    /// <summary>Counts a data set.</summary>
    public static DataStats Of(IReadOnlyList<Sample> samples)
    {
        ArgumentNullException.ThrowIfNull(samples);
        var categories = samples.GroupBy(sample => sample.Object).OrderBy(group => group.Key, StringComparer.Ordinal)
            .ToDictionary(group => group.Key, group => (group.Count(sample => sample.Defect), group.Count(sample => !sample.Defect)));
        return new DataStats(samples.Count(sample => sample.Defect), samples.Count(sample => !sample.Defect), categories);
    }
}
