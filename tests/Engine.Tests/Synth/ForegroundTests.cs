using LrIad.Engine.Data;
using LrIad.Engine.Synth;

namespace LrIad.Engine.Tests.Synth;

/// <summary>The object's place on drawn pictures, where it is known.</summary>
internal sealed class ForegroundTests
{
    private static readonly (byte, byte, byte) Red = (180, 60, 50), Dark = (20, 15, 10);

    private static bool Disc(int x, int y, double cx, double cy, double r) => ((x - cx) * (x - cx)) + ((y - cy) * (y - cy)) < r * r;

    private static bool Star(int x, int y, int w, int h)
    {
        var (dx, dy) = (x - (w / 2.0), y - (h / 2.0));
        return Math.Sqrt((dx * dx) + (dy * dy)) < Math.Min(w, h) * (0.25 + (0.12 * Math.Sin(5 * Math.Atan2(dy, dx))));
    }

    private static bool IsObject(string shape, int x, int y, int w, int h) => shape switch
    {
        "disc" => Disc(x, y, 0.45 * w, 0.5 * h, 0.3 * h),
        "star" => Star(x, y, w, h),
        "ring, filled" => Disc(x, y, 0.5 * w, 0.5 * h, 0.35 * h),
        "four" => new[] { 0.28, 0.72 }.Any(cx => new[] { 0.28, 0.72 }.Any(cy => Disc(x, y, cx * w, cy * h, 0.15 * h))),
        _ => x > 0.3 * w && x < 0.6 * w,
    };

    // Noise and a background that is brighter on one side, as photographs have them.
    private static RgbImage Draw(int w, int h, Func<int, int, (byte R, byte G, byte B)?> at, int seed, double noise = 4)
    {
        var (random, data) = (new Random(seed), new byte[w * h * 3]);
        for (var i = 0; i < w * h; i++)
        {
            var (x, y) = (i % w, i / w);
            var light = 170 + (50.0 * x / w) - (20.0 * y / h);
            var (r, g, b) = at(x, y) is { } colour ? (colour.R, colour.G, (double)colour.B) : (light, light, light - 10);
            (data[3 * i], data[(3 * i) + 1], data[(3 * i) + 2]) = (Noisy(r), Noisy(g), Noisy(b));
        }

        return new RgbImage(w, h, data);

        byte Noisy(double value) => (byte)Math.Clamp(Math.Round(value + (noise * (random.NextDouble() + random.NextDouble() + random.NextDouble() - 1.5))), 0, 255);
    }

    [Test]
    public void DrawnShapesAreFound([Values("disc", "star", "ring, filled", "four", "band from border to border")] string shape, [Values(140, 700)] int width)
    {
        var height = width * 4 / 5;
        bool Truth(int x, int y) => IsObject(shape, x, y, width, height);
        var image = Draw(width, height, (x, y) => !Truth(x, y) || (shape == "ring, filled" && Disc(x, y, 0.5 * width, 0.5 * height, 0.2 * height)) ? null : (x / 5) % 4 == 0 ? Dark : Red, 3);
        var found = Foreground.Estimate(image);
        var (both, either) = (0, 0);
        for (var i = 0; i < width * height; i++)
        {
            var (truth, estimate) = (Truth(i % width, i / width), found.Has(i % width, i / width));
            both += truth && estimate ? 1 : 0;
            either += truth || estimate ? 1 : 0;
        }

        Assert.That(found.IsWholeImage, Is.False);
        Assert.That(both / (double)either, Is.GreaterThan(0.93), "intersection over union");
    }

    [Test]
    public void SpecksAreNoObject()
    {
        var image = Draw(200, 200, (x, y) => Disc(x, y, 100, 100, 50) || Disc(x, y, 20, 180, 4) ? Red : null, 5);
        var found = Foreground.Estimate(image);
        Assert.That((found.Has(100, 100), found.Has(20, 180)), Is.EqualTo((true, false)));
    }

    [TestCase(90)]
    [TestCase(255)]
    public void ATextureIsAllObject(double noise)
    {
        var found = Foreground.Estimate(Draw(120, 90, (_, _) => (128, 128, 128), 2, noise));
        Assert.That((found.IsWholeImage, found.Has(0, 0), found.Has(119, 89)), Is.EqualTo((true, true, true)));
    }

    [Test]
    public void AnEmptyPictureHasNoObjectToFind() => Assert.That(Foreground.Estimate(Draw(120, 90, (_, _) => null, 2)).IsWholeImage, Is.True);

    [TestCase(140, 100)]
    [TestCase(701, 533)]
    public void PicksLieOnTheObjectEverywhereOfIt(int width, int height)
    {
        var found = Foreground.Estimate(Draw(width, height, (x, y) => IsObject("four", x, y, width, height) ? Red : null, 9));
        var draws = new Draws(1, "part", 0);
        var picks = Enumerable.Range(0, 400).Select(_ => found.Pick(draws)).ToArray();
        Assert.That(picks.All(pick => found.Has(pick.X, pick.Y)), Is.True);
        Assert.That(picks.GroupBy(pick => (pick.X > width / 2, pick.Y > height / 2)).Select(quarter => quarter.Count()), Has.Exactly(4).Items.And.All.InRange(60, 140));
    }

    [Test]
    public void APlaneIsFittedExactly()
    {
        var random = new Random(4);
        var points = Enumerable.Range(0, 30).Select(_ => (X: random.NextDouble(), Y: random.NextDouble())).Select(p => (p.X, p.Y, 3 + (2 * p.X) - (7 * p.Y))).ToArray();
        var plane = Plane.Fit(points);
        Assert.That(new[] { plane.A, plane.B, plane.C }, Is.EqualTo(new[] { 3.0, 2, -7 }).Within(1e-9));
        Assert.That(Plane.Fit([(0, 1, 4.0), (0, 1, 6.0)]).At(9, 9), Is.EqualTo(5), "no slope without extent");
    }
}
