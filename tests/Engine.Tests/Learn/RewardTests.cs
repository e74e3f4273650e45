using CsCheck;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Learn;

[TestFixture]
internal sealed class RewardTests
{
    private static readonly Answer Defect = Answer.Parse("<think>A crack.</think> <answer>A</answer>");
    private static readonly Answer Normal = Answer.Parse("<think>Intact.</think> <answer>B</answer>");
    private static readonly Answer Invalid = Answer.Parse("B");

    [Test]
    public void EveryRewardOfAGroup()
    {
        // A defect; 2 of 4 are right, so p = 3/6; the class weight is fixed at 3: focal is 2 · (1/2)² · 3.
        var rule = Rule(new RewardOptions { Names = ["accuracy", "focal", "format"], FocalAlpha = 2, FocalClassWeights = "3,0.5" });
        var rewards = rule.Score([Defect, Normal, Invalid, Defect], defect: true, Window(1, 1), null, null);
        Assert.That(rewards, Is.EqualTo(new double[][] { [1, 1.5, 1], [0, 0, 1], [0, 0, 0], [1, 1.5, 1] }));
    }

    [Test]
    public void OnNormalPartsTheOtherAnswerIsRightAndTheOtherWeightHolds()
    {
        var rule = Rule(new RewardOptions { Names = ["focal"], FocalGamma = 1, FocalClassWeights = "3,0.5" });
        var rewards = rule.Score([Normal, Defect, Invalid], defect: false, Window(1, 1), null, null);
        Assert.That(rewards.Select(r => r[0]), Is.EqualTo(new[] { (1 - (2 / 5.0)) * 0.5, 0, 0 }).Within(1e-15));
    }

    [Test]
    public void WithAPenaltyWrongAndInvalidAnswersGetTheNegative()
    {
        var rule = Rule(new RewardOptions { Names = ["focal"], FocalWrong = "penalty", FocalClassWeights = "1,1" });
        var rewards = rule.Score([Defect, Normal, Invalid], defect: true, Window(1, 1), null, null).Select(r => r[0]).ToArray();
        Assert.That(rewards, Is.EqualTo(new[] { 0.36, -0.36, -0.36 }).Within(1e-15));
    }

    [Test]
    public void PFromTheProbe([Values(-800, -1.5, 0, 2, 800)] double logOdds, [Values] bool defect)
    {
        var rule = Rule(new RewardOptions { Names = ["focal"], FocalP = "probe", FocalClassWeights = "1,1" });
        Assert.That(rule.WantsProbe);
        var p = 1 / (1 + Math.Exp(defect ? -logOdds : logOdds));
        var reward = rule.Score([defect ? Defect : Normal], defect, Window(1, 1), logOdds, null)[0][0];
        Assert.That(reward, Is.EqualTo(Math.Pow(1 - p, 2)).Within(1e-12));
    }

    [Test]
    public void PAtEachCompletionsOwnAnswer()
    {
        var rule = Rule(new RewardOptions { Names = ["focal"], FocalP = "answer", FocalClassWeights = "1,1" });
        Assert.That(rule.WantsAnswerProbability);
        var rewards = rule.Score([Defect, Defect], defect: true, Window(1, 1), null, [0.5, 0.9]).Select(r => r[0]);
        Assert.That(rewards, Is.EqualTo(new[] { 0.25, 0.01 }).Within(1e-15));
    }

    [Test]
    public void WithoutFocalNoProbeIsAskedFor()
    {
        var rule = Rule(new RewardOptions { Names = ["format", "accuracy"], FocalP = "probe" });
        Assert.That((rule.WantsProbe, rule.WantsAnswerProbability), Is.EqualTo((false, false)));
    }

    [Test]
    public void TheFocalRewardFallsAsMoreOfTheGroupIsRight() => Gen.Select(Gen.Int[2, 16], Gen.Double[0.1, 5], Gen.Double[0.1, 4]).Sample((count, gamma, alpha) =>
    {
        var rule = Rule(new RewardOptions { Names = ["focal"], FocalGamma = gamma, FocalAlpha = alpha, FocalClassWeights = "1,1" });
        var last = alpha;
        for (var right = 1; right <= count; right++)
        {
            var answers = Enumerable.Range(0, count).Select(i => i < right ? Defect : Normal).ToArray();
            var reward = rule.Score(answers, defect: true, Window(1, 1), null, null)[0][0];
            Assert.That(reward, Is.GreaterThan(0).And.LessThan(last));
            last = reward;
        }
    });

    [Test]
    public void AnotherRewardIsCalledByItsName()
    {
        var registry = new RewardRegistry();
        registry.Register("brief", context => -context.Answer.Reasoning.Length);
        var rule = new RewardRule(new RewardOptions { Names = ["brief"] }, registry);
        Assert.That(rule.Score([Defect], true, Window(1, 1), null, null)[0][0], Is.EqualTo(-8));
    }

