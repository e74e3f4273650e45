using CsCheck;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Evaluate;

[TestFixture]
internal sealed class MetricsTests
{
    private static readonly Gen<Judged[]> Images = Gen.Select(Gen.Bool, Gen.OneOf(AnswerKind.Defect, AnswerKind.Normal, AnswerKind.Invalid), Gen.Int[-4, 4])
        .Select((defect, verdict, score) => new Judged("gear", defect, verdict, score)).Array[0, 60];

    /// <summary>What the paper's per-category table decodes to (method.md, Metrics).</summary>
    [TestCase(462, 4054, 42, 796, 84.35, 71.54, 36.7, 67.8, TestName = "MVTec-AD of the paper")]
    [TestCase(234, 9245, 376, 966, 87.60, 59.54, 19.5, 57.8, TestName = "VisA of the paper")]
    public void ThePapersTable(int tp, int tn, int fp, int fn, double accuracy, double f1, double recall, double balanced)
    {
        var figures = Metrics.Compute(Confusion(tp, tn, fp, fn), "wrong");
        Assert.Multiple(() =>
        {
            Assert.That((figures.TruePositives, figures.TrueNegatives, figures.FalsePositives, figures.FalseNegatives), Is.EqualTo((tp, tn, fp, fn)));
            Assert.That(100 * figures.Accuracy, Is.EqualTo(accuracy).Within(0.005));
            Assert.That(100 * figures.F1Macro, Is.EqualTo(f1).Within(0.005));
            Assert.That(100 * figures.Recall, Is.EqualTo(recall).Within(0.05));
            Assert.That(100 * figures.BalancedAccuracy, Is.EqualTo(balanced).Within(0.05));
        });
    }

    [Test]
    public void AlwaysNormalOnVisaIsAccurateAndUseless()
    {
        var figures = Metrics.Always(Confusion(234, 9245, 376, 966), AnswerKind.Normal);
        Assert.Multiple(() =>
        {
            Assert.That(100 * figures.Accuracy, Is.EqualTo(88.91).Within(0.005));
            Assert.That((figures.Recall, figures.Specificity, figures.BalancedAccuracy), Is.EqualTo((0.0, 1.0, 0.5)));
            Assert.That(new[] { figures.Precision, figures.Auroc, figures.AveragePrecision }, Is.All.Null);
        });
    }

    [TestCase("wrong", 5, 1, 1, 1, 2)]
    [TestCase("normal", 5, 1, 2, 0, 2)]
    [TestCase("defect", 5, 2, 1, 1, 1)]
    [TestCase("drop", 3, 1, 1, 0, 1)]
    public void InvalidAnswers(string invalid, int n, int tp, int tn, int fp, int fn)
    {
        Judged[] images =
        [
            new("a", true, AnswerKind.Defect, 2), new("a", true, AnswerKind.Normal, -1), new("a", true, AnswerKind.Invalid, 1),
            new("a", false, AnswerKind.Normal, -2), new("a", false, AnswerKind.Invalid, 0),
        ];
        var figures = Metrics.Compute(images, invalid);
        Assert.Multiple(() =>
        {
            Assert.That((figures.N, figures.TruePositives, figures.TrueNegatives, figures.FalsePositives, figures.FalseNegatives), Is.EqualTo((n, tp, tn, fp, fn)));
            Assert.That(figures.Invalid, Is.EqualTo(2));
            Assert.That(figures.Auroc, Is.EqualTo(5 / 6.0).Within(1e-12), "the score is there for every image");
        });
    }

    [Test]
    public void AnUnknownRuleForInvalidAnswersIsAnError() =>
        Assert.That(() => Metrics.Compute([new Judged("a", true, AnswerKind.Invalid, 0)], "skip"), Throws.InstanceOf<InputException>().With.Message.Contains("--invalid"));

    [Test]
    public void FiguresThatDoNotExistAreNull()
    {
        var normalsAlone = Metrics.Compute([new("a", false, AnswerKind.Normal, 0), new("a", false, AnswerKind.Defect, 1)], "wrong");
        var defectsAlone = Metrics.Compute([new("a", true, AnswerKind.Normal, 0)], "wrong");
        var nothing = Metrics.Compute([], "drop");
        Assert.Multiple(() =>
        {
            Assert.That(new[] { normalsAlone.Recall, normalsAlone.BalancedAccuracy, normalsAlone.F1Macro, normalsAlone.Auroc, normalsAlone.AveragePrecision }, Is.All.Null);
            Assert.That(new[] { normalsAlone.Specificity, normalsAlone.Accuracy, normalsAlone.Precision }, Is.EqualTo(new[] { 0.5, 0.5, 0.0 }));
            Assert.That(new[] { defectsAlone.Specificity, defectsAlone.Auroc, defectsAlone.Precision }, Is.All.Null);
            Assert.That(new[] { defectsAlone.Recall, defectsAlone.AveragePrecision }, Is.EqualTo(new[] { 0.0, 1.0 }));
            Assert.That((nothing.N, nothing.Accuracy), Is.EqualTo((0, (double?)null)));
        });
    }

