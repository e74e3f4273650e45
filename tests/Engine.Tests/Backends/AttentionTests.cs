using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

internal sealed class AttentionTests
{
    private static IEnumerable<TestCaseData> Cases()
    {
        yield return Named("prefill", new AttentionCase(1, 128, 3, 1).Prefill(100, 100).Prefill(1, 1).Prefill(64, 64));
        yield return Named("prefill goes on", new AttentionCase(2, 16, 2, 2).Prefill(200, 70).Prefill(65, 1).Prefill(130, 66));
        yield return Named("decode", new AttentionCase(2, 32, 7, 3).Group(90, false, (1, 1), (65, 1), (30, 1)).Group(64, false, (64, 1)));
        yield return Named("packed", new AttentionCase(1, 128, 3, 4).Group(70, true, (31, 31), (1, 1), (12, 12), (80, 80)).Group(5, true, (3, 3)));
        yield return Named("packed, several heads", new AttentionCase(4, 64, 1, 5).Group(20, true, (7, 7), (9, 9)).Prefill(10, 10).Group(3, false, (2, 2)));
        yield return Named("vision", new AttentionCase(4, 80, 1, 6).Full(100).Full(4).Full(36));
        yield return Named("odd sizes", new AttentionCase(3, 24, 5, 7).Group(63, true, (2, 2), (66, 5)).Full(65).Prefill(129, 3));
        yield return Named("one row", new AttentionCase(1, 8, 1, 8).Prefill(1, 1));

        static TestCaseData Named(string name, AttentionCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    private static IEnumerable<TestCaseData> SmallCases()
    {
        yield return Named("prefill", new AttentionCase(2, 8, 3, 11).Prefill(5, 5).Prefill(70, 4));
        yield return Named("packed", new AttentionCase(1, 16, 2, 12).Group(6, true, (3, 3), (1, 1), (2, 2)).Group(2, true, (1, 1)));
        yield return Named("two tiles", new AttentionCase(1, 8, 2, 13).Group(34, true, (3, 3), (2, 2)));
        yield return Named("vision", new AttentionCase(2, 24, 1, 14).Full(9).Full(4));

        static TestCaseData Named(string name, AttentionCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Cases))]
    public void Attention_equals_the_oracle(AttentionCase c)
    {
        using var device = new Device();
        var operands = c.On(device);
        operands.Attend(device);
        var (o, logSumExp) = AttentionOracle.Attend(c, Reference.Widen(c.Q), Reference.Widen(c.Kv));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(device.Get(operands.O), Is.EqualTo(o).Within(5e-6));
            Assert.That(device.Get(operands.LogSumExp), Is.EqualTo(logSumExp).Within(5e-6));
        }
    }