    [Test]
    public void ARewardThatIsNoNumberIsAnErrorThatNamesIt()
    {
        var registry = new RewardRegistry();
        registry.Register("broken", _ => double.NaN);
        var rule = new RewardRule(new RewardOptions { Names = ["format", "broken"] }, registry);
        Assert.That(() => rule.Score([Defect], true, Window(1, 1), null, null), Throws.InstanceOf<InputException>().With.Message.Contains("'broken'"));
    }

    [Test]
    public void AnUnknownNameIsAnErrorThatListsTheKnown() =>
        Assert.That(() => Rule(new RewardOptions { Names = ["focus"] }), Throws.InstanceOf<InputException>().With.Message.Contains("'focus'").And.Message.Contains("accuracy, focal, format"));

    [TestCase("1")]
    [TestCase("1,2,3")]
    [TestCase("1,x")]
    [TestCase("-1,2")]
    [TestCase("NaN,1")]
    [TestCase("Infinity,1")]
    [TestCase("")]
    public void ClassWeightsAreAutoOrTwoNumbers(string text) =>
        Assert.That(() => Rule(new RewardOptions { FocalClassWeights = text }), Throws.InstanceOf<InputException>().With.Message.Contains("--focal-class-weights"));

    [Test]
    public void OptionsOutOfRangeAreErrorsThatNameThem() => Assert.Multiple(() =>
    {
        foreach (var (options, name) in new[]
        {
            (new RewardOptions { FocalP = "guess" }, "--focal-p"),
            (new RewardOptions { FocalWrong = "one" }, "--focal-wrong"),
            (new RewardOptions { FocalGamma = -1 }, "--focal-gamma"),
            (new RewardOptions { FocalGamma = double.NaN }, "--focal-gamma"),
            (new RewardOptions { FocalAlpha = double.PositiveInfinity }, "--focal-alpha"),
            (new RewardOptions { Names = [] }, "--reward"),
        })
        {
            Assert.That(() => Rule(options), Throws.InstanceOf<InputException>().With.Message.Contains(name));
        }
    });

    [Test]
    public void ClassWeightsAreTheInverseFrequenciesScaledToMeanOne()
    {
        // 3 defects, 9 normal: 1/3 and 1/9, mean 2/9, so 1.5 and 0.5.
        var window = Window(3, 9);
        Assert.That((window.Weight(true), window.Weight(false)), Is.EqualTo((1.5, 0.5)));
    }

    [Test]
    public void AWindowStartsInTheDataSetsProportions() => Gen.Select(Gen.Int[1, 100_000], Gen.Int[1, 100_000]).Sample((defects, normals) =>
    {
        var window = ClassWindow.Start(defects, normals);
        Assert.That(window.Contents.Count(), Is.EqualTo(1000));
        Assert.That(window.Contents.Count(defect => defect), Is.EqualTo(1000.0 * defects / (defects + normals)).Within(1));
        var half = window.Contents.Take(500).Count(defect => defect);
        Assert.That(half, Is.EqualTo(500.0 * defects / (defects + normals)).Within(1), "spread evenly");
    });

    [Test]
    public void AWindowForgetsAllButTheLastThousand() => Gen.Bool.Array[1, 2500].Sample(labels =>
    {
        var window = ClassWindow.Start(1, 9);
        foreach (var label in labels)
        {
            window.Add(label);
        }

        var expected = ClassWindow.Start(1, 9).Contents.Concat(labels).TakeLast(1000).ToArray();
        Assert.That(window.Contents, Is.EqualTo(expected));
        var (defects, normals) = (Math.Max(1.0, expected.Count(defect => defect)), Math.Max(1.0, expected.Count(defect => !defect)));
        Assert.That(window.Weight(true), Is.EqualTo(2 * normals / (defects + normals)).Within(1e-12));
        Assert.That(window.Weight(true) + window.Weight(false), Is.EqualTo(2).Within(1e-12));
    });

    [Test]
    public void AWindowWithoutAClassStillHasFiniteWeights()
    {
        var window = new ClassWindow(Enumerable.Repeat(false, 1000));
        Assert.That((window.Weight(true), window.Weight(false)), Is.EqualTo((2000 / 1001.0, 2 / 1001.0)).Using<(double, double)>((a, b) => Math.Abs(a.Item1 - b.Item1) < 1e-12 && Math.Abs(a.Item2 - b.Item2) < 1e-12));
    }

    private static RewardRule Rule(RewardOptions options) => new(options, new RewardRegistry());

    private static ClassWindow Window(int defects, int normals) => new(Enumerable.Repeat(true, defects).Concat(Enumerable.Repeat(false, normals)));
}