    [Test]
    public void NoFigureIsEverNotANumberOrOutOfRange() => Gen.Select(Images, Gen.OneOf("wrong", "normal", "defect", "drop")).Sample((images, invalid) =>
    {
        var figures = Metrics.Compute(images, invalid);
        double?[] shares = [figures.Accuracy, figures.F1Macro, figures.BalancedAccuracy, figures.Recall, figures.Specificity, figures.Precision, figures.Auroc, figures.AveragePrecision];
        Assert.That(shares.OfType<double>(), Is.All.InRange(0.0, 1 + 1e-12));
        Assert.That(figures.TruePositives + figures.TrueNegatives + figures.FalsePositives + figures.FalseNegatives, Is.EqualTo(figures.N));
    });

    [Test]
    public void TheFiguresFollowFromTheirDefinitions() => Images.Where(images => images.Any(i => i.Defect) && images.Any(i => !i.Defect)).Sample(images =>
    {
        var figures = Metrics.Compute(images, "wrong");
        double F1(bool defect)
        {
            var (right, said, are) = (images.Count(i => i.Defect == defect && Says(i) == defect), images.Count(i => Says(i) == defect), images.Count(i => i.Defect == defect));
            var (precision, recall) = (said == 0 ? 0 : (double)right / said, (double)right / are);
            return precision + recall == 0 ? 0 : 2 * precision * recall / (precision + recall);
        }

        static bool Says(Judged image) => image.Verdict == AnswerKind.Invalid ? !image.Defect : image.Verdict == AnswerKind.Defect;
        Assert.That(figures.F1Macro, Is.EqualTo((F1(true) + F1(false)) / 2).Within(1e-12));
        Assert.That(figures.BalancedAccuracy, Is.EqualTo(
            (images.Where(i => i.Defect).Average(i => Says(i) ? 1.0 : 0) + images.Where(i => !i.Defect).Average(i => Says(i) ? 0.0 : 1)) / 2).Within(1e-12));
    });

    [Test]
    public void AurocIsTheShareOfPairsInOrder() => Images.Sample(images =>
    {
        var scored = images.Select(i => (i.Score!.Value, i.Defect)).ToArray();
        var pairs = from defect in images where defect.Defect from normal in images where !normal.Defect select defect.Score > normal.Score ? 1 : defect.Score < normal.Score ? 0 : 0.5;
        Assert.That(Metrics.Auroc(scored), pairs.Any() ? Is.EqualTo(pairs.Average()).Within(1e-12) : Is.Null);
    });

    [Test]
    public void AveragePrecisionIsTheSumOverThresholds() => Images.Where(images => images.Any(i => i.Defect)).Sample(images =>
    {
        // Every score as a threshold, from the highest down: (recall − the recall before) · precision.
        var (sum, before) = (0.0, 0.0);
        foreach (var threshold in images.Select(i => i.Score!.Value).Distinct().OrderDescending())
        {
            var flagged = images.Where(i => i.Score >= threshold).ToArray();
            var recall = (double)flagged.Count(i => i.Defect) / images.Count(i => i.Defect);
            sum += (recall - before) * flagged.Count(i => i.Defect) / flagged.Length;
            before = recall;
        }

        Assert.That(Metrics.AveragePrecision([.. images.Select(i => (i.Score!.Value, i.Defect))]), Is.EqualTo(sum).Within(1e-12));
    });

    [Test]
    public void KnownRankings()
    {
        (double, bool)[] scored = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)];
        Assert.That(Metrics.Auroc(scored), Is.EqualTo(0.75));
        Assert.That(Metrics.AveragePrecision(scored), Is.EqualTo(5 / 6.0).Within(1e-12));
        Assert.That(Metrics.Auroc([(1, true), (1, false)]), Is.EqualTo(0.5));
    }

    private static Judged[] Confusion(int tp, int tn, int fp, int fn) =>
    [
        .. Enumerable.Repeat(new Judged("a", true, AnswerKind.Defect, null), tp), .. Enumerable.Repeat(new Judged("a", false, AnswerKind.Normal, null), tn),
        .. Enumerable.Repeat(new Judged("a", false, AnswerKind.Defect, null), fp), .. Enumerable.Repeat(new Judged("a", true, AnswerKind.Normal, null), fn),
    ];
}
