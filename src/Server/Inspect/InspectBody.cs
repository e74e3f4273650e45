using System.ComponentModel;

namespace LrIad.Server.Inspect;

/// <summary>What <c>/openapi.json</c> says of a request to <c>/inspect</c>. Nothing is read by it: <see cref="InspectCall"/> does that, and says what is wrong.</summary>
internal sealed record InspectBody
{
    [Description("The image: data:image/png;base64,…, a path where files are allowed, or a file of a form.")]
    public required string Image { get; init; }

    [Description("What it shows: metal_nut, say.")]
    public required string Object { get; init; }

    [Description("Images of faultless parts, shown to the model first.")]
    public IReadOnlyList<string>? References { get; init; }

    [Description("An adapter's name; left out: the base model.")]
    public string? Adapter { get; init; }

    [Description("The verdict is that of the score: defect where it reaches this.")]
    public double? Threshold { get; init; }

    [Description("Longest answer in tokens.")]
    public int? MaxTokens { get; init; }

    [Description("The answer as it comes, in lines of JSON.")]
    public bool? Stream { get; init; }
}

/// <summary>What <c>/openapi.json</c> says of a request to begin a job.</summary>
internal sealed record JobBody
{
    [Description("A folder in the one that requests may name files in.")]
    public required string Folder { get; init; }

    [Description("What its images show.")]
    public required string Object { get; init; }

    [Description("Images of faultless parts, shown to the model first.")]
    public IReadOnlyList<string>? References { get; init; }

    [Description("An adapter's name; left out: the base model.")]
    public string? Adapter { get; init; }

    [Description("The verdicts are those of the score: defect where it reaches this.")]
    public double? Threshold { get; init; }

    [Description("Longest answer in tokens.")]
    public int? MaxTokens { get; init; }
}
