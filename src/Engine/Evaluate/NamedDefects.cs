using System.Text.Json.Serialization;
using LrIad.Engine.Text;

namespace LrIad.Engine.Evaluate;

/// <summary>How often reasoning says of a defect what the data set's name for it says.</summary>
internal sealed record Naming
{
    /// <summary>Defects found whose name says something.</summary>
    [JsonPropertyName("images")]
    public required int Images { get; init; }

    /// <summary>Of them, those whose reasoning says it too.</summary>
    [JsonPropertyName("named")]
    public required int Named { get; init; }

    /// <summary>named / images; null without images.</summary>
    [JsonPropertyName("share")]
    public double? Share => Images == 0 ? null : (double)Named / Images;

    /// <summary>The share of the data set's other names that the same reasonings would have met: a share no higher than this tells nothing. Null without others.</summary>
    [JsonPropertyName("share_of_others")]
    public required double? ShareOfOthers { get; init; }
}

/// <summary>Whether reasoning names defects rightly, by the rule of thumb of <see cref="DefectName"/>. Looked at are defects with a name that were answered "defect".</summary>
internal sealed record NamedDefects
{
    /// <summary>The kind; null where no name says one.</summary>
    [JsonPropertyName("kind")]
    public required Naming? Kind { get; init; }

    /// <summary>The place; null where no name says one.</summary>
    [JsonPropertyName("place")]
    public required Naming? Place { get; init; }

    /// <summary>The kind, for each name of the data set that says one.</summary>
    [JsonPropertyName("types")]
    public required IReadOnlyDictionary<string, Naming> Types { get; init; }

    /// <summary>Looks through predictions; null where the data set names no defects.</summary>
    public static NamedDefects? Of(IReadOnlyList<Prediction> predictions)
    {
        ArgumentNullException.ThrowIfNull(predictions);
        Named[] defects = [.. predictions.Where(prediction => prediction is { GtLabel: 1, DefectType: not null }).Select(prediction => new Named(prediction))];
        if (defects.Length == 0)
        {
            return null;
        }

        return new NamedDefects
        {
            Kind = Count(defects, defects, defect => defect.Name.Kind),
            Place = Count(defects, defects, defect => defect.Name.Place),
            Types = defects.GroupBy(defect => defect.Type).OrderBy(group => group.Key, StringComparer.Ordinal)
                .Select(group => (group.Key, Naming: Count([.. group], defects, defect => defect.Name.Kind))).Where(type => type.Naming is not null).ToDictionary(type => type.Key, type => type.Naming!),
        };
    }

    private static Naming? Count(Named[] defects, Named[] all, Func<Named, IReadOnlyCollection<string>> stems)
    {
        Named[] telling = [.. defects.Where(defect => stems(defect).Count > 0)];
        if (telling.Length == 0)
        {
            return null;
        }

        // Names for the same (scratch_head, scratch_neck) are no others of each other.
        var found = telling.Where(defect => defect.Found).ToArray();
        var names = all.Where(defect => stems(defect).Count > 0).DistinctBy(defect => (defect.Object, defect.Type)).ToArray();
        var others = found.SelectMany(defect => names.Where(name => !stems(name).Intersect(stems(defect)).Any()).Select(name => defect.Said.Overlaps(stems(name)) ? 1.0 : 0.0)).ToArray();
        return new Naming { Images = found.Length, Named = found.Count(defect => defect.Said.Overlaps(stems(defect))), ShareOfOthers = others.Length == 0 ? null : others.Average() };
    }

    private sealed class Named(Prediction prediction)
    {
        public string Object { get; } = prediction.Object;

        public string Type { get; } = prediction.DefectType!;

        public bool Found { get; } = prediction.PredLabel == 1;

        public DefectName Name { get; } = new(prediction.DefectType!, prediction.Object);

        public IReadOnlySet<string> Said { get; } = DefectName.Said(prediction.Explanation);
    }
}
