using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

internal sealed class QkvTests
{
    private static IEnumerable<TestCaseData> Cases()
    {
        yield return Named("decoder, adapter, dropout", new QkvCase(21, 96, 1, 3, 32, 8, 0.25f, ElementType.BFloat16, 1));
        yield return Named("decoder, adapter", new QkvCase(70, 48, 2, 2, 16, 4, 0f, ElementType.BFloat16, 2));
        yield return Named("no adapter", new QkvCase(9, 384, 1, 3, 128, 0, 0f, ElementType.BFloat16, 3));
        yield return Named("vision", new QkvCase(40, 40, 4, 1, 24, 0, 0f, ElementType.BFloat16, 4, NormKind.Layer));
        yield return Named("odd sizes", new QkvCase(19, 37, 3, 1, 14, 3, 0.5f, ElementType.Float32, 5));
        yield return Named("smallest", new QkvCase(1, 3, 1, 1, 2, 1, 0.1f, ElementType.Float32, 6));

        static TestCaseData Named(string name, QkvCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Cases))]
    public void Queries_keys_and_values_equal_the_oracle(QkvCase c)
    {
        using var device = new Device();
        var operands = c.On(device);
        operands.Forward(device);
        var (q, k, v, lowRank) = c.Oracle(Reference.Widen(c.X), [.. c.Factors.Select(Reference.Widen)]);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(device.Get(operands.Q), Is.EqualTo(q).Within(1e-5), "q");
            Assert.That(device.Get(operands.Kv.Data), Is.EqualTo(c.InSlots(Narrow(k), Narrow(v), [.. Enumerable.Range(0, c.RowCount)])).Within(1e-5f), "k and v in their slots, others left alone");
            Assert.That(operands.LowRank.IsEmpty ? [] : device.Get(operands.LowRank), Is.EqualTo(lowRank).Within(1e-5), "low rank");
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void Gradients_equal_finite_differences_of_the_oracle(QkvCase c)
    {
        var random = new Random(c.Hidden);
        var d = new Gradients(c, random);
        var (dx, factors) = d.Run(2, [.. Enumerable.Range(0, c.RowCount)]);
        var (at, values) = (Reference.Widen(c.X), c.Factors.Select(Reference.Widen).ToArray());
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.GradientError(moved => d.Loss(moved, values), at, dx, null, random, 12), Is.LessThan(3e-6), "dx");
            for (var i = 0; i < values.Length; i++)
            {
                Assert.That(
                    Reference.GradientError(moved => d.Loss(at, [.. values.Select((factor, j) => j == i ? moved : factor)]), values[i], factors[i], null, random, 12), Is.LessThan(3e-6), $"factor {i}");
            }
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void A_row_comes_out_the_same_in_any_company_and_with_any_number_of_threads(QkvCase c)
    {
        var d = new Gradients(c, new Random(1));
        int[] all = [.. Enumerable.Range(0, c.RowCount)];
        var (q, k, v, lowRank) = Forward(1, all);
        var (dx, factors) = d.Run(1, all);
        foreach (var threads in new[] { 2, 3 })
        {
            AssertSame(threads, [c.RowCount - 1]);
            AssertSame(threads, [.. all.Reverse().Where(row => row % 4 != 1)]);
            AssertSame(threads, all);
            Assert.That(d.Run(threads, all).Factors, Is.EqualTo(factors), "factor gradients");
        }

        void AssertSame(int threads, int[] rows)
        {
            var some = Forward(threads, rows);
            Matrix.AssertSame(some.Q, Matrix.Rows(q, c.Queries, rows), "q");
            Matrix.AssertSame(some.K, Matrix.Rows(k, c.Keys, rows), "k");
            Matrix.AssertSame(some.V, Matrix.Rows(v, c.Keys, rows), "v");
            Matrix.AssertSame(some.LowRank, Matrix.Rows(lowRank, 2 * c.Rank, rows), "low rank");
            Matrix.AssertSame(d.Run(threads, rows).Dx, Matrix.Rows(dx, c.Hidden, rows), "dx");
        }

        (float[] Q, float[] K, float[] V, float[] LowRank) Forward(int threads, int[] rows)
        {
            using var device = new Device(threads);
            var operands = c.On(device, rows);
            operands.Forward(device);
            var (k, v) = FromSlots(c, device.Get(operands.Kv.Data), rows);
            return (device.Get(operands.Q), k, v, c.Rank > 0 ? device.Get(operands.LowRank) : []);
        }
    }

    [Test]
    public void A_row_with_its_adapter_off_is_to_the_last_bit_the_base_model()
    {
        using var device = new Device();
        var c = new QkvCase(31, 96, 1, 3, 32, 8, 0.25f, ElementType.BFloat16, 7);
        var (with, without) = (c.On(device), c.On(device) with { Adapter = null });
        with.Forward(device);
        without.Forward(device);
        var (q, baseQ) = (device.Get(with.Q), device.Get(without.Q));
        var off = Enumerable.Range(0, c.RowCount).Where(row => c.Rows[row].Adapter == 0).ToArray();
        Matrix.AssertSame(Matrix.Rows(q, c.Queries, off), Matrix.Rows(baseQ, c.Queries, off), "q");
        Assert.That(Matrix.Rows(q, c.Queries, Enumerable.Range(0, c.RowCount).Except(off)), Is.Not.EqualTo(Matrix.Rows(baseQ, c.Queries, Enumerable.Range(0, c.RowCount).Except(off))));
    }

    [Test]
    public void Dropout_is_drawn_again_alike_and_differs_between_steps_layers_and_rows()
    {
        var c = new QkvCase(2, 64, 1, 1, 8, 64, 0.5f, ElementType.Float32, 8);
        var low = LowRank(c.Dropout);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(LowRank(c.Dropout), Is.EqualTo(low));
            Assert.That(LowRank(c.Dropout with { Step = c.Dropout.Step + 1 }), Is.Not.EqualTo(low));
            Assert.That(LowRank(c.Dropout with { Layer = c.Dropout.Layer + 1 }), Is.Not.EqualTo(low));
            Assert.That(LowRank(c.Dropout with { Seed = c.Dropout.Seed + 1 }), Is.Not.EqualTo(low));
        }

        float[] LowRank(Dropout dropout)
        {
            using var device = new Device();
            var operands = c.On(device) with { Dropout = dropout };
            operands.Forward(device);
            return device.Get(operands.LowRank);
        }
    }

    [Test]
    public void The_gradient_of_x_may_overwrite_dy_and_factor_gradients_add_up()
    {
        using var device = new Device();
        var c = new QkvCase(21, 96, 1, 3, 32, 8, 0.25f, ElementType.BFloat16, 1);
        var d = new Gradients(c, new Random(2));
        var (dx, factors) = d.Run(2, [.. Enumerable.Range(0, c.RowCount)]);
        var operands = c.On(device);
        operands.Forward(device);
        var (place, dq, dKv) = (device.Put(d.Dy, c.RowCount), device.Put(d.Dq, c.RowCount), device.Put(c.InSlots(d.Dk, d.Dv, [.. Enumerable.Range(0, c.RowCount)]), c.Blocks));
        var gradient = c.Adapter(device, [.. c.Factors.Select(factor => Enumerable.Repeat(0.5f, factor.Length).ToArray())])!;
        operands.Backward(device, dq, dKv, place, place, gradient);
        Matrix.AssertSame(device.Get(place), dx, "dx");
        Tensor[] sums = [gradient.Query.A, gradient.Query.B, gradient.Value.A, gradient.Value.B];
        for (var i = 0; i < sums.Length; i++)
        {
            var sum = device.Get(sums[i]);
            Assert.That(sum.Select(value => value - 0.5f), Is.EqualTo(factors[i]).Within(2e-5f), $"factor {i}");
        }
    }

    private static float[] Narrow(double[] values) => [.. values.Select(value => (float)value)];

    private static (float[] K, float[] V) FromSlots(QkvCase c, float[] cache, int[] rows)
    {
        var (k, v) = (new float[rows.Length * c.Keys], new float[rows.Length * c.Keys]);
        for (var i = 0; i < rows.Length; i++)
        {
            for (var head = 0; head < c.Heads; head++)
            {
                var (block, slot) = Math.DivRem(c.Rows[rows[i]].Slot, KvLayer.BlockSize);
                var at = (block * KvLayer.BlockColumns(c.Heads, c.HeadDim)) + (((head * KvLayer.BlockSize) + slot) * c.HeadDim);
                cache.AsSpan(at, c.HeadDim).CopyTo(k.AsSpan((i * c.Keys) + (head * c.HeadDim)));
                cache.AsSpan(at + (c.Heads * KvLayer.BlockSize * c.HeadDim), c.HeadDim).CopyTo(v.AsSpan((i * c.Keys) + (head * c.HeadDim)));
            }
        }

        return (k, v);
    }

    /// <summary>What comes back from above, and the way down through the operation.</summary>
    private sealed class Gradients(QkvCase c, Random random)
    {
        public float[] Dq { get; } = Reference.Normal(random, c.RowCount * c.Queries, 1f);

        public float[] Dk { get; } = Reference.Normal(random, c.RowCount * c.Keys, 1f);

        public float[] Dv { get; } = Reference.Normal(random, c.RowCount * c.Keys, 1f);

        public float[] Dy { get; } = Reference.Normal(random, c.RowCount * c.Hidden, 1f);

        public double Loss(double[] x, double[][] factors)
        {
            var (q, k, v, _) = c.Oracle(x, factors);
            return Matrix.Dot(q, Dq) + Matrix.Dot(k, Dk) + Matrix.Dot(v, Dv) + Matrix.Dot(x, Dy);
        }

        public (float[] Dx, float[][] Factors) Run(int threads, int[] rows)
        {
            using var device = new Device(threads);
            var operands = c.On(device, rows);
            operands.Forward(device);
            var gradient = c.Adapter(device, [.. c.Factors.Select(factor => new float[factor.Length])]);
            var dx = device.New(rows.Length, c.Hidden);
            operands.Backward(
                device, device.Put(Matrix.Rows(Dq, c.Queries, rows), rows.Length), device.Put(c.InSlots(Dk, Dv, rows), c.Blocks),
                device.Put(Matrix.Rows(Dy, c.Hidden, rows), rows.Length), dx, gradient);
            return (device.Get(dx), gradient is null ? [] : [device.Get(gradient.Query.A), device.Get(gradient.Query.B), device.Get(gradient.Value.A), device.Get(gradient.Value.B)]);
        }
    }
}
