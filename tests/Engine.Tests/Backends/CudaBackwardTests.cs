using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>The chain rule on the GPU against the CPU's, which is held to finite differences of the oracles, from the same operands rounded to bfloat16.</summary>
[Category("Cuda")]
internal sealed class CudaBackwardTests : GpuAgainstCpu
{
    /// <summary>‖difference‖ / ‖CPU's‖ of sums whose terms were rounded to eight bits two or three times on the way.</summary>
    private const double Bound = 1e-2;

    [TestCase(1, 256, 512)]
    [TestCase(100, 384, 1536)]
    [TestCase(5130, 64, 128)]
    public void Feed_forward(int rows, int hidden, int inner)
    {
        var c = new FeedForwardCase(rows, hidden, inner, FeedForwardKind.GatedSilu, ElementType.BFloat16, 5);
        var dy = Reference.Normal(new Random(rows), rows * hidden, 1f);
        AssertClose("dx", [.. Run(Gpu)], [.. Run(Cpu)]);

        // Less dy, which would hide the rest.
        IEnumerable<float> Run(Device device)
        {
            var weights = c.On(device);
            var (x, place) = (device.Put(Rounded(c.X), rows), device.Put(dy, rows, ElementType.Float32));
            var saved = device.New(rows, weights.SavedColumns);
            device.Backend.FeedForward(x, weights, device.New(rows, hidden), saved);
            device.Backend.FeedForwardBackward(x, weights, saved, place, place);
            return device.Get(place).Zip(dy, (a, b) => a - b);
        }
    }

    [TestCase(1, 384, 256)]
    [TestCase(77, 896, 384)]
    public void Attention_output(int rows, int inputs, int outputs)
    {
        var random = new Random(rows);
        var weights = new LinearCase(random, inputs, outputs, ElementType.BFloat16, bias: false);
        var dy = Reference.Normal(random, rows * outputs, 1f);
        AssertClose("do", Run(Gpu), Run(Cpu));

        float[] Run(Device device)
        {
            var dO = device.New(rows, inputs);
            device.Backend.ProjectOutBackward(device.Put(dy, rows, ElementType.Float32), weights.On(device), dO);
            return device.Get(dO);
        }
    }

    [TestCase(1, 256, 2, 1, 4, 0f)]
    [TestCase(70, 384, 1, 3, 4, 0.3f)]
    [TestCase(33, 1032, 2, 2, 6, 0.05f)]
    [TestCase(300, 3584, 4, 7, 4, 0.1f)]
    [TestCase(40, 384, 1, 3, 0, 0f)]
    public void Queries_keys_and_values(int rows, int hidden, int heads, int perHead, int rank, float dropout)
    {
        var c = new QkvCase(rows, hidden, heads, perHead, 128, rank, dropout, ElementType.BFloat16, 3) { KeepMask = rows % 2 == 0 };
        var random = new Random(rows);
        var (dq, dy) = (Rounded(Reference.Normal(random, rows * c.Queries, 1f)), Reference.Normal(random, rows * hidden, 1f));
        var dKv = Reference.Normal(random, c.Blocks * KvLayer.BlockColumns(heads, 128), 1f);
        var before = c.Factors.Select(factor => Reference.Normal(random, factor.Length, 1f)).ToArray();
        var (gpu, cpu) = (Run(Gpu), Run(Cpu));
        using (Assert.EnterMultipleScope())
        {
            foreach (var (name, ours, theirs) in new[] { "dx", "A·x", "query A", "query B", "value A", "value B" }.Zip(gpu, cpu))
            {
                AssertClose(name, ours, theirs);
            }

            foreach (var (name, ours, again) in new[] { "dx", "A·x", "query A", "query B", "value A", "value B" }.Zip(gpu, Run(Gpu)))
            {
                Matrix.AssertSame(ours, again, name + " once more");
            }
        }

        // Less what was there before.
        float[][] Run(Device device)
        {
            var operands = c.On(device) with { X = device.Put(Rounded(c.X), rows) };
            operands.Forward(device);
            var (place, gradient) = (device.Put(dy, rows, ElementType.Float32), c.Adapter(device, before));
            operands.Backward(device, device.Put(dq, rows), device.Put(dKv, c.Blocks, ElementType.Float32), place, place, gradient);
            var dx = Difference(device.Get(place), dy);
            return gradient is null
                ? [dx]
                : [dx, device.Get(operands.LowRank), .. new[] { gradient.Query.A, gradient.Query.B, gradient.Value.A, gradient.Value.B }.Zip(before, (factor, old) => Difference(device.Get(factor), old))];
        }
    }

    // More rows than fit at once, the same ones again and again, as a prompt's last row is.
    [TestCase(20, 384, 3072, 1500)]
    [TestCase(3, 64, 152064, 9)]
    [TestCase(1, 3584, 512, 1)]
    public void Log_probs(int rows, int hidden, int vocabulary, int listed)
    {
        var c = new HeadCase(rows, hidden, vocabulary, NormKind.RootMeanSquare, ElementType.BFloat16, 1);
        var random = new Random(rows);
        var targets = Enumerable.Range(0, listed).Select(r => new LogProbRow(r % 3 == 0 ? 0 : random.Next(rows), random.Next(vocabulary), 0.5f + (r % 3 * 0.5f))).ToArray();
        var dLogProb = Reference.Normal(random, listed, 1f);
        AssertClose("dx", Run(Gpu), Run(Cpu));

        float[] Run(Device device)
        {
            var (head, _) = c.On(device);
            var (x, list, dx) = (device.Put(Rounded(c.X), rows), device.Put(targets), device.Put(Reference.Normal(random, rows * hidden, 1f), rows, ElementType.Float32));
            var result = new HeadResult(default, device.New<float>(listed), device.New<float>(listed), device.New<float>(listed), default);
            device.Backend.LogProb(x, head, list, default, result);
            device.Backend.LogProbBackward(x, head, list, result.LogSumExp, device.Put(dLogProb), dx);
            return device.Get(dx);
        }
    }

    private static float[] Rounded(float[] values) => Matrix.Rounded(values, ElementType.BFloat16);

    private static float[] Difference(float[] values, float[] from) => [.. values.Zip(from, (a, b) => a - b)];

    private static void AssertClose(string what, float[] gpu, float[] cpu)
    {
        var error = Reference.RelativeError(gpu, Reference.Widen(cpu));
        TestContext.Out.WriteLine($"{what}: {error:P3}");
        Assert.That(error, Is.LessThan(Bound), what);
    }
}
