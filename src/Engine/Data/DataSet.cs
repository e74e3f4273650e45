using System.Text.Json.Serialization;

namespace LrIad.Engine.Data;

/// <summary>One labelled image.</summary>
/// <param name="ImagePath">Its file.</param>
/// <param name="Object">The kind of object: the category's name.</param>
/// <param name="Defect">The label.</param>
/// <param name="Split"><c>train</c>, <c>test</c> or <c>all</c> where the layout does not say.</param>
/// <param name="DefectType">What the data set calls the defect (<c>scratch</c>, <c>metal_contamination</c>); null for normal images and where it has no name.</param>
internal sealed record Sample(string ImagePath, string Object, bool Defect, string Split, string? DefectType = null);

/// <summary>An image that could not be used, and why.</summary>
/// <param name="ImagePath">Its file.</param>
/// <param name="Reason">Why.</param>
internal sealed record Skipped([property: JsonPropertyName("image_path")] string ImagePath, [property: JsonPropertyName("reason")] string Reason);

/// <summary>The samples of a data folder in a fixed order, and what was wrong with the rest.</summary>
/// <param name="Layout">How the folder was read.</param>
/// <param name="Samples">The labelled images.</param>
/// <param name="Problems">Entries that could not be used.</param>
internal sealed record DataSet(string Layout, IReadOnlyList<Sample> Samples, IReadOnlyList<Skipped> Problems);
