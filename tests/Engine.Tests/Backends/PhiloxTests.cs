using System.Runtime.Intrinsics;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Tests.Backends;

internal sealed class PhiloxTests
{
    // The published known answers of philox4x32-10 (Random123's kat_vectors).
    [TestCase(0u, 0u, 0u, 0u, 0u, 0u, new[] { 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u })]
    [TestCase(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, new[] { 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu })]
    [TestCase(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u, new[] { 0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u })]
    public void Known_answers(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1, uint[] expected)
    {
        var (x0, x1, x2, x3) = Philox.Block(k0 | ((ulong)k1 << 32), c0, c1, c2, c3);
        Assert.That(new[] { x0, x1, x2, x3 }, Is.EqualTo(expected));
    }

    [Test]
    public void A_row_of_words_is_laid_out_as_documented()
    {
        var random = new Random(1);
        var words = new uint[Philox.WordsAtATime];
        for (var trial = 0; trial < 100; trial++)
        {
            var key = (ulong)random.NextInt64();
            var (c0, c1, c2, c3) = (Word(random), Word(random), Word(random), Word(random));
            Philox.Words32(key, c0, c1, c2, c3, words);
            for (var i = 0; i < words.Length; i++)
            {
                var block = Philox.Block(key, c0 + (uint)(i % 8), c1, c2, c3);
                Assert.That(words[i], Is.EqualTo(new[] { block.X0, block.X1, block.X2, block.X3 }[i / 8]), $"word {i}");
            }
        }
    }

    [TestCase(0f)]
    [TestCase(0.05f)]
    [TestCase(0.5f)]
    public void Dropout_keeps_a_share_of_one_minus_p_and_scales_it(float probability)
    {
        const int channels = 384, rows = 2000;
        var mask = new float[channels];
        var (kept, wrong) = (0L, 0L);
        for (var row = 0u; row < rows; row++)
        {
            Philox.DropoutMask(new Dropout(probability, 7, 3, 2), 1, 5, row, mask);
            foreach (var value in mask)
            {
                kept += value != 0 ? 1 : 0;
                wrong += value != 0 && value != 1f / (1f - probability) ? 1 : 0;
            }
        }

        const long count = (long)channels * rows;
        var deviation = Math.Sqrt(count * (double)probability * (1 - probability));
        Assert.That(wrong, Is.Zero);
        Assert.That(kept, Is.EqualTo(count * (1.0 - probability)).Within((5 * deviation) + 1e-6 * count));
    }

    [Test]
    public void Dropout_masks_differ_in_everything_they_depend_on_and_in_nothing_else()
    {
        var dropout = new Dropout(0.5f, 7, 3, 2);
        var masks = new[]
        {
            Mask(dropout, 0, 5, 6), Mask(dropout, 1, 5, 6), Mask(dropout, 0, 6, 6), Mask(dropout, 0, 5, 7), Mask(dropout with { Seed = 8 }, 0, 5, 6),
            Mask(dropout with { Seed = 7 + (1UL << 32) }, 0, 5, 6), Mask(dropout with { Step = 4 }, 0, 5, 6), Mask(dropout with { Layer = 3 }, 0, 5, 6),
        };
        Assert.That(masks.Select(mask => string.Join(' ', mask)), Is.Unique);
        Assert.That(Mask(dropout, 0, 5, 6), Is.EqualTo(masks[0]));

        // A narrower layer sees the start of the same mask, whatever its width.
        for (var channels = 1; channels < 70; channels++)
        {
            Assert.That(Mask(dropout, 0, 5, 6, channels), Is.EqualTo(masks[0][..channels]));
        }
    }

    [Test]
    public void Numbers_below_a_bound_are_uniform()
    {
        const int bound = 13, draws = 130_000;
        var counts = new int[bound];
        for (var i = 0u; i < draws; i++)
        {
            counts[Philox.Below(bound, 42, 9, i)]++;
        }

        // Chi-square with 12 degrees of freedom: above 39.1 once in 10,000 runs, and this run is always the same.
        Assert.That(counts.Sum(count => Math.Pow(count - (draws / (double)bound), 2) / (draws / (double)bound)), Is.LessThan(39.1));
    }

