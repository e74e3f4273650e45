using LrIad.Engine.Compute;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Runs of conversions do what single ones do.</summary>
internal sealed class NumbersTests
{
    [TestCase(0)]
    [TestCase(1)]
    [TestCase(15)]
    [TestCase(16)]
    [TestCase(100_003)]
    public void A_run_of_floats_is_rounded_as_each_of_them_is(int count)
    {
        // Any bits: numbers of all sizes, infinities and what is not a number among them.
        var random = new Random(count);
        var values = Enumerable.Range(0, count).Select(_ => BitConverter.Int32BitsToSingle(random.Next(int.MinValue, int.MaxValue))).ToArray();
        float[] special = [float.NaN, float.PositiveInfinity, float.NegativeInfinity, float.MaxValue, 0f, -0f, float.Epsilon, BitConverter.UInt32BitsToSingle(0x3F808000), BitConverter.UInt32BitsToSingle(0x3F818000)];
        special.AsSpan(0, Math.Min(special.Length, count)).CopyTo(values);
        var rounded = new ushort[count];
        Numbers.ToBFloat16(values, rounded);
        Assert.That(rounded, Is.EqualTo(values.Select(Numbers.ToBFloat16)));
    }
}
