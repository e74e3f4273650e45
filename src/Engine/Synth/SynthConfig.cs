using System.Text.Json.Serialization;
using LrIad.Engine.Config;

namespace LrIad.Engine.Synth;

/// <summary>What synthetic defects are made from, and how.</summary>
internal sealed record SynthConfig
{
    /// <summary>Where the normal images are.</summary>
    public DataSource Data { get; init; } = new("");

    /// <summary>The data set's folder.</summary>
    [JsonIgnore]
    public string Out { get; init; } = "";

    /// <summary><c>cutpaste</c> or <c>nsa</c>.</summary>
    public string Method { get; init; } = "";

    /// <summary>The categories; none: all of them.</summary>
    public IReadOnlyList<string> Categories { get; init; } = [];

    /// <summary>Defects for each normal image: 0.25 makes a fifth of the data set defects.</summary>
    public double PerImage { get; init; } = 0.25;

    /// <summary>Defects of a category, instead of <see cref="PerImage"/>.</summary>
    public int? Count { get; init; }

    /// <summary>Smallest and largest area of a patch, as a share of the image's; null: the method's own.</summary>
    public SizeRange? Size { get; init; }

    /// <summary>How much of a patch must lie on the object.</summary>
    public double OnObject { get; init; } = 0.5;

    /// <summary>By how many grey levels a patch must change the image, as the mean of absolute differences over its pixels and colours.</summary>
    public double MinChange { get; init; } = 15;

    /// <summary>cutpaste: share of defects that are scars, thin turned strips, instead of rectangles.</summary>
    public double Scars { get; init; } = 0.5;

    /// <summary>cutpaste: the largest change of brightness, contrast, saturation and hue.</summary>
    public double Jitter { get; init; } = 0.1;

    /// <summary>nsa: gradients inside the patch: <c>source</c>, or <c>mixed</c>, the steeper one of source and image.</summary>
    public string Gradients { get; init; } = "mixed";

    /// <summary>Of all draws.</summary>
    public ulong Seed { get; init; }

    /// <summary>Images worked on at a time; the data set does not depend on it.</summary>
    [JsonIgnore]
    public int Threads { get; init; } = Environment.ProcessorCount;

    /// <summary>Checks what no later stage would catch in time.</summary>
    /// <exception cref="InputException">Names the option and what it may be.</exception>
    public void Check()
    {
        Require(Method is "cutpaste" or "nsa", "--method must be cutpaste or nsa");
        Require(PerImage is > 0 and <= 100, "--per-image must be above 0 and at most 100");
        Require(Count is null or > 0, "--count must be at least 1");
        Require(Size is null or { Least: > 0, Most: <= 0.5 } && !(Size?.Least > Size?.Most), "--size must be two shares of the image's area, such as 0.02..0.15, the first above 0 and not above the second, the second at most 0.5");
        Require(OnObject is >= 0 and <= 1, "--on-object must be from 0 to 1");
        Require(MinChange is >= 1 and < 256, "--min-change must be at least 1 and below 256");
        Require(Scars is >= 0 and <= 1, "--scars must be from 0 to 1");
        Require(Jitter is >= 0 and <= 0.5, "--jitter must be from 0 to 0.5");
        Require(Gradients is "source" or "mixed", "--gradients must be source or mixed");
    }

    private static void Require(bool fulfilled, string rule)
    {
        if (!fulfilled)
        {
            throw new InputException(rule + ".");
        }
    }
}

/// <summary>A range of areas, as shares of the image's.</summary>
/// <param name="Least">The smallest.</param>
/// <param name="Most">The largest.</param>
internal sealed record SizeRange(double Least, double Most);
