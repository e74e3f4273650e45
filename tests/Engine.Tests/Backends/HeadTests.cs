using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

internal sealed class HeadTests
{
    private static IEnumerable<TestCaseData> Cases()
    {
        yield return Named("sample model", new HeadCase(20, 384, 3072, NormKind.RootMeanSquare, ElementType.BFloat16, 1));
        yield return Named("odd sizes", new HeadCase(7, 37, 203, NormKind.RootMeanSquare, ElementType.Float32, 2));
        yield return Named("layer norm", new HeadCase(5, 24, 70, NormKind.Layer, ElementType.BFloat16, 3));
        yield return Named("tiny", new HeadCase(3, 8, 5, NormKind.RootMeanSquare, ElementType.Float32, 4));
        yield return Named("peaked", new HeadCase(9, 64, 512, NormKind.RootMeanSquare, ElementType.BFloat16, 5, spread: 40f));

        static TestCaseData Named(string name, HeadCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Cases))]
    public void Log_probs_entropy_and_options_equal_the_oracle(HeadCase c)
    {
        using var device = new Device();
        var (head, x) = c.On(device);
        var (rows, options) = (RandomRows(c, 130), new[] { 0, c.Vocabulary - 1, 3 });
        var (logProb, entropy, logSumExp, option) = LogProb(device, head, x, rows, options);
        var wide = Reference.Widen(c.X);
        using (Assert.EnterMultipleScope())
        {
            for (var r = 0; r < rows.Length; r++)
            {
                var expected = HeadOracle.LogSoftMax(c, wide, rows[r].Row, rows[r].Temperature, out var sum);
                var tolerance = 1e-5 * Math.Max(1, sum);
                Assert.That(logProb[r], Is.EqualTo(expected[rows[r].Target]).Within(tolerance), $"log-prob {r}");
                Assert.That(entropy[r], Is.EqualTo(HeadOracle.Entropy(expected)).Within(tolerance), $"entropy {r}");
                Assert.That(logSumExp[r], Is.EqualTo(sum).Within(tolerance), $"log-sum-exp {r}");
                Assert.That(option.AsSpan(r * options.Length, options.Length).ToArray(), Is.EqualTo(options.Select(token => expected[token])).Within(tolerance), $"options {r}");
            }
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void The_gradient_equals_finite_differences_of_the_oracle(HeadCase c)
    {
        if (c.Vocabulary > 1000)
        {
            // Same code as the others; the oracle would take minutes.
            c = new HeadCase(4, 384, 300, c.Kind, ElementType.BFloat16, 8);
        }

        using var device = new Device();
        var (head, x) = c.On(device);
        var random = new Random(c.Vocabulary);

        // The last row is not listed; the first is, many times, as a prompt's last row is by its completions.
        var rows = RandomRows(c, 2 * c.Rows).Select(row => row with { Row = row.Row % (c.Rows - 1) }).Concat(RandomRows(c, 3).Select(row => row with { Row = 0 })).ToArray();
        var dLogProb = Reference.Normal(random, rows.Length, 1f);
        var dx = Gradient(device, head, x, rows, dLogProb);
        var error = Reference.GradientError(
            moved => rows.Select((row, r) => dLogProb[r] * HeadOracle.LogSoftMax(c, moved, row.Row, row.Temperature, out _)[row.Target]).Sum(), Reference.Widen(c.X), dx, null, random, 20);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(error, Is.LessThan(5e-6));
            Assert.That(dx[^c.Hidden..], Has.All.Zero);
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void A_drawn_token_has_the_log_prob_that_scoring_gives_it_to_the_last_bit(HeadCase c)
    {
        using var device = new Device();
        var (head, x) = c.On(device);
        var rows = SampleRows(c, 150);
        var drawn = Sample(device, head, x, rows);

        // Scored in another order, next to other rows.
        var order = Enumerable.Range(0, rows.Length).ToArray();
        new Random(5).Shuffle(order);
        var scored = LogProb(device, head, x, [.. order.Select(r => new LogProbRow(rows[r].Row, drawn.Token[r], rows[r].Temperature == 0 ? 1 : rows[r].Temperature))], []);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(scored.LogProb, Is.EqualTo(order.Select(r => drawn.LogProb[r])));
            Assert.That(scored.Entropy, Is.EqualTo(order.Select(r => drawn.Entropy[r])));
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void A_draw_depends_on_nothing_but_its_own_row(HeadCase c)
    {
        var rows = SampleRows(c, 150);
        var order = Enumerable.Range(0, rows.Length).ToArray();
        new Random(6).Shuffle(order);
        using var device = new Device();
        var (head, x) = c.On(device);
        var together = Sample(device, head, x, rows);
        var shuffled = Sample(device, head, x, [.. order.Select(r => rows[r])]);
        var alone = order.Take(20).Select(r => Sample(device, head, x, [rows[r]]).Token[0]);
        using var oneThread = new Device(1);
        var (head1, x1) = c.On(oneThread);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(shuffled.Token, Is.EqualTo(order.Select(r => together.Token[r])));
            Assert.That(alone, Is.EqualTo(order.Take(20).Select(r => together.Token[r])));
            Assert.That(Sample(oneThread, head1, x1, rows), Is.EqualTo(together).Using<(int[] Token, float[] LogProb, float[] Entropy)>(
                (a, b) => a.Token.SequenceEqual(b.Token) && a.LogProb.SequenceEqual(b.LogProb) && a.Entropy.SequenceEqual(b.Entropy)));
        }
    }

    [Test]
    public void Seed_sample_and_position_each_change_the_draw()
    {
        using var device = new Device();
        var (head, x) = new HeadCase(1, 16, 2000, NormKind.RootMeanSquare, ElementType.Float32, 7, spread: 0.1f).On(device);
        var row = new SampleRow(0, 1f, 0, 1f, 1, 2, 3, 4);
        var tokens = Sample(device, head, x, [row, row with { SeedLow = 2 }, row with { SeedHigh = 3 }, row with { Sample = 4 }, row with { Position = 5 }, row with { Sample = 4, Position = 3 }]).Token;
        Assert.That(tokens, Is.Unique);
    }

    // Chi-square against the oracle's probabilities; the bound is crossed once in 10,000 runs, and these runs are always the same.
    [TestCase(1f, 0, 1f)]
    [TestCase(0.7f, 0, 1f)]
    [TestCase(1.5f, 5, 1f)]
    [TestCase(1f, 0, 0.6f)]
    [TestCase(1f, 6, 0.8f)]
    [TestCase(1f, 1, 1f)]
    [TestCase(1f, 100, 0f)]
    public void Draws_are_as_frequent_as_their_probabilities(float temperature, int topK, float topP)
    {
        const int draws = 40_000;
        var c = new HeadCase(1, 16, 12, NormKind.RootMeanSquare, ElementType.Float32, 9, spread: 1.2f);
        using var device = new Device();
        var (head, x) = c.On(device);
        var counts = new int[c.Vocabulary];
        foreach (var token in Sample(device, head, x, [.. Enumerable.Range(0, draws).Select(i => new SampleRow(0, temperature, topK, topP, 11, 12, (uint)i / 100, (uint)i % 100))]).Token)
        {
            counts[token]++;
        }

        var expected = HeadOracle.Truncated(HeadOracle.LogSoftMax(c, Reference.Widen(c.X), 0, temperature, out _), topK, topP);
        var kept = Enumerable.Range(0, c.Vocabulary).Where(token => expected[token] > 0).ToArray();
        var chiSquare = kept.Sum(token => Math.Pow(counts[token] - (draws * expected[token]), 2) / (draws * expected[token]));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(counts.Where((_, token) => expected[token] == 0), Has.All.Zero, "a token that truncation dropped was drawn");
            Assert.That(chiSquare, Is.LessThan(37.4), "11 degrees of freedom at most");
        }
    }

    [TestCase(0, 1f)]
    [TestCase(7, 1f)]
    [TestCase(0, 0.5f)]
    [TestCase(4, 0.9f)]
    public void Truncation_keeps_exactly_the_tokens_that_the_oracle_keeps(int topK, float topP)
    {
        // Nearly flat: every kept token turns up among so many draws.
        var c = new HeadCase(6, 16, 40, NormKind.RootMeanSquare, ElementType.Float32, 10, spread: 0.3f);
        using var device = new Device();
        var (head, x) = c.On(device);
        for (var row = 0; row < c.Rows; row++)
        {
            var tokens = Sample(device, head, x, [.. Enumerable.Range(0, 4000).Select(i => new SampleRow(row, 1f, topK, topP, 1, 0, (uint)i, 0))]).Token;
            var expected = HeadOracle.Truncated(HeadOracle.LogSoftMax(c, Reference.Widen(c.X), row, 1, out _), topK, topP);
            Assert.That(tokens.Distinct().Order(), Is.EqualTo(Enumerable.Range(0, c.Vocabulary).Where(token => expected[token] > 0)), $"row {row}");
        }
    }

    [TestCase(0, 0.95f, 3f)]
    [TestCase(300, 1f, 3f)]
    [TestCase(40, 0.9f, 12f)]
    [TestCase(0, 0.9999999f, 0.1f)]
    [TestCase(5000, 0.5f, 30f)]
    public void A_large_vocabulary_is_truncated_and_drawn_from_as_the_oracle_says(int topK, float topP, float spread)
    {
        const int draws = 20_000, bins = 10;
        var c = new HeadCase(1, 32, 2003, NormKind.RootMeanSquare, ElementType.Float32, 15, spread);
        using var device = new Device();
        var (head, x) = c.On(device);
        var expected = HeadOracle.Truncated(HeadOracle.LogSoftMax(c, Reference.Widen(c.X), 0, 1, out _), topK, topP);
        var tokens = Sample(device, head, x, [.. Enumerable.Range(0, draws).Select(i => new SampleRow(0, 1f, topK, topP, 3, 4, (uint)i, 0))]).Token;

        // Tokens by falling probability, cut into bins of about the same mass: from certain winners to the last that is kept.
        var (bin, mass) = (new int[c.Vocabulary], new double[bins]);
        var sum = 0.0;
        foreach (var token in Enumerable.Range(0, c.Vocabulary).OrderByDescending(token => expected[token]))
        {
            bin[token] = Math.Min(bins - 1, (int)(sum * bins));
            mass[bin[token]] += expected[token];
            sum += expected[token];
        }

        var counts = tokens.CountBy(token => bin[token]).ToDictionary();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(tokens.Where(token => expected[token] == 0), Is.Empty);
            Assert.That(
                mass.Select((share, i) => share == 0 ? 0 : Math.Pow(counts.GetValueOrDefault(i) - (draws * share), 2) / (draws * share)).Sum(), Is.LessThan(33.7), "9 degrees of freedom at most");
        }
    }

    [Test]
    public void Equal_logits_keep_the_lowest_ids()
    {
        var c = new HeadCase(1, 16, 30, NormKind.RootMeanSquare, ElementType.Float32, 11);
        for (var token = 1; token < c.Vocabulary; token++)
        {
            c.Weight.AsSpan(0, c.Hidden).CopyTo(c.Weight.AsSpan(token * c.Hidden));
        }

        using var device = new Device();
        var (head, x) = c.On(device);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Distinct(0f, 0, 1f), Is.EqualTo(new[] { 0 }), "greedy");
            Assert.That(Distinct(1f, 4, 1f), Is.EqualTo(new[] { 0, 1, 2, 3 }), "top-k");
            Assert.That(Distinct(1f, 0, 0.22f), Is.EqualTo(Enumerable.Range(0, 7)), "top-p");
            Assert.That(Distinct(1f, 10, 0.45f), Is.EqualTo(Enumerable.Range(0, 5)), "both");
        }

        int[] Distinct(float temperature, int topK, float topP) =>
            [.. Sample(device, head, x, [.. Enumerable.Range(0, 2000).Select(i => new SampleRow(0, temperature, topK, topP, 1, 0, (uint)i, 0))]).Token.Distinct().Order()];
    }

    [TestCaseSource(nameof(Cases))]
    public void Greedy_takes_the_most_likely_token(HeadCase c)
    {
        using var device = new Device();
        var (head, x) = c.On(device);
        var tokens = Sample(device, head, x, [.. Enumerable.Range(0, c.Rows).Select(row => new SampleRow(row, 0f, 5, 0.5f, 1, 2, 3, 4))]).Token;
        for (var row = 0; row < c.Rows; row++)
        {
            var expected = HeadOracle.LogSoftMax(c, Reference.Widen(c.X), row, 1, out _);
            Assert.That(expected[tokens[row]], Is.EqualTo(expected.Max()).Within(1e-5));
        }
    }

    [Test]
    public void Diverged_weights_are_an_error_and_not_a_token()
    {
        var c = new HeadCase(2, 16, 30, NormKind.RootMeanSquare, ElementType.Float32, 12);
        c.X[20] = float.NaN;
        using var device = new Device();
        var (head, x) = c.On(device);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(() => Sample(device, head, x, [new SampleRow(1, 1f, 0, 1f, 1, 2, 3, 4)]), Throws.InvalidOperationException.With.Message.Contains("learning rate"));
            Assert.That(() => LogProb(device, head, x, [new LogProbRow(1, 3, 1f)], []), Throws.InvalidOperationException.With.Message.Contains("learning rate"));
            Assert.That(() => Sample(device, head, x, [new SampleRow(0, 1f, 0, 1f, 1, 2, 3, 4)]), Throws.Nothing);
        }
    }

    [Test]
    public void Rows_and_tokens_out_of_range_are_refused()
    {
        var c = new HeadCase(2, 16, 30, NormKind.RootMeanSquare, ElementType.Float32, 13);
        using var device = new Device();
        var (head, x) = c.On(device);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(() => LogProb(device, head, x, [new LogProbRow(2, 0, 1f)], []), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => LogProb(device, head, x, [new LogProbRow(0, 30, 1f)], []), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => LogProb(device, head, x, [new LogProbRow(0, -1, 1f)], []), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => LogProb(device, head, x, [new LogProbRow(0, 0, 1f)], [30]), Throws.InstanceOf<ArgumentException>());
            Assert.That(() => Sample(device, head, x, [new SampleRow(-1, 1f, 0, 1f, 1, 2, 3, 4)]), Throws.InstanceOf<ArgumentException>());
        }
    }

    [Test]
    public void Nothing_is_allocated_in_the_steady_state()
    {
        var c = new HeadCase(20, 32, 300, NormKind.RootMeanSquare, ElementType.BFloat16, 14);
        using var device = new Device();
        var (head, x) = c.On(device);
        var (targets, samples, dLogProb, dx) = (device.Put(RandomRows(c, 120)), device.Put(SampleRows(c, 120)), device.New<float>(120), device.New(c.Rows, c.Hidden));
        var result = new HeadResult(device.New<int>(120), device.New<float>(120), device.New<float>(120), device.New<float>(120), device.New(120, 2));
        var options = device.Put([1, 2]);
        Pass();
        var before = GC.GetAllocatedBytesForCurrentThread();
        Pass();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);

        void Pass()
        {
            device.Backend.Sample(x, head, samples, result);
            device.Backend.LogProb(x, head, targets, options, result);
            device.Backend.LogProbBackward(x, head, targets, result.LogSumExp, dLogProb, dx);
        }
    }

    private static LogProbRow[] RandomRows(HeadCase c, int count)
    {
        var random = new Random(count);
        return [.. Enumerable.Range(0, count).Select(r => new LogProbRow(random.Next(c.Rows), random.Next(c.Vocabulary), r % 3 == 0 ? 1f : 0.5f + random.NextSingle()))];
    }

    private static SampleRow[] SampleRows(HeadCase c, int count)
    {
        var random = new Random(count);
        return [.. Enumerable.Range(0, count).Select(r => new SampleRow(random.Next(c.Rows), (r % 4) * 0.5f, r % 5 == 0 ? 20 : 0, r % 7 == 0 ? 0.7f : 1f, 5, 6, (uint)random.Next(8), (uint)random.Next(30)))];
    }

    private static (float[] LogProb, float[] Entropy, float[] LogSumExp, float[] Options) LogProb(Device device, HeadWeights head, Tensor x, LogProbRow[] rows, int[] options)
    {
        var result = new HeadResult(
            default, device.New<float>(rows.Length), device.New<float>(rows.Length), device.New<float>(rows.Length), options.Length == 0 ? default : device.New(rows.Length, options.Length));
        device.Backend.LogProb(x, head, device.Put(rows), options.Length == 0 ? default : device.Put(options), result);
        return (device.Get(result.LogProb), device.Get(result.Entropy), device.Get(result.LogSumExp), options.Length == 0 ? [] : device.Get(result.Options));
    }

    private static (int[] Token, float[] LogProb, float[] Entropy) Sample(Device device, HeadWeights head, Tensor x, SampleRow[] rows)
    {
        var result = new HeadResult(device.New<int>(rows.Length), device.New<float>(rows.Length), device.New<float>(rows.Length), default, default);
        device.Backend.Sample(x, head, device.Put(rows), result);
        return (device.Get(result.Token), device.Get(result.LogProb), device.Get(result.Entropy));
    }

    private static float[] Gradient(Device device, HeadWeights head, Tensor x, LogProbRow[] rows, float[] dLogProb)
    {
        var (_, _, logSumExp, _) = LogProb(device, head, x, rows, []);
        var dx = device.Put([.. Enumerable.Repeat(7f, checked((int)x.Length))], x.Rows);
        device.Backend.LogProbBackward(x, head, device.Put(rows), device.Put(logSumExp), device.Put(dLogProb), dx);
        return device.Get(dx);
    }
}
