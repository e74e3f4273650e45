using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Learn;

namespace LrIad.Engine.Tests.Learn.Torch;

/// <summary>Loss, gradient, KL and clip counts of the GRPO family.</summary>
internal sealed class ObjectiveTests
{
    private static readonly string[] LossTypes = ["grpo", "dr_grpo", "dapo", "gspo"];

    [Test]
    public void Equals_the_formula_in_double([ValueSource(nameof(LossTypes))] string lossType, [Values(0, 0.04)] double beta, [Values("reference", "old")] string klTo, [Values] bool withOld)
    {
        var options = new ObjectiveOptions { LossType = lossType, Beta = beta, KlTo = klTo, EpsilonLow = 0.15, EpsilonHigh = 0.25 };
        for (var seed = 0; seed < 5; seed++)
        {
            var batch = RandomBatch(seed, withOld);
            var naive = new NaiveObjective(batch, options);
            var result = Evaluate(options, batch);
            using (Assert.EnterMultipleScope())
            {
                Assert.That(result.Loss, Is.EqualTo(naive.Loss(naive.LogProb)).Within(1e-6), $"loss, seed {seed}");
                Assert.That(result.Gradient.Select(value => (double)value), Is.EqualTo(naive.Gradient()).Within(1e-6), $"gradient, seed {seed}");
                Assert.That(result.KlSum, Is.EqualTo(naive.KlSum).Within(1e-5), $"k3, seed {seed}");
                Assert.That(result.ClippedTokens, Is.EqualTo(naive.ClippedTokens), $"clipped tokens, seed {seed}");
            }
        }
    }