    [TestCaseSource(nameof(SmallCases))]
    public void Gradients_equal_finite_differences_of_the_oracle(AttentionCase c)
    {
        using var device = new Device();
        var operands = c.On(device);
        operands.Attend(device);
        var random = new Random(c.Rows);
        var dO = Reference.Normal(random, c.Rows * c.Columns, 1f);
        var (dq, dKv) = Backward(device, c, operands, dO);

        var (q, kv) = (Reference.Widen(c.Q), Reference.Widen(c.Kv));
        var visible = Visible(c);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.GradientError(moved => Loss(AttentionOracle.Attend(c, moved, kv).O), q, dq, null, random), Is.LessThan(2e-6), "dq");
            Assert.That(Reference.GradientError(moved => Loss(AttentionOracle.Attend(c, q, moved).O), kv, dKv, [.. visible], random), Is.LessThan(2e-6), "dkv");
        }

        double Loss(double[] o) => o.Zip(dO).Sum(pair => pair.First * pair.Second);
    }

    [TestCaseSource(nameof(Cases))]
    public void Gradients_are_finite_and_zero_for_keys_that_no_row_saw(AttentionCase c)
    {
        using var device = new Device();
        var operands = c.On(device);
        operands.Attend(device);
        var (dq, dKv) = Backward(device, c, operands, Reference.Normal(new Random(1), c.Rows * c.Columns, 1f));
        var (visible, named) = (Visible(c), c.Blocks.ToHashSet());
        var blockColumns = KvLayer.BlockColumns(c.Heads, c.HeadDim);
        var wrong = Enumerable.Range(0, dKv.Length).Count(i => visible.Contains(i) ? !float.IsFinite(dKv[i]) : dKv[i] != (named.Contains(i / blockColumns) ? 0f : 9f));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(dq, Has.All.Matches<float>(float.IsFinite));
            Assert.That(wrong, Is.Zero, "a block that the work list does not name is left alone");
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void A_row_alone_is_equal_to_the_last_bit_to_the_same_row_in_a_pass(AttentionCase c)
    {
        using var device = new Device();
        var operands = c.On(device);
        operands.Attend(device);
        var (o, logSumExp) = (device.Get(operands.O), device.Get(operands.LogSumExp));

        // All rows decoded side by side in another order, and some of them quite alone.
        var random = new Random(3);
        var rows = Enumerable.Range(0, c.Rows).ToArray();
        random.Shuffle(rows);
        AssertSame(rows);
        foreach (var row in rows.Take(10))
        {
            AssertSame([row]);
        }

        void AssertSame(int[] only)
        {
            var alone = c.Only(only).On(device);
            alone.Attend(device);
            var (aloneO, aloneSum) = (device.Get(alone.O), device.Get(alone.LogSumExp));
            var heads = c.Heads * c.PerHead;
            for (var r = 0; r < only.Length; r++)
            {
                Assert.That(aloneO.AsSpan(r * c.Columns, c.Columns).SequenceEqual(o.AsSpan(only[r] * c.Columns, c.Columns)), $"o of row {only[r]}");
                Assert.That(aloneSum.AsSpan(r * heads, heads).SequenceEqual(logSumExp.AsSpan(only[r] * heads, heads)), $"log-sum-exp of row {only[r]}");
            }
        }
    }

    [Test]
    public void Random_groups_decode_as_they_are_scored([Range(0, 19)] int seed)
    {
        var random = new Random(seed);
        var c = new AttentionCase(random.Next(1, 3), 8 * random.Next(1, 17), random.Next(1, 8), seed, 96);
        for (var group = random.Next(1, 4); group > 0; group--)
        {
            c.Group(random.Next(1, 200), random.Next(2) == 0, [.. Enumerable.Range(0, random.Next(1, 9)).Select(_ => random.Next(1, 80)).Select(n => (n, n))]);
        }

        A_row_alone_is_equal_to_the_last_bit_to_the_same_row_in_a_pass(c);
    }

    [TestCaseSource(nameof(Cases))]
    public void Results_do_not_depend_on_the_number_of_threads(AttentionCase c)
    {
        var dO = Reference.Normal(new Random(1), c.Rows * c.Columns, 1f);
        var results = new List<float[]>();
        foreach (var threads in new[] { 1, 2, 3 })
        {
            using var device = new Device(threads);
            var operands = c.On(device);
            operands.Attend(device);
            var (dq, dKv) = Backward(device, c, operands, dO);
            results.Add([.. device.Get(operands.O), .. device.Get(operands.LogSumExp), .. dq, .. dKv]);
        }

        Assert.That(results[0].AsSpan().SequenceEqual(results[1]) && results[0].AsSpan().SequenceEqual(results[2]));
    }

    [Test]
    public void Scores_far_apart_neither_overflow_nor_lose_the_largest()
    {
        using var device = new Device();
        var c = new AttentionCase(1, 16, 2, 21).Group(70, true, (66, 66));
        for (var i = 0; i < c.Q.Count; i++)
        {
            c.Q[i] *= 400;
        }

        var operands = c.On(device);
        operands.Attend(device);
        var (o, logSumExp) = AttentionOracle.Attend(c, Reference.Widen(c.Q), Reference.Widen(c.Kv));
        var (dq, dKv) = Backward(device, c, operands, Reference.Normal(new Random(1), c.Rows * c.Columns, 1f));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(device.Get(operands.O), Is.EqualTo(o).Within(2e-3));
            Assert.That(device.Get(operands.LogSumExp), Is.EqualTo(logSumExp).Within(1e-6).Percent.Or.EqualTo(logSumExp).Within(2e-3));
            Assert.That(dq.Concat(dKv), Has.All.Matches<float>(float.IsFinite));
        }
    }

    [Test]
    public void Nothing_is_allocated_in_the_steady_state()
    {
        using var device = new Device();
        var c = new AttentionCase(1, 128, 3, 4).Group(70, true, (31, 31), (80, 80)).Group(5, true, (3, 3));
        var operands = c.On(device);
        var (dq, dKv, dO) = (device.New(c.Rows, c.Columns), device.New(c.MaxBlocks, operands.Kv.Data.Columns), device.New(c.Rows, c.Columns));
        Pass();
        var before = GC.GetAllocatedBytesForCurrentThread();
        Pass();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);

        void Pass()
        {
            operands.Attend(device);
            device.Backend.AttendBackward(operands.Q, operands.Kv, operands.Work, operands.O, operands.LogSumExp, dO, dq, operands.Kv with { Data = dKv });
        }
    }

    private static (float[] Dq, float[] DKv) Backward(Device device, AttentionCase c, AttentionOperands operands, float[] dO)
    {
        // What is there before must not matter: the sums start from zero.
        var garbage = new float[c.MaxBlocks * operands.Kv.Data.Columns];
        Array.Fill(garbage, 9f);
        var (dq, dKv) = (device.Put([.. dO.Select(_ => 9f)], c.Rows), device.Put(garbage, c.MaxBlocks));
        device.Backend.AttendBackward(operands.Q, operands.Kv, operands.Work, operands.O, operands.LogSumExp, device.Put(dO, c.Rows), dq, operands.Kv with { Data = dKv });
        return (device.Get(dq), device.Get(dKv));
    }

    private static HashSet<int> Visible(AttentionCase c)
    {
        var visible = new HashSet<int>();
        foreach (var item in c.Items)
        {
            for (var key = 0; key < item.Keys; key++)
            {
                for (var head = 0; head < c.Heads; head++)
                {
                    for (var i = 0; i < c.HeadDim; i++)
                    {
                        visible.Add(c.KeyAt(item, key, head) + i);
                        visible.Add(c.KeyAt(item, key, head) + c.ValueOffset + i);
                    }
                }
            }
        }

        return visible;
    }
}
