using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Draws that a mask restricts, and the likeliest tokens beside them, against their definitions.</summary>
internal sealed class HeadMaskTests
{
    private const int Vocabulary = 203;

    [TestCase(1f, 0, 1f)]
    [TestCase(0.6f, 0, 1f)]
    [TestCase(1f, 5, 1f)]
    [TestCase(1f, 0, 0.6f)]
    [TestCase(1.3f, 8, 0.8f)]
    [TestCase(1f, 100, 0.9f)]
    public void What_a_mask_allows_is_drawn_as_often_as_the_oracle_says(float temperature, int topK, float topP)
    {
        const int draws = 20_000;
        var c = new HeadCase(1, 32, Vocabulary, NormKind.RootMeanSquare, ElementType.Float32, 21, spread: 1.5f);
        using var device = new Device();
        var (head, x) = c.On(device);
        var masks = Masks(2, 22, share: 0.15);
        var rows = Enumerable.Range(0, draws).Select(i => new SampleRow(0, temperature, topK, topP, 7, 8, (uint)i, 0, Mask: 1)).ToArray();
        var tokens = Draw(device, head, x, rows, masks).Tokens;

        var logProbs = HeadOracle.LogSoftMax(c, Reference.Widen(c.X), 0, temperature, out _);
        var expected = HeadOracle.Truncated([.. logProbs.Select((logProb, token) => Allows(masks, 1, token) ? logProb : double.NegativeInfinity)], topK, topP);
        var counts = tokens.CountBy(token => token).ToDictionary();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(tokens.Where(token => expected[token] == 0), Is.Empty);

            // Five standard deviations of each token's count: less than one run in ten thousand would fail, and these runs are always the same.
            foreach (var token in Enumerable.Range(0, Vocabulary).Where(token => expected[token] > 0))
            {
                Assert.That(counts.GetValueOrDefault(token), Is.EqualTo(draws * expected[token]).Within(1 + (5 * Math.Sqrt(draws * expected[token]))), $"token {token}");
            }
        }
    }

    [Test]
    public void Log_probs_stay_those_of_the_whole_distribution_and_other_rows_are_what_they_were()
    {
        var c = new HeadCase(9, 48, Vocabulary, NormKind.RootMeanSquare, ElementType.BFloat16, 23);
        using var device = new Device();
        var (head, x) = c.On(device);
        var masks = Masks(3, 24, share: 0.3);
        var rows = Enumerable.Range(0, 240).Select(i => new SampleRow(i % c.Rows, i % 3 * 0.6f, i % 5 == 0 ? 9 : 0, i % 7 == 0 ? 0.8f : 1, 7, 8, (uint)i, 3, Mask: (i % 4) - 1, Top: i % 6)).ToArray();
        var plain = Draw(device, head, x, [.. rows.Select(row => row with { Mask = -1, Top = 0 })], []);
        var drawn = Draw(device, head, x, rows, masks);
        var wide = Reference.Widen(c.X);
        using (Assert.EnterMultipleScope())
        {
            for (var r = 0; r < rows.Length; r++)
            {
                var expected = HeadOracle.LogSoftMax(c, wide, rows[r].Row, rows[r].Temperature == 0 ? 1 : rows[r].Temperature, out _);
                Assert.That(drawn.LogProbs[r], Is.EqualTo(expected[drawn.Tokens[r]]).Within(1e-4), $"log-prob {r}");
                if (rows[r].Mask < 0)
                {
                    Assert.That((drawn.Tokens[r], drawn.LogProbs[r]), Is.EqualTo((plain.Tokens[r], plain.LogProbs[r])), $"row {r}");
                    continue;
                }

                Assert.That(Allows(masks, rows[r].Mask, drawn.Tokens[r]), Is.True, $"row {r}");
                if (rows[r].Temperature == 0)
                {
                    Assert.That(expected[drawn.Tokens[r]], Is.EqualTo(expected.Where((_, token) => Allows(masks, rows[r].Mask, token)).Max()).Within(1e-5), $"greedy {r}");
                }
            }
        }
    }

    [TestCase(20, Vocabulary)]
    [TestCase(5, 5)]
    [TestCase(20, 3)]
    public void The_likeliest_tokens_are_told_in_order(int top, int vocabulary)
    {
        var c = new HeadCase(6, 32, vocabulary, NormKind.RootMeanSquare, ElementType.Float32, 25);

        // Two tokens are always equally likely: the lower one comes first.
        c.Weight.AsSpan(0, c.Hidden).CopyTo(c.Weight.AsSpan((vocabulary - 1) * c.Hidden));
        using var device = new Device();
        var (head, x) = c.On(device);
        var rows = Enumerable.Range(0, c.Rows).Select(r => new LogProbRow(r, 1, 0.5f + r, Top: r == 2 ? 0 : top - (r % 2))).ToArray();
        var result = new HeadResult(
            default, device.New<float>(c.Rows), device.New<float>(c.Rows), device.New<float>(c.Rows), default, device.Put(Enumerable.Repeat(-1, c.Rows * top).ToArray()), device.New<float>(c.Rows * top));
        device.Backend.LogProb(x, head, device.Put(rows), default, result);
        var (tokens, logProbs) = (device.Get(result.TopToken), device.Get(result.TopLogProb));
        using (Assert.EnterMultipleScope())
        {
            for (var r = 0; r < c.Rows; r++)
            {
                var expected = HeadOracle.LogSoftMax(c, Reference.Widen(c.X), r, rows[r].Temperature, out _);
                var wanted = Math.Min(rows[r].Top, vocabulary);
                var told = tokens.AsSpan(r * top, top).ToArray();
                Assert.That(told[wanted..], Is.All.EqualTo(-1), $"row {r}");
                Assert.That(told[..wanted], Is.Unique, $"row {r}");
                Assert.That(logProbs.AsSpan(r * top, wanted).ToArray(), Is.EqualTo(expected.OrderDescending().Take(wanted)).Within(1e-4), $"row {r}");
                Assert.That(logProbs.AsSpan(r * top, wanted).ToArray(), Is.EqualTo(told[..wanted].Select(token => expected[token])).Within(1e-4), $"row {r}");
                var (low, high) = (Array.IndexOf(told, 0), Array.IndexOf(told, vocabulary - 1));
                Assert.That(high < 0 || high == low + 1, Is.True, $"row {r}");
            }
        }
    }

    [Test]
    public void A_mask_that_is_not_there_or_allows_nothing_is_refused()
    {
        var c = new HeadCase(1, 16, Vocabulary, NormKind.RootMeanSquare, ElementType.Float32, 26);
        using var device = new Device();
        var (head, x) = c.On(device);
        var row = new SampleRow(0, 1f, 0, 1f, 1, 2, 3, 4, Mask: 1);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(() => Draw(device, head, x, [row], Masks(1, 27, share: 0.5)), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => Draw(device, head, x, [row], Masks(2, 27, share: 0)), Throws.InstanceOf<ArgumentException>().With.Message.Contains("allows no token"));
        }
    }

    /// <summary>Random masks over a vocabulary.</summary>
    public static uint[] Masks(int count, int seed, double share, int vocabulary = Vocabulary)
    {
        var (random, words) = (new Random(seed), (vocabulary + 31) / 32);
        var masks = new uint[count * words];
        for (var (mask, token) = (0, 0); mask < count; (mask, token) = token + 1 < vocabulary ? (mask, token + 1) : (mask + 1, 0))
        {
            masks[(mask * words) + (token / 32)] |= random.NextDouble() < share ? 1u << (token % 32) : 0;
        }

        return masks;
    }

    private static bool Allows(uint[] masks, int mask, int token) => (masks[(mask * ((Vocabulary + 31) / 32)) + (token / 32)] >> (token % 32) & 1) != 0;

    private static (int[] Tokens, float[] LogProbs) Draw(Device device, HeadWeights head, Tensor x, SampleRow[] rows, uint[] masks)
    {
        const int top = 6;
        var result = new HeadResult(
            device.New<int>(rows.Length), device.New<float>(rows.Length), device.New<float>(rows.Length), default, default, device.New<int>(rows.Length * top), device.New<float>(rows.Length * top));
        device.Backend.Sample(x, head, device.Put(rows), result, device.Put(masks));
        return (device.Get(result.Token), device.Get(result.LogProb));
    }
}
