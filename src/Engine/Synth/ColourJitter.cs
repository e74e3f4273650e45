namespace LrIad.Engine.Synth;

/// <summary>A change of colours: brightness, then contrast about a mean, then saturation, each a factor, then hue turned about the grey axis.</summary>
/// <param name="Brightness">Times the colour.</param>
/// <param name="Contrast">Times the distance from the patch's mean grey.</param>
/// <param name="Saturation">Times the distance from the pixel's grey.</param>
/// <param name="Hue">In turns.</param>
internal sealed record ColourJitter(double Brightness, double Contrast, double Saturation, double Hue)
{
    internal static ColourJitter? Draw(Draws draws, double most)
    {
        double Factor() => Math.Round(draws.Between(1 - most, 1 + most), 3);
        return most == 0 ? null : new ColourJitter(Factor(), Factor(), Factor(), Math.Round(draws.Between(-most, most), 3));
    }

    /// <summary>The luma of Rec. 601.</summary>
    internal static double Grey(double[] rgb) => (0.299 * rgb[0]) + (0.587 * rgb[1]) + (0.114 * rgb[2]);

    /// <summary>Changes a colour.</summary>
    /// <param name="rgb">Three grey levels.</param>
    /// <param name="mean">The patch's mean grey.</param>
    internal double[] Apply(double[] rgb, double mean)
    {
        var contrasted = Array.ConvertAll(rgb, value => (mean * Brightness) + ((value - mean) * Brightness * Contrast));
        var grey = Grey(contrasted);
        var (r, g, b) = (Saturate(contrasted[0]), Saturate(contrasted[1]), Saturate(contrasted[2]));

        // Rodrigues' rotation about (1, 1, 1) / √3.
        var (sine, cosine) = Math.SinCos(2 * Math.PI * Hue);
        var (along, across) = ((1 - cosine) / 3, sine / Math.Sqrt(3));
        var sum = along * (r + g + b);
        return [(r * cosine) + sum + (across * (b - g)), (g * cosine) + sum + (across * (r - b)), (b * cosine) + sum + (across * (g - r))];

        double Saturate(double value) => grey + ((value - grey) * Saturation);
    }
}
