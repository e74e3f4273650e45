using LrIad.Engine.Data;

namespace LrIad.Engine.Synth;

/// <summary>synth.json: what a synthetic data set was made of, and how. Files made are named relative to it, source files relative to the data folder.</summary>
internal sealed record SynthRecord
{
    /// <summary>Always <c>lriad-fast</c>.</summary>
    public string Tool { get; init; } = "lriad-fast";

    /// <summary>Its version.</summary>
    public required string Version { get; init; }

    /// <summary>All parameters.</summary>
    public required SynthConfig Settings { get; init; }

    /// <summary>How the source was read.</summary>
    public required string Layout { get; init; }

    /// <summary>Images of the source that are labelled defects: none was opened.</summary>
    public required int DefectsLeftOut { get; init; }

    /// <summary>The normal images.</summary>
    public required IReadOnlyList<SynthNormal> Normal { get; init; }

    /// <summary>The synthetic defects.</summary>
    public required IReadOnlyList<SynthDefect> Defects { get; init; }

    /// <summary>Defects that could not be made: no patch was found that lies on the object and shows.</summary>
    public required IReadOnlyList<SynthFailure> NotMade { get; init; }

    /// <summary>Source images that could not be used.</summary>
    public required IReadOnlyList<Skipped> Skipped { get; init; }
}

/// <summary>A normal image.</summary>
/// <param name="File">Its PNG file: the source's pixels.</param>
/// <param name="Category">Its category.</param>
/// <param name="Source">The source file.</param>
/// <param name="Sha256">Of the source file.</param>
internal sealed record SynthNormal(string File, string Category, string Source, string Sha256);

/// <summary>A synthetic defect.</summary>
/// <param name="File">Its PNG file.</param>
/// <param name="Category">Its category.</param>
/// <param name="Target">The normal image that was given the defect: a source file.</param>
/// <param name="TargetSha256">Of that file.</param>
/// <param name="Source">The normal image the patch is from: a source file.</param>
/// <param name="SourceSha256">Of that file.</param>
/// <param name="WholeImage">Whether no object was told from the background, so that the patch may lie anywhere.</param>
/// <param name="Patch">What was changed.</param>
internal sealed record SynthDefect(string File, string Category, string Target, string TargetSha256, string Source, string SourceSha256, bool WholeImage, SynthPatch Patch);

/// <summary>A patch. A pixel belongs to it if its centre lies inside the polygon (even-odd rule); pixel (0, 0) has its centre at (0.5, 0.5).</summary>
internal sealed record SynthPatch
{
    /// <summary><c>rectangle</c>, <c>scar</c>, <c>ellipse</c> or <c>blob</c>.</summary>
    public required string Shape { get; init; }

    /// <summary>The smallest box around its pixels: x, y, width, height.</summary>
    public required IReadOnlyList<int> Box { get; init; }

    /// <summary>Its corners, x and y each.</summary>
    public required IReadOnlyList<double[]> Polygon { get; init; }

    /// <summary>Its pixels.</summary>
    public required int Pixels { get; init; }

    /// <summary>Where its centre is in the target.</summary>
    public required double[] TargetCentre { get; init; }

    /// <summary>Where its centre was in the source.</summary>
    public required double[] SourceCentre { get; init; }

    /// <summary>By how many degrees it was turned, clockwise.</summary>
    public required double Angle { get; init; }

    /// <summary>How many target pixels a source pixel became.</summary>
    public required double Scale { get; init; }

    /// <summary>Changes of brightness, contrast, saturation (each a factor) and hue (in turns); null where colours were kept.</summary>
    public required ColourJitter? Jitter { get; init; }

    /// <summary>The share of its pixels on the object.</summary>
    public required double OnObject { get; init; }

    /// <summary>The mean absolute difference over its pixels and colours, in grey levels.</summary>
    public required double MeanChange { get; init; }
}

/// <summary>Defects of one image that were given up.</summary>
/// <param name="Category">The image's category.</param>
/// <param name="Target">The normal image.</param>
/// <param name="Reason">Why.</param>
internal sealed record SynthFailure(string Category, string Target, string Reason);
