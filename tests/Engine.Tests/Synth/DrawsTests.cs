using LrIad.Engine.Synth;

namespace LrIad.Engine.Tests.Synth;

/// <summary>What is drawn has the distribution it is said to have; colours change as they are said to.</summary>
internal sealed class DrawsTests
{
    private const int Count = 20_000;

    [Test]
    public void TheGammaDistributionHasItsMoments()
    {
        var draws = new Draws(3, "nut", 1);
        var values = Enumerable.Range(0, Count).Select(_ => draws.Gamma2(0.05)).ToArray();
        var mean = values.Average();
        Assert.That(mean, Is.EqualTo(0.1).Within(0.002), "2θ");
        Assert.That(values.Average(value => (value - mean) * (value - mean)), Is.EqualTo(0.005).Within(0.0003), "2θ²");
    }

    [Test]
    public void EveryOrderIsAsLikely()
    {
        var orders = Enumerable.Range(0, Count).GroupBy(i => string.Concat(new Draws(9, "nut", (uint)i).Shuffle(3))).Select(group => group.Count()).ToArray();
        Assert.That(orders, Has.Exactly(6).Items.And.All.EqualTo(Count / 6).Within(250));
    }

    [Test]
    public void SeedCategoryAndNumberMakeADifference()
    {
        var first = new[] { new Draws(0, "nut", 0), new Draws(1, "nut", 0), new Draws(0, "bolt", 0), new Draws(0, "nut", 1) }.Select(draws => draws.Uniform());
        Assert.That(first, Is.Unique);
    }

    [TestCase(0.02, 0.15)]
    [TestCase(0.3, 0.3)]
    public void ShapesKeepToTheirSizes(double least, double most)
    {
        var draws = new Draws(5, "nut", 0);
        for (var i = 0; i < 500; i++)
        {
            var (rectangle, natural) = (Extent(Shape.Rectangle(draws, 1000, 800, new SizeRange(least, most))), Extent(Shape.Natural(draws, 1000, 800, new SizeRange(least, most), 1)));
            Assert.That(rectangle.Width * rectangle.Height / 800_000, Is.InRange(least - 0.002, most + 0.002));
            Assert.That(Math.Max(natural.Width / 1000, natural.Height / 800), Is.LessThanOrEqualTo(Math.Sqrt(most) + 1e-9));
        }
    }

    [Test]
    public void AScarIsAStripOfTheSource()
    {
        var draws = new Draws(5, "nut", 0);
        for (var i = 0; i < 200; i++)
        {
            var scar = Shape.Scar(draws, 512, 600);
            var back = scar.Corners.Select(corner => scar.ToSource(corner[0], corner[1])).ToArray();
            var (length, thickness) = (back.Max(corner => corner[0]) * 2, back.Max(corner => corner[1]) * 2);
            Assert.That(length, Is.InRange(29.9, 120.1));
            Assert.That(thickness, Is.InRange(3.9, Math.Min(32.1, (length / 2) + 0.1)));
            Assert.That(back.Select(corner => Math.Abs(corner[0])), Is.All.EqualTo(length / 2).Within(1e-9), "not turned there");
        }
    }

    [Test]
    public void ColoursChangeAsTheFactorsSay()
    {
        double[] colour = [100, 50, 20];
        Assert.That(new ColourJitter(1, 1, 1, 0).Apply(colour, 70), Is.EqualTo(colour).Within(1e-9));
        Assert.That(new ColourJitter(1.2, 1, 1, 0).Apply(colour, 70), Is.EqualTo(new[] { 120.0, 60, 24 }).Within(1e-9));
        Assert.That(new ColourJitter(1, 0, 1, 0).Apply(colour, 70), Is.EqualTo(new[] { 70.0, 70, 70 }).Within(1e-9));
        Assert.That(new ColourJitter(1, 1, 0, 0).Apply(colour, 70), Is.All.EqualTo((0.299 * 100) + (0.587 * 50) + (0.114 * 20)).Within(1e-9));
        Assert.That(new ColourJitter(1, 1, 1, 1.0 / 3).Apply(colour, 70), Is.EqualTo(new[] { 20.0, 100, 50 }).Within(1e-9), "a third of a turn: red becomes green");
    }

    private static (double Width, double Height) Extent(Shape shape) =>
        (shape.Corners.Max(corner => corner[0]) - shape.Corners.Min(corner => corner[0]), shape.Corners.Max(corner => corner[1]) - shape.Corners.Min(corner => corner[1]));
}
