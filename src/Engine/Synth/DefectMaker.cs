using LrIad.Engine.Data;

namespace LrIad.Engine.Synth;

/// <summary>
/// Puts patches into normal images: CutPaste (Li et al., CVPR 2021), which moves a piece of the image itself, and natural synthetic anomalies, NSA (Schlüter et al.,
/// ECCV 2022), which blend in a piece of another image.
/// </summary>
/// <param name="config">How.</param>
internal sealed class DefectMaker(SynthConfig config)
{
    /// <summary>Patches that are tried before a defect is given up.</summary>
    public const int Attempts = 50;

    // A shape is tried at several places before another one is drawn, or those easily placed, the small ones, would be left over.
    private const int PlacesPerShape = 10;

    /// <summary>Sides an image must have: smaller ones leave no room for a patch.</summary>
    public const int LeastSide = 32;

    // Of the image's area: CutPaste's own, and boxes of 6% to 40% of the sides.
    private static readonly SizeRange CutPasteSize = new(0.02, 0.15), NaturalSize = new(0.0036, 0.16);

    /// <summary>An image with a defect, or null where no patch was found that lies on the object and shows.</summary>
    /// <param name="target">The image.</param>
    /// <param name="source">What the patch is from; the same one for CutPaste.</param>
    /// <param name="on">The target's object.</param>
    /// <param name="from">The source's object; for NSA the patch is from there.</param>
    /// <param name="draws">What it is drawn with.</param>
    /// <param name="cancellation">Stops between attempts.</param>
    public (RgbImage Image, SynthPatch Patch)? Make(RgbImage target, RgbImage source, Foreground on, Foreground from, Draws draws, CancellationToken cancellation)
    {
        for (var tried = 0; tried < Attempts; tried += PlacesPerShape)
        {
            var shape = Draw(target, source, draws);
            for (var place = 0; place < PlacesPerShape; place++)
            {
                cancellation.ThrowIfCancellationRequested();
                if (Place(shape, target, source, on, from, draws) is { } placed && Paste(target, source, placed, draws) is { } made)
                {
                    return made;
                }
            }
        }

        return null;
    }

    private Shape Draw(RgbImage target, RgbImage source, Draws draws) =>
        config.Method == "nsa" ? Shape.Natural(draws, target.Width, target.Height, config.Size ?? NaturalSize, target.Width / (double)source.Width)
        : draws.Chance(config.Scars) ? Shape.Scar(draws, target.Width, target.Height)
        : Shape.Rectangle(draws, target.Width, target.Height, config.Size ?? CutPasteSize);

    private (Shape Shape, double[] To, double[] From, Region Region, double OnObject)? Place(Shape shape, RgbImage target, RgbImage source, Foreground on, Foreground from, Draws draws)
    {
        var natural = config.Method == "nsa";
        var start = natural ? from.Pick(draws) : (draws.Below(source.Width), draws.Below(source.Height));
        var there = Fit(on.Pick(draws), target, shape.Corners);
        var here = Fit(start, source, [.. shape.Corners.Select(corner => shape.ToSource(corner[0], corner[1]))]);
        if (there is null || here is null)
        {
            return null;
        }

        var region = Region.Inside(shape.At(there), target.Width, target.Height);
        bool FromObject((int X, int Y) pixel)
        {
            var offset = shape.ToSource(pixel.X + 0.5 - there[0], pixel.Y + 0.5 - there[1]);
            return from.Has((int)(here[0] + offset[0]), (int)(here[1] + offset[1]));
        }

        double Share(Func<(int X, int Y), bool> isOn) => region.Count == 0 ? 0 : region.Pixels().Count(isOn) / (double)region.Count;
        var onObject = Share(pixel => on.Has(pixel.X, pixel.Y));
        return region.Count > 0 && onObject >= config.OnObject && (!natural || Share(FromObject) >= config.OnObject) ? (shape, there, here, region, onObject) : null;
    }

