using CsCheck;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn;

[TestFixture]
internal sealed class TrainingSamplerTests
{
    [Test]
    public void EveryEpochDrawsEverySampleOnce() => Gen.Select(Gen.Int[1, 200], Gen.ULong).Sample((count, seed) =>
    {
        var sampler = new TrainingSampler([.. Enumerable.Range(0, count).Select(i => i % 3 == 0)], balance: false, seed);
        for (var epoch = 0; epoch < 3; epoch++)
        {
            var drawn = Enumerable.Range(0, count).Select(i => sampler.At(((long)epoch * count) + i)).Order();
            Assert.That(drawn, Is.EqualTo(Enumerable.Range(0, count)));
        }
    });

    [Test]
    public void TheOrderIsTheSeedsAndTheEpochs()
    {
        var labels = Enumerable.Range(0, 100).Select(i => i < 12).ToArray();
        int[] Epoch(ulong seed, int epoch) => [.. Enumerable.Range(0, 100).Select(i => new TrainingSampler(labels, false, seed).At((epoch * 100) + i))];
        var first = Epoch(7, 0);
        Assert.Multiple(() =>
        {
            Assert.That(Epoch(7, 0), Is.EqualTo(first));
            Assert.That(Epoch(8, 0), Is.Not.EqualTo(first));
            Assert.That(Epoch(7, 1), Is.Not.EqualTo(first));
            Assert.That(first, Is.Not.EqualTo(Enumerable.Range(0, 100)));
        });
    }

    [Test]
    public void DrawsAreTheSameFromAnyPositionOn([Values] bool balance)
    {
        var labels = Enumerable.Range(0, 37).Select(i => i % 5 == 0).ToArray();
        var through = new TrainingSampler(labels, balance, 3);
        var all = Enumerable.Range(0, 200).Select(i => through.At(i)).ToArray();
        for (var start = 0; start < 200; start += 13)
        {
            var resumed = new TrainingSampler(labels, balance, 3);
            Assert.That(Enumerable.Range(start, 200 - start).Select(i => resumed.At(i)), Is.EqualTo(all[start..]));
        }
    }

    [Test]
    public void BalancedDrawsAlternateAndUseEverySampleOfAClassBeforeAnyTwice()
    {
        var labels = Enumerable.Range(0, 50).Select(i => i % 10 == 0).ToArray();
        var sampler = new TrainingSampler(labels, balance: true, 11);
        var drawn = Enumerable.Range(0, 90).Select(i => sampler.At(i)).ToArray();
        Assert.That(drawn.Select(i => labels[i]), Is.EqualTo(Enumerable.Range(0, 90).Select(i => i % 2 == 0)));
        var normals = drawn.Where(i => !labels[i]).ToArray();
        Assert.That(normals, Is.Unique.And.Length.EqualTo(45));
        foreach (var round in drawn.Where(i => labels[i]).Chunk(5))
        {
            Assert.That(round, Is.Unique);
        }
    }

    [Test]
    public void ShufflesAreEven()
    {
        // Where sample 0 lands over many epochs: chi-square with 9 degrees of freedom stays below its 99.9% point.
        var sampler = new TrainingSampler([.. Enumerable.Range(0, 10).Select(i => i == 0)], balance: false, 5);
        var places = new int[10];
        for (var i = 0; i < 50_000; i++)
        {
            places[i % 10] += sampler.At(i) == 0 ? 1 : 0;
        }

        Assert.That(places.Sum(count => (count - 500.0) * (count - 500.0) / 500), Is.LessThan(27.9), string.Join(' ', places));
    }

    [Test]
    public void BalancingOneClassIsAnError() =>
        Assert.That(() => new TrainingSampler([true, true], balance: true, 0), Throws.InstanceOf<InputException>().With.Message.Contains("one class"));

    [TestCase("constant", 0, 0.0)]
    [TestCase("constant", 3, 0.3)]
    [TestCase("constant", 10, 1.0)]
    [TestCase("constant", 500, 1.0)]
    [TestCase("cosine", 5, 0.5)]
    [TestCase("cosine", 10, 1.0)]
    [TestCase("cosine", 60, 0.5)]
    [TestCase("cosine", 110, 0.0)]
    [TestCase("cosine", 35, 0.853553390593)]
    public void LearningRates(string schedule, int step, double share) =>
        Assert.That(LearningRateSchedule.At(schedule, 2e-5, step, warmup: 10, total: 110), Is.EqualTo(2e-5 * share).Within(1e-15));

    [Test]
    public void WithoutWarmUpTheFirstStepHasThePeak([Values("constant", "cosine")] string schedule) =>
        Assert.That(LearningRateSchedule.At(schedule, 1, 0, 0, 10), Is.EqualTo(1));

    [Test]
    public void AWarmUpAsLongAsTheRunIsNoDivisionByZero() => Assert.That(LearningRateSchedule.At("cosine", 1, 10, 10, 10), Is.EqualTo(1));

    [Test]
    public void AnUnknownScheduleIsAnError() =>
        Assert.That(() => LearningRateSchedule.At("linear", 1, 0, 0, 1), Throws.InstanceOf<InputException>().With.Message.Contains("--lr-schedule"));
}