    [Test]
    public void Gumbel_noise_has_the_mean_variance_and_distribution_it_should()
    {
        const int count = 1 << 20, bins = 64;
        var (sum, squares) = (0.0, 0.0);
        var counts = new int[bins];
        foreach (var word in Words(count))
        {
            double g = Gumbel(word);
            sum += g;
            squares += g * g;
            counts[Math.Min(bins - 1, (int)(Math.Exp(-Math.Exp(-g)) * bins))]++;
        }

        var mean = sum / count;
        var variance = (squares / count) - (mean * mean);
        const double expected = count / (double)bins;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(mean, Is.EqualTo(0.5772157).Within(5 * 1.2825 / 1024));
            Assert.That(variance, Is.EqualTo(Math.PI * Math.PI / 6).Within(0.02));

            // 63 degrees of freedom: above 113 once in 10,000 runs.
            Assert.That(counts.Sum(n => (n - expected) * (n - expected) / expected), Is.LessThan(113));
        }
    }

    [Test]
    public void Gumbel_noise_follows_its_formula()
    {
        foreach (var word in Words(200_000).Concat([0u, 1u, 2u, 3u, 1u << 19, (1u << 20) - 1, 1u << 20, 1u << 31, uint.MaxValue - 300, uint.MaxValue - 1, uint.MaxValue]))
        {
            var v = Math.Min(((word >> 1) + 0.5) / 2147483648.0, 0.99999994);
            var exact = -Math.Log(-Math.Log(1 - v));

            // Where v rounds to a float, so does what is left of it.
            Assert.That(Gumbel(word), Is.EqualTo(exact).Within(2e-4 + (6e-8 / (1 - v))), $"word {word}");
        }
    }

    [Test]
    public void Gumbel_noise_is_finite_for_every_kind_of_word()
    {
        for (ulong word = 0; word <= uint.MaxValue; word += 4093)
        {
            Assert.That(float.IsFinite(Gumbel((uint)word)));
        }

        Assert.That(Gumbel(0), Is.EqualTo(32 * Math.Log(2)).Within(1e-5));
        Assert.That(Gumbel(uint.MaxValue), Is.EqualTo(-Math.Log(24 * Math.Log(2))).Within(1e-5));
    }

    [Test]
    public void Gumbel_noise_is_the_same_one_word_at_a_time()
    {
        // Another backend evaluates the same formula a word at a time: plain scalar operations must give the same bits.
        var words = Words(80_000);
        for (var i = 0; i < words.Length; i += 8)
        {
            var lanes = Philox.Gumbel(Vector256.Create(words, i));
            for (var lane = 0; lane < 8; lane++)
            {
                Assert.That(BitConverter.SingleToUInt32Bits(lanes[lane]), Is.EqualTo(BitConverter.SingleToUInt32Bits(ScalarGumbel(words[i + lane]))));
            }
        }
    }

    [Test]
    public void The_logarithm_is_within_two_units_in_the_last_place()
    {
        var random = new Random(2);
        for (var i = 0; i < 200_000; i++)
        {
            var x = BitConverter.UInt32BitsToSingle((uint)random.Next(0x00800000, 0x7F800000));
            var exact = Math.Log(x);
            Assert.That(Philox.Log(Vector256.Create(x))[0], Is.EqualTo(exact).Within(2 * Math.Max(Math.Abs(exact), 1e-7) * Math.Pow(2, -23)), $"ln {x}");
        }
    }

    private static float ScalarGumbel(uint word)
    {
        var v = MathF.Min(((int)(word >> 1) + 0.5f) * 4.656612873e-10f, 0.99999994f);
        var exponential = v < 1f / 4096 ? MathF.FusedMultiplyAdd(v * v, 0.5f, v) : -ScalarLog(1f - v);
        return -ScalarLog(exponential);
    }

    private static float ScalarLog(float x)
    {
        float[] coefficients =
        [
            7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f,
            3.3333331174e-1f,
        ];
        var shifted = BitConverter.SingleToInt32Bits(x) + 0x3F800000 - 0x3F3504F3;
        var exponent = (float)((shifted >> 23) - 127);
        var m = BitConverter.Int32BitsToSingle((shifted & 0x007FFFFF) + 0x3F3504F3) - 1f;
        var p = coefficients[0];
        foreach (var coefficient in coefficients[1..])
        {
            p = MathF.FusedMultiplyAdd(p, m, coefficient);
        }

        var square = m * m;
        var result = p * (square * m);
        result = MathF.FusedMultiplyAdd(exponent, -2.12194440e-4f, result);
        result = MathF.FusedMultiplyAdd(square, -0.5f, result);
        return MathF.FusedMultiplyAdd(exponent, 0.693359375f, m + result);
    }

    private static float Gumbel(uint word) => Philox.Gumbel(Vector256.Create(word))[0];

    private static uint[] Words(int count)
    {
        var words = new uint[count];
        for (var i = 0; i < count; i += Philox.WordsAtATime)
        {
            Philox.Words32(99, (uint)i / 4, 1, 2, 0, words.AsSpan(i));
        }

        return words;
    }

    private static float[] Mask(Dropout dropout, int projection, uint id, uint position, int channels = 96)
    {
        var mask = new float[channels];
        Philox.DropoutMask(dropout, projection, id, position, mask);
        return mask;
    }

    private static uint Word(Random random) => (uint)random.NextInt64(1L << 32);
}