    [TestCaseSource(nameof(LossTypes))]
    public void Micro_batches_add_up_to_the_batch(string lossType)
    {
        var options = new ObjectiveOptions { LossType = lossType };
        var batch = RandomBatch(11, withOld: true);
        var whole = Evaluate(options, batch);
        var parts = new[] { (0, 1), (1, 2), (3, batch.Advantage.Length - 3) }.Select(range => Evaluate(options, Part(batch, range.Item1, range.Item2))).ToArray();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(parts.Sum(part => part.Loss), Is.EqualTo(whole.Loss).Within(1e-6));
            Assert.That(parts.Sum(part => part.KlSum), Is.EqualTo(whole.KlSum).Within(1e-6));
            Assert.That(parts.Sum(part => part.ClippedTokens), Is.EqualTo(whole.ClippedTokens));
            Assert.That(parts.SelectMany(part => part.Gradient), Is.EqualTo(whole.Gradient).Within(1e-8f));
        }
    }

    [TestCase("grpo", 1.0 / 2 / 3)]
    [TestCase("gspo", 1.0 / 2 / 3)]
    [TestCase("dr_grpo", 1.0 / 10 / 3)]
    [TestCase("dapo", 1.0 / 7)]
    public void First_update_follows_the_advantage(string lossType, double weight)
    {
        // Two of the batch's seven tokens, one of its three completions: a good one, so its log-probs are to rise.
        var batch = new ObjectiveBatch { LogProb = [-1, -2], Start = [0, 2], Advantage = [1.5f], BatchCompletions = 3, BatchTokens = 7, MaxCompletionLength = 10 };
        var result = Evaluate(new ObjectiveOptions { LossType = lossType, Beta = 0 }, batch);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(result.Gradient, Is.EqualTo(new[] { -1.5 * weight, -1.5 * weight }).Within(1e-7));
            Assert.That(result.Loss, Is.EqualTo(-3 * weight).Within(1e-6));
            Assert.That(result.ClippedTokens, Is.Zero);
        }
    }

    // Ratio, advantage; loss and its gradient with clip bounds 0.8 and 1.3.
    [TestCase(1.5, 2.0, -2.6, 0.0, 1)]
    [TestCase(1.25, 2.0, -2.5, -2.5, 0)]
    [TestCase(0.5, 2.0, -1.0, -1.0, 0)]
    [TestCase(0.5, -2.0, 1.6, 0.0, 1)]
    [TestCase(1.5, -2.0, 3.0, 3.0, 0)]
    [TestCase(1.5, 0.0, 0.0, 0.0, 0)]
    public void Clipping_only_ever_takes_gain_away(double ratio, double advantage, double loss, double gradient, int clipped)
    {
        var batch = new ObjectiveBatch
        {
            LogProb = [-1],
            OldLogProb = [(float)(-1 - Math.Log(ratio))],
            Start = [0, 1],
            Advantage = [(float)advantage],
            BatchCompletions = 1,
            BatchTokens = 1,
            MaxCompletionLength = 1,
        };
        foreach (var lossType in LossTypes)
        {
            var result = Evaluate(new ObjectiveOptions { LossType = lossType, Beta = 0, EpsilonHigh = 0.3 }, batch);
            using (Assert.EnterMultipleScope())
            {
                Assert.That(result.Loss, Is.EqualTo(loss).Within(1e-5), lossType);
                Assert.That(result.Gradient[0], Is.EqualTo(gradient).Within(1e-5), lossType);
                Assert.That(result.ClippedTokens, Is.EqualTo(clipped), lossType);
            }
        }
    }

    [Test]
    public void Small_divergences_are_not_lost_to_rounding()
    {
        const float difference = 1f / 4096;
        var batch = new ObjectiveBatch
        {
            LogProb = [-1, -1],
            ReferenceLogProb = [-1 + difference, -1 - difference],
            Start = [0, 2],
            Advantage = [0],
            BatchCompletions = 1,
            BatchTokens = 2,
            MaxCompletionLength = 2,
        };
        var expected = new[] { difference, -difference }.Sum(d => Math.Exp(d) - d - 1);
        Assert.That(Evaluate(new ObjectiveOptions(), batch).KlSum, Is.EqualTo(expected).Within(1).Percent);
    }

    [TestCaseSource(nameof(LossTypes))]
    public void Empty_completions_count_but_say_nothing(string lossType)
    {
        var options = new ObjectiveOptions { LossType = lossType };
        var batch = new ObjectiveBatch
        {
            LogProb = [-1, -2],
            ReferenceLogProb = [-1.5f, -1.5f],
            Start = [0, 0, 2, 2],
            Advantage = [1, -1, 2],
            BatchCompletions = 3,
            BatchTokens = 2,
            MaxCompletionLength = 4,
        };
        var alone = batch with { Start = [0, 2], Advantage = [-1] };
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Evaluate(options, batch).Gradient, Is.EqualTo(Evaluate(options, alone).Gradient));
            Assert.That(Evaluate(options, batch).Loss, Is.EqualTo(Evaluate(options, alone).Loss));
        }
    }

    [TestCaseSource(nameof(LossTypes))]
    public void Nothing_but_empty_completions_is_no_loss(string lossType)
    {
        var batch = new ObjectiveBatch { LogProb = [], ReferenceLogProb = [], Start = [0, 0], Advantage = [1], BatchCompletions = 1, BatchTokens = 0, MaxCompletionLength = 4 };
        var result = Evaluate(new ObjectiveOptions { LossType = lossType }, batch);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(result.Gradient, Is.Empty);
            Assert.That((result.Loss, result.KlSum, result.ClippedTokens), Is.EqualTo((0.0, 0.0, 0)));
        }
    }

    [Test]
    public void Unknown_loss_type_is_refused_with_what_there_is()
    {
        var batch = RandomBatch(1, withOld: false);
        Assert.That(() => Evaluate(new ObjectiveOptions { LossType = "ppo" }, batch), Throws.TypeOf<InputException>().With.Message.Contains("grpo, dr_grpo, dapo or gspo"));
    }

    private static ObjectiveResult Evaluate(ObjectiveOptions options, ObjectiveBatch batch)
    {
        using var learner = PolicyLearner.Create(new AdapterShape(1, 1, 1, 1, 1), new LoraOptions(), options, new OptimizerOptions(), 0);
        return learner.Objective(batch);
    }

    private static ObjectiveBatch RandomBatch(int seed, bool withOld)
    {
        var random = new Random(seed);
        int[] lengths = [.. Enumerable.Range(0, 7).Select(_ => random.Next(1, 9))];
        int[] start = [0, .. lengths.Select((_, c) => lengths[..(c + 1)].Sum())];
        float[] Near(float[] values, double spread) => [.. values.Select(value => value + (float)((random.NextDouble() - 0.5) * spread))];
        float[] logProb = [.. Enumerable.Range(0, start[^1]).Select(_ => (float)Math.Log(1 - random.NextDouble()))];
        return new ObjectiveBatch
        {
            LogProb = logProb,
            OldLogProb = withOld ? Near(logProb, 1) : null,
            ReferenceLogProb = Near(logProb, 1.5),
            Start = start,
            Advantage = [.. lengths.Select((_, c) => c == 2 ? 0 : (float)((random.NextDouble() - 0.5) * 4))],
            BatchCompletions = lengths.Length + 2,
            BatchTokens = start[^1] + 5,
            MaxCompletionLength = 12,
        };
    }

    private static ObjectiveBatch Part(ObjectiveBatch batch, int first, int count)
    {
        var (from, to) = (batch.Start[first], batch.Start[first + count]);
        return batch with
        {
            LogProb = batch.LogProb[from..to],
            OldLogProb = batch.OldLogProb![from..to],
            ReferenceLogProb = batch.ReferenceLogProb![from..to],
            Start = [.. batch.Start[first..(first + count + 1)].Select(start => start - from)],
            Advantage = batch.Advantage[first..(first + count)],
        };
    }
}
