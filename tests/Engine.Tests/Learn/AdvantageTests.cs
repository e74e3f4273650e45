using CsCheck;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn;

[TestFixture]
internal sealed class AdvantageTests
{
    private static readonly double[][] TwoGroups = [[1, 0, 0, 1], [2, 2, 2, 2]];

    [Test]
    public void ByHand()
    {
        // Group means 0.5 and 2, group deviations 0.5 and 0; the batch's mean is 1.25 and its variance (2·0.0625 + 2·1.5625 + 4·0.5625) / 8 = 0.6875.
        var batch = Math.Sqrt(0.6875);
        Assert.Multiple(() =>
        {
            Assert.That(Of("group"), Is.EqualTo(new[] { 0.5 / 0.5001, -0.5 / 0.5001, -0.5 / 0.5001, 0.5 / 0.5001, 0, 0, 0, 0 }).Within(1e-6));
            Assert.That(Of("batch"), Is.EqualTo(new[] { 0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0 }.Select(a => a / (batch + 1e-4))).Within(1e-6));
            Assert.That(Of("none"), Is.EqualTo(new[] { 0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0 }).Within(1e-7));
        });

        static IEnumerable<double> Of(string scale) => Advantages.Normalize(TwoGroups, scale).Values.SelectMany(group => group.Select(a => (double)a));
    }

    [Test]
    public void WhatIsLogged()
    {
        var result = Advantages.Normalize(TwoGroups, "batch");
        Assert.That((result.RewardMean, result.RewardStd, result.ZeroSpread), Is.EqualTo((1.25, 0.25, 0.5)));
    }

    [Test]
    public void AnUnknownScaleIsAnError() =>
        Assert.That(() => Advantages.Normalize(TwoGroups, "best"), Throws.InstanceOf<InputException>().With.Message.Contains("--scale-rewards"));

    [Test]
    public void GroupsOfEqualRewardsTeachExactlyNothing() => Gen.Select(Gen.Double[-10, 10], Gen.Int[2, 16], Gen.OneOf("group", "batch", "none")).Sample((reward, count, scale) =>
    {
        var result = Advantages.Normalize([[.. Enumerable.Repeat(reward, count)], [.. Enumerable.Range(0, count).Select(i => (double)i)]], scale);
        Assert.That(result.Values[0].Select(Math.Abs), Is.All.LessThan(1e-9f));
        Assert.That(result.ZeroSpread, Is.EqualTo(0.5));
    });

    [Test]
    public void AGroupsAdvantagesSumToZeroAndKeepTheRewardsOrder() => Gen.Select(Gen.Double[-3, 3].Array[2, 16].Array[1, 6], Gen.OneOf("group", "batch", "none")).Sample((rewards, scale) =>
    {
        var result = Advantages.Normalize(rewards, scale);
        foreach (var (group, values) in rewards.Zip(result.Values))
        {
            Assert.That(values.Sum(a => (double)a), Is.Zero.Within(1e-3));
            for (var i = 1; i < group.Length; i++)
            {
                Assert.That(values[i].CompareTo(values[0]) * group[i].CompareTo(group[0]), Is.GreaterThanOrEqualTo(0));
            }
        }
    });

    [Test]
    public void DividingByTheGroupsOwnSpreadCancelsItsScale()
    {
        double[] rewards = [0.2, 1.4, 0.9, 0.2];
        var small = Advantages.Normalize([rewards], "group").Values[0];
        var large = Advantages.Normalize([[.. rewards.Select(reward => 100 * reward)]], "group").Values[0];
        Assert.That(large, Is.EqualTo(small).Within(5e-4f));
    }
}
