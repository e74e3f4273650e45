using LrIad.Engine.Compute;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>Intervals beside the same done slowly, and beside the truth of known populations.</summary>
[TestFixture]
internal sealed class BootstrapTests
{
    private static readonly (string Name, Func<Figures, double?> Figure, Func<FigureIntervals, double[]?> Interval)[] All =
    [
        ("balanced accuracy", f => f.BalancedAccuracy, i => i.BalancedAccuracy), ("recall", f => f.Recall, i => i.Recall), ("specificity", f => f.Specificity, i => i.Specificity),
        ("F1", f => f.F1Macro, i => i.F1Macro), ("AUROC", f => f.Auroc, i => i.Auroc), ("AP", f => f.AveragePrecision, i => i.AveragePrecision),
    ];

    [TestCase("wrong", 70, 0.3)]
    [TestCase("drop", 41, 0.5)]
    [TestCase("normal", 9, 0.2)]
    [TestCase("defect", 3, 0.5)]
    public void TheyAreThoseOfDrawingAndComputingAnew(string invalid, int count, double defects)
    {
        const ulong seed = 11;
        var images = Random(count, defects, seed: count);
        var intervals = Bootstrap.Of(images, invalid, seed);

        // Each draw as a list of images, with the words straight from Philox, and the figures by the ordinary way.
        var draws = Enumerable.Range(0, Bootstrap.Draws).Select(draw => Metrics.Compute(Drawn(images, seed, (uint)draw), invalid)).ToArray();
        var figures = Metrics.Compute(images, invalid);
        Assert.Multiple(() =>
        {
            foreach (var (name, figure, interval) in All)
            {
                var values = draws.Select(figure).OfType<double>().Order().ToArray();
                Assert.That(interval(intervals), figure(figures) is null ? Is.Null : Is.EqualTo(new[] { Percentile(values, 2.5), Percentile(values, 97.5) }).Within(1e-12), name);
            }
        });
    }

    [Test]
    public void TheyFollowFromTheSeed()
    {
        var images = Random(60, 0.4, seed: 1);
        double[]?[] intervals = [.. new ulong[] { 5, 5, 6 }.Select(seed => Bootstrap.Of(images, "wrong", seed).Auroc)];
        Assert.That(intervals[0], Is.EqualTo(intervals[1]));
        Assert.That(intervals[0], Is.Not.EqualTo(intervals[2]));
    }

    [Test]
    public void WhereAFigureIsNullSoIsItsInterval()
    {
        var normals = Bootstrap.Of([.. Random(20, 0.5, seed: 2).Where(image => !image.Defect)], "wrong", 0);
        var dropped = Bootstrap.Of([new("a", true, AnswerKind.Invalid, 1), new("a", false, AnswerKind.Normal, 0)], "drop", 0);
        var nothing = Bootstrap.Of([], "wrong", 0);
        Assert.Multiple(() =>
        {
            Assert.That(new object?[] { normals.Recall, normals.BalancedAccuracy, normals.F1Macro, normals.Auroc, normals.AveragePrecision }, Is.All.Null);
            Assert.That(normals.Specificity, Has.Length.EqualTo(2));
            Assert.That(dropped.Recall, Is.Null);
            Assert.That(dropped.Auroc, Is.EqualTo(new[] { 1.0, 1.0 }), "the score is there all the same");
            Assert.That(All.Select(figure => figure.Interval(nothing)), Is.All.Null);
        });
    }

    [TestCase(0.5)]
    [TestCase(0.85)]
    public void TheyHoldTheTruthAboutNinetyFiveTimesInAHundred(double recall)
    {
        const int trials = 400;
        var random = new Random(3);
        var held = Enumerable.Range(0, trials).Count(_ =>
        {
            Judged[] images =
            [
                .. Enumerable.Range(0, 60).Select(_ => new Judged("a", true, random.NextDouble() < recall ? AnswerKind.Defect : AnswerKind.Normal, null)),
                .. Enumerable.Range(0, 60).Select(_ => new Judged("a", false, random.NextDouble() < 0.1 ? AnswerKind.Defect : AnswerKind.Normal, null)),
            ];
            return Bootstrap.Of(images, "wrong", 0).BalancedAccuracy is [var low, var high] && low <= (recall + 0.9) / 2 && (recall + 0.9) / 2 <= high;
        });
        Assert.That(held / (double)trials, Is.InRange(0.91, 0.985));
    }

    private static Judged[] Random(int count, double defects, int seed)
    {
        var random = new Random(seed);
        return
        [
            .. Enumerable.Range(0, count).Select(i => new Judged("a", i < count * defects, (AnswerKind)random.Next(3), random.Next(5) == 0 ? null : random.Next(8) + (i < count * defects ? 2 : 0))),
        ];
    }

    private static Judged[] Drawn(Judged[] images, ulong seed, uint draw) =>
    [
        .. new[] { false, true }.SelectMany(defect =>
        {
            var items = images.Where(image => image.Defect == defect).ToArray();
            return items.Select((_, i) => items[(int)((ulong)Word(seed ^ 0x424F4F54_00000000, i, draw, defect ? 1u : 0) * (ulong)items.Length >> 32)]);
        }),
    ];

    private static uint Word(ulong key, int i, uint draw, uint label)
    {
        var (x0, x1, x2, x3) = Philox.Block(key, (uint)((i / 32 * 8) + (i % 8)), draw, label, 0);
        return new[] { x0, x1, x2, x3 }[i / 8 % 4];
    }

    private static double Percentile(double[] sorted, double percent)
    {
        var at = percent / 100 * (sorted.Length - 1);
        var (low, high) = (sorted[(int)Math.Floor(at)], sorted[(int)Math.Ceiling(at)]);
        return low + ((high - low) * (at - Math.Floor(at)));
    }
}
