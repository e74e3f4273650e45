using CsCheck;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>Thresholds beside trying every one.</summary>
[TestFixture]
internal sealed class ThresholdRuleTests
{
    // Few different scores, so that there are ties in plenty.
    private static readonly Gen<(double Score, bool Defect)[]> Images = Gen.Select(Gen.Int[-3, 3], Gen.Bool, (score, defect) => (score / 2.0, defect)).Array[1, 40]
        .Where(images => images.Any(image => image.Item2) && images.Any(image => !image.Item2));

    [Test]
    public void F1IsTheMostOfAllAndTheThresholdTheHighestOfEquals() => Images.Sample(images => AssertBest(images, "f1", threshold =>
    {
        var (precision, recall) = (Share(images, threshold, flagged: true, ofDefects: false), Share(images, threshold, flagged: true, ofDefects: true));
        return precision + recall == 0 ? 0 : 2 * precision * recall / (precision + recall);
    }));

    [Test]
    public void BalancedAccuracyToo() => Images.Sample(images => AssertBest(images, "balanced", threshold =>
        (images.Where(image => image.Defect).Average(image => image.Score >= threshold ? 1.0 : 0) + images.Where(image => !image.Defect).Average(image => image.Score < threshold ? 1.0 : 0)) / 2));

    [TestCase("0.5")]
    [TestCase("0.95")]
    [TestCase("1")]
    [TestCase("0.001")]
    public void RecallIsReachedByTheHighest(string recall) => Images.Sample(images =>
    {
        var reached = images.Select(image => image.Score).Where(threshold =>
            (decimal)images.Count(image => image.Defect && image.Score >= threshold) / images.Count(image => image.Defect) >= decimal.Parse(recall, System.Globalization.CultureInfo.InvariantCulture));
        Assert.That(ThresholdRule.Parse("recall=" + recall).Choose(images), Is.EqualTo(reached.Max()));
    });

    /// <summary>0.55 · 100 is more than 55 in binary.</summary>
    [Test]
    public void ARecallThatIsReachedExactlyIsReached()
    {
        (double, bool)[] images = [.. Enumerable.Range(1, 100).Select(i => ((double)i, true)), (0, false)];
        Assert.That(ThresholdRule.Parse("recall=0.55").Choose(images), Is.EqualTo(46));
    }

    [Test]
    public void Known()
    {
        (double, bool)[] images = [(0.1, false), (0.4, false), (0.4, true), (0.35, true), (0.8, true), (0.9, false)];
        Assert.Multiple(() =>
        {
            Assert.That(ThresholdRule.Parse("f1").Choose(images), Is.EqualTo(0.35));
            Assert.That(ThresholdRule.Parse("balanced").Choose(images), Is.EqualTo(0.35));
            Assert.That(ThresholdRule.Parse("recall=0.3").Choose(images), Is.EqualTo(0.8));
            Assert.That(ThresholdRule.Parse("f1").Choose([(3, true)]), Is.EqualTo(3));
        });
    }

    [TestCase("accuracy")]
    [TestCase("recall")]
    [TestCase("recall=0")]
    [TestCase("recall=1.01")]
    [TestCase("recall=-0.5")]
    [TestCase("recall=NaN")]
    [TestCase("recall=0,9")]
    [TestCase("")]
    public void NoRule(string text) => Assert.That(() => ThresholdRule.Parse(text), Throws.InstanceOf<InputException>().With.Message.Contains("--threshold"));

    [Test]
    public void ImagesOfOneClassAreAnError()
    {
        foreach (var rule in new[] { "f1", "balanced", "recall=0.9" })
        {
            Assert.That(() => ThresholdRule.Parse(rule).Choose([(1, false)]), Throws.InstanceOf<InputException>().With.Message.Contains("no defects"));
        }

        Assert.That(() => ThresholdRule.Parse("balanced").Choose([(1, true)]), Throws.InstanceOf<InputException>().With.Message.Contains("no normal images"));
        Assert.That(ThresholdRule.Parse("recall=1").Choose([(1, true), (2, true)]), Is.EqualTo(1));
    }

    // Every score is tried; what differs by rounding alone is equal.
    private static void AssertBest((double Score, bool Defect)[] images, string rule, Func<double, double> value)
    {
        var all = images.Select(image => image.Score).Distinct().ToDictionary(score => score, value);
        var best = all.Where(pair => pair.Value >= all.Values.Max() - 1e-9).Max(pair => pair.Key);
        Assert.That(ThresholdRule.Parse(rule).Choose(images), Is.EqualTo(best));
    }

    private static double Share((double Score, bool Defect)[] images, double threshold, bool flagged, bool ofDefects)
    {
        var whole = images.Where(image => ofDefects ? image.Defect : image.Score >= threshold).ToArray();
        return whole.Length == 0 ? 0 : whole.Count(image => image.Defect && image.Score >= threshold == flagged) / (double)whole.Length;
    }
}
