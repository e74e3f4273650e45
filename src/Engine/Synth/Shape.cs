namespace LrIad.Engine.Synth;

/// <summary>The form of a patch before it has a place: corners about its centre as it will lie in the target, and how it got there from the source.</summary>
/// <param name="Name"><c>rectangle</c>, <c>scar</c>, <c>ellipse</c> or <c>blob</c>.</param>
/// <param name="Corners">x and y of each, from the centre.</param>
/// <param name="Angle">Degrees it is turned by, clockwise.</param>
/// <param name="Scale">Target pixels a source pixel becomes.</param>
internal sealed record Shape(string Name, IReadOnlyList<double[]> Corners, double Angle, double Scale)
{
    private const int EllipseCorners = 32;

    // What scars' sizes are given for, as CutPaste's are.
    private const double ScarImage = 256;

    /// <summary>CutPaste: a rectangle whose area is a share of the image's, its sides in a ratio up to 3.3.</summary>
    public static Shape Rectangle(Draws draws, int width, int height, SizeRange size)
    {
        var area = draws.Between(size.Least, size.Most) * width * height;
        var ratio = draws.Chance(0.5) ? draws.Between(0.3, 1) : draws.Between(1, 3.3);
        return new Shape("rectangle", Box(Math.Max(2, Math.Round(Math.Sqrt(area * ratio))), Math.Max(2, Math.Round(Math.Sqrt(area / ratio)))), 0, 1);
    }

    /// <summary>
    /// CutPaste: a strip 15 to 60 long and 2 to 16 wide, at most half its length, in an image of 256, turned by any angle. (The paper's are 10 to 25 long and turned by
    /// up to 45°: spots rather than scratches.)
    /// </summary>
    public static Shape Scar(Draws draws, int width, int height)
    {
        var unit = Math.Min(width, height) / ScarImage;
        var length = Math.Max(6, unit * draws.Between(15, 60));
        var thickness = Math.Max(2, Math.Min(unit * draws.Between(2, 16), length / 2));
        var angle = Math.Round(draws.Between(-90, 90), 1);
        return new Shape("scar", [.. Box(length, thickness).Select(corner => Turn(corner, angle))], angle, 1);
    }

    /// <summary>NSA: sides from a gamma distribution, more small ones than large; an ellipse or a blob in that box, made larger or smaller by up to 30%.</summary>
    /// <param name="draws">What it is drawn with.</param>
    /// <param name="width">The target's.</param>
    /// <param name="height">The target's.</param>
    /// <param name="size">Areas of the box.</param>
    /// <param name="relative">Target pixels for a source pixel if both images were shown equally large.</param>
    public static Shape Natural(Draws draws, int width, int height, SizeRange size, double relative)
    {
        double Half() => Math.Clamp(0.06 + draws.Gamma2(0.05), Math.Sqrt(size.Least), Math.Sqrt(size.Most)) / 2;
        var (a, b) = (Math.Max(2, Half() * width), Math.Max(2, Half() * height));
        var scale = Math.Round(draws.Between(0.7, 1.3) * relative, 3);
        var round = draws.Chance(0.5);
        var count = round ? EllipseCorners : 8 + draws.Below(9);
        double[] Corner(int i)
        {
            var (angle, radius) = (2 * Math.PI * i / count, round ? 1 : draws.Between(0.45, 1));
            return [a * radius * Math.Cos(angle), b * radius * Math.Sin(angle)];
        }

        return new Shape(round ? "ellipse" : "blob", [.. Enumerable.Range(0, count).Select(Corner)], 0, scale);
    }

    /// <summary>The point of the source that a point of the target is taken from, both about the patch's centre.</summary>
    public double[] ToSource(double x, double y)
    {
        var turned = Turn([x, y], -Angle);
        return [turned[0] / Scale, turned[1] / Scale];
    }

    /// <summary>Its corners in the target about a centre, to a hundredth of a pixel.</summary>
    public double[][] At(double[] centre) => [.. Corners.Select(corner => new[] { Math.Round(centre[0] + corner[0], 2), Math.Round(centre[1] + corner[1], 2) })];

    private static double[][] Box(double width, double height) =>
        [[-width / 2, -height / 2], [width / 2, -height / 2], [width / 2, height / 2], [-width / 2, height / 2]];

    private static double[] Turn(double[] point, double degrees)
    {
        if (degrees == 0)
        {
            return point;
        }

        var (sine, cosine) = Math.SinCos(degrees * Math.PI / 180);
        return [(point[0] * cosine) - (point[1] * sine), (point[0] * sine) + (point[1] * cosine)];
    }
}