    // A centre near a pixel for which all corners lie in the image, or null. Whole pixels fall on whole pixels where the corners allow it.
    private static double[]? Fit((int X, int Y) pixel, RgbImage image, IReadOnlyList<double[]> corners)
    {
        double? Along(int at, int side, int axis)
        {
            var (low, high) = (corners.Min(corner => corner[axis]), corners.Max(corner => corner[axis]));
            return high - low > side ? null : Math.Round(Math.Clamp(at + Math.Floor(low), 0, side - (high - low)) - low, 2);
        }

        return Along(pixel.X, image.Width, 0) is { } x && Along(pixel.Y, image.Height, 1) is { } y ? [x, y] : null;
    }

    private (RgbImage Image, SynthPatch Patch)? Paste(RgbImage target, RgbImage source, (Shape Shape, double[] To, double[] From, Region Region, double OnObject) placed, Draws draws)
    {
        var (shape, to, from, region, onObject) = placed;
        double[] Sample(int x, int y)
        {
            var offset = shape.ToSource(x + 0.5 - to[0], y + 0.5 - to[1]);
            return Bilinear(source, from[0] + offset[0] - 0.5, from[1] + offset[1] - 0.5);
        }

        var jitter = config.Method == "cutpaste" ? ColourJitter.Draw(draws, config.Jitter) : null;
        var colours = config.Method == "cutpaste" ? Cut(region, Sample, jitter) : Blend(region, target, Sample);
        var (data, change) = (target.Data.ToArray(), 0.0);
        foreach (var (pixel, colour) in region.Pixels().Zip(colours))
        {
            for (var c = 0; c < 3; c++)
            {
                ref var value = ref data[Index(target, pixel.X, pixel.Y) + c];
                var changed = (byte)Math.Round(Math.Clamp(colour[c], 0, 255));
                change += Math.Abs(changed - value);
                value = changed;
            }
        }

        change /= 3.0 * region.Count;
        return change < config.MinChange ? null : (target with { Data = data }, new SynthPatch
        {
            Shape = shape.Name,
            Box = [region.X, region.Y, region.Width, region.Height],
            Polygon = shape.At(to),
            Pixels = region.Count,
            TargetCentre = to,
            SourceCentre = from,
            Angle = shape.Angle,
            Scale = shape.Scale,
            Jitter = jitter,
            OnObject = Math.Round(onObject, 3),
            MeanChange = Math.Round(change, 2),
        });
    }

    private static IEnumerable<double[]> Cut(Region region, Func<int, int, double[]> sample, ColourJitter? jitter)
    {
        var colours = region.Pixels().Select(pixel => sample(pixel.X, pixel.Y)).ToArray();
        var mean = colours.Average(ColourJitter.Grey);
        return jitter is null ? colours : colours.Select(colour => jitter.Apply(colour, mean));
    }

    private IEnumerable<double[]> Blend(Region region, RgbImage target, Func<int, int, double[]> sample)
    {
        // The source's values in the region's box and one pixel around it.
        var (columns, left, top) = (region.Width + 2, region.X - 1, region.Y - 1);
        var values = Enumerable.Range(0, columns * (region.Height + 2)).Select(i => sample(left + (i % columns), top + (i / columns))).ToArray();
        var equations = new PoissonBlend(region, target.Width, target.Height);
        var solved = Enumerable.Range(0, 3).Select(c => equations.Solve(
            (x, y) => target.Data[Index(target, x, y) + c], (x, y) => values[((y - top) * columns) + x - left][c], config.Gradients == "mixed")).ToArray();
        return Enumerable.Range(0, region.Count).Select(i => new[] { solved[0][i], solved[1][i], solved[2][i] });
    }

    // Beyond the border the border's pixels go on.
    private static double[] Bilinear(RgbImage image, double x, double y)
    {
        (x, y) = (Math.Clamp(x, 0, image.Width - 1), Math.Clamp(y, 0, image.Height - 1));
        var (left, top) = ((int)x, (int)y);
        var (right, bottom, u, v) = (Math.Min(left + 1, image.Width - 1), Math.Min(top + 1, image.Height - 1), x - left, y - top);
        double At(int c) =>
            ((1 - v) * (((1 - u) * image.Data[Index(image, left, top) + c]) + (u * image.Data[Index(image, right, top) + c]))) +
            (v * (((1 - u) * image.Data[Index(image, left, bottom) + c]) + (u * image.Data[Index(image, right, bottom) + c])));
        return [At(0), At(1), At(2)];
    }

    private static int Index(RgbImage image, int x, int y) => 3 * ((y * image.Width) + x);
}
