using LrIad.Engine.Synth;

namespace LrIad.Engine.Tests.Synth;

/// <summary>The blend against Gaussian elimination on the dense system, written down from its definition.</summary>
internal sealed class PoissonBlendTests
{
    private const double GreyLevels = 1e-3;

    [Test]
    public void RandomRegionsEqualTheDenseSolution([Range(0, 19)] int seed, [Values] bool mixed)
    {
        // Every pixel by chance: with holes, many pieces, not convex, and on all four borders.
        var random = new Random(seed);
        var (width, height, share) = (random.Next(4, 16), random.Next(4, 16), 0.3 + (0.65 * random.NextDouble()));
        var inside = Enumerable.Range(0, width * height).Select(_ => random.NextDouble() < share).ToArray();
        inside[random.Next(inside.Length)] = true;
        inside[random.Next(inside.Length)] = false;
        Compare(width, height, (x, y) => inside[(y * width) + x], random, mixed);
    }

    [TestCase("corner", 18, 15)]
    [TestCase("border to border", 17, 16)]
    [TestCase("horseshoe", 20, 20)]
    [TestCase("all but one pixel", 15, 14)]
    [TestCase("one pixel in the corner", 6, 5)]
    public void RegionsOfOneShape(string shape, int width, int height)
    {
        foreach (var mixed in new[] { false, true })
        {
            Compare(width, height, (x, y) => shape switch
            {
                "corner" => x < 7 && y < 9,
                "border to border" => y is > 4 and < 11,
                "horseshoe" => x is > 2 and < 17 && y is > 2 and < 17 && !(x is > 6 and < 13 && y > 6),
                "all but one pixel" => (x, y) != (3, 5),
                _ => (x, y) == (width - 1, height - 1),
            }, new Random(7), mixed);
        }
    }

    [Test]
    public void TheSourcesOwnBrightnessDoesNotCount()
    {
        var region = Region.Of(12, 10, (x, y) => x is > 3 and < 9 && y is > 2 and < 8);
        var blend = new PoissonBlend(region, 12, 10);
        double Target(int x, int y) => 40 + (5 * x) + (3 * y);

        // Gradients of the target itself, 90 levels up: the target again.
        var result = blend.Solve(Target, (x, y) => Target(x, y) + 90, mixed: false);
        Assert.That(result, Is.EqualTo(region.Pixels().Select(pixel => Target(pixel.X, pixel.Y)).ToArray()).Within(GreyLevels));
    }

    [Test]
    public void MixedKeepsWhatASmoothSourceWouldWipeOut()
    {
        var region = Region.Of(16, 16, (x, y) => x is > 2 and < 13 && y is > 2 and < 13);
        double Target(int x, int y) => (x, y) == (8, 8) ? 200 : 100;
        var (source, mixed) = (Solve(false), Solve(true));
        Assert.That(source, Is.All.EqualTo(100).Within(GreyLevels), "the spot is gone");
        Assert.That(mixed.Max(), Is.EqualTo(200).Within(GreyLevels), "the spot stays");

        double[] Solve(bool isMixed) => new PoissonBlend(region, 16, 16).Solve(Target, (_, _) => 30, isMixed);
    }

    [Test]
    public void LargeRegionsFulfilTheirEquations()
    {
        const int side = 300;
        var (random, target, source) = (new Random(1), new double[side * side], new double[side * side]);
        (target, source) = (Array.ConvertAll(target, _ => 255 * random.NextDouble()), Array.ConvertAll(source, _ => 255 * random.NextDouble()));
        var region = Region.Of(side, side, (x, y) => ((x - 150) * (x - 150)) + ((y - 150) * (y - 150)) < 130 * 130);
        var solved = new PoissonBlend(region, side, side).Solve((x, y) => target[(y * side) + x], (x, y) => source[(y * side) + x], mixed: false);
        var values = target.ToArray();
        foreach (var ((x, y), value) in region.Pixels().Zip(solved))
        {
            values[(y * side) + x] = value;
        }

        double Laplacian(double[] image, int at) => (4 * image[at]) - image[at - 1] - image[at + 1] - image[at - side] - image[at + side];
        Assert.That(region.Pixels().Max(pixel => Math.Abs(Laplacian(values, (pixel.Y * side) + pixel.X) - Laplacian(source, (pixel.Y * side) + pixel.X))), Is.LessThan(1e-5));
    }

    [Test]
    public void AllOfAnImageHasNoEdge() => Assert.Throws<ArgumentException>(() => _ = new PoissonBlend(Region.Of(5, 4, (_, _) => true), 5, 4));

    private static void Compare(int width, int height, Func<int, int, bool> inside, Random random, bool mixed)
    {
        var (target, source) = (new double[width * height], new double[width * height]);
        for (var i = 0; i < target.Length; i++)
        {
            (target[i], source[i]) = (255 * random.NextDouble(), 255 * random.NextDouble());
        }

        var region = Region.Of(width, height, inside);
        var solved = new PoissonBlend(region, width, height).Solve((x, y) => target[(y * width) + x], (x, y) => source[(y * width) + x], mixed);
        Assert.That(solved, Is.EqualTo(Dense(width, height, inside, target, source, mixed)).Within(GreyLevels));
    }

    // An equation for every pixel of the image: f = target outside; inside the sum over its neighbours.
    private static double[] Dense(int width, int height, Func<int, int, bool> inside, double[] target, double[] source, bool mixed)
    {
        var n = width * height;
        var matrix = new double[n, n + 1];
        for (var p = 0; p < n; p++)
        {
            if (!inside(p % width, p / width))
            {
                (matrix[p, p], matrix[p, n]) = (1, target[p]);
                continue;
            }

            for (var q = 0; q < n; q++)
            {
                if (Math.Abs((p % width) - (q % width)) + Math.Abs((p / width) - (q / width)) == 1)
                {
                    var (own, given) = (target[p] - target[q], source[p] - source[q]);
                    matrix[p, p] += 1;
                    matrix[p, q] -= 1;
                    matrix[p, n] += mixed && Math.Abs(own) > Math.Abs(given) ? own : given;
                }
            }
        }

        var all = Eliminate(matrix, n);
        return [.. Enumerable.Range(0, n).Where(p => inside(p % width, p / width)).Select(p => all[p])];
    }

    private static double[] Eliminate(double[,] a, int n)
    {
        for (var k = 0; k < n; k++)
        {
            var pivot = Enumerable.Range(k, n - k).MaxBy(row => Math.Abs(a[row, k]));
            for (var j = 0; j <= n; j++)
            {
                (a[k, j], a[pivot, j]) = (a[pivot, j], a[k, j]);
            }

            for (var row = 0; row < n; row++)
            {
                var factor = row == k ? 0 : a[row, k] / a[k, k];
                for (var j = k; factor != 0 && j <= n; j++)
                {
                    a[row, j] -= factor * a[k, j];
                }
            }
        }

        return [.. Enumerable.Range(0, n).Select(k => a[k, n] / a[k, k])];
    }
}
