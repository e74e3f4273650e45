using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>The backward of attention on the GPU against the CPU's, which is held to finite differences of the oracle, from the same operands rounded to bfloat16.</summary>
[Category("Cuda")]
internal sealed class CudaAttentionBackwardTests : GpuAgainstCpu
{
    private const double Bound = 1e-2;

    private static IEnumerable<TestCaseData> Cases()
    {
        yield return Named("one row", new AttentionCase(1, 128, 1, 8).Prefill(1, 1));
        yield return Named("prefill", new AttentionCase(4, 128, 7, 1).Prefill(100, 100).Prefill(1, 1).Prefill(64, 64));
        yield return Named("prefill goes on", new AttentionCase(2, 128, 3, 2).Prefill(200, 70).Prefill(65, 1).Prefill(130, 66));
        yield return Named("groups", new AttentionCase(1, 128, 6, 4).Group(70, true, (31, 31), (1, 1), (12, 12), (80, 80)).Group(5, true, (3, 3)));
        yield return Named("many completions", new AttentionCase(2, 128, 7, 5).Group(150, true, (199, 199), (130, 130), (199, 199), (64, 64), (65, 65), (199, 199)));
        yield return Named("everything sees everything", new AttentionCase(2, 128, 2, 6).Full(100).Full(64).Full(1));

        static TestCaseData Named(string name, AttentionCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Cases))]
    public void Gradients_equal_those_of_the_CPU(AttentionCase c) => AssertGradients(c);

    [Test]
    public void Gradients_over_random_ragged_lists_equal_those_of_the_CPU([Range(0, 9)] int seed)
    {
        var random = new Random(seed);
        for (var i = 0; i < 20; i++)
        {
            var c = new AttentionCase(random.Next(1, 3), 128, random.Next(1, 9), random.Next(), 64);
            for (var group = random.Next(1, 4); group > 0; group--)
            {
                var completions = Enumerable.Range(0, random.Next(1, 6)).Select(_ => random.Next(1, 160)).Select(keys => (keys, random.Next(2) == 0 ? keys : random.Next(1, keys + 1))).ToArray();
                _ = random.Next(3) switch
                {
                    0 => c.Full(random.Next(1, 150)),
                    1 => c.Prefill(160, random.Next(1, 160)),
                    _ => c.Group(random.Next(1, 140), random.Next(2) == 0, completions),
                };
            }

            AssertGradients(c);
        }
    }

    private void AssertGradients(AttentionCase c)
    {
        for (var i = 0; i < c.Q.Count; i++)
        {
            c.Q[i] = Numbers.FromBFloat16(Numbers.ToBFloat16(c.Q[i]));
        }

        Matrix.Rounded(c.Kv, ElementType.BFloat16).CopyTo(c.Kv, 0);
        var dO = Matrix.Rounded(Reference.Normal(new Random(c.Rows), c.Rows * c.Columns, 1f), ElementType.BFloat16);
        var (dq, dKv) = Run(Gpu);
        var (again, dKvAgain) = Run(Gpu);
        var (expected, expectedKv) = Run(Cpu);
        using (Assert.EnterMultipleScope())
        {
            // A row that sees one key alone has no gradient of its query at all.
            var dqError = expected.Any(value => value != 0) ? Reference.RelativeError(dq, Reference.Widen(expected)) : dq.Max(Math.Abs);
            var dKvError = Reference.RelativeError(dKv, Reference.Widen(expectedKv));
            TestContext.Out.WriteLine($"dq {dqError:P3}, dkv {dKvError:P3}");
            Assert.That(dqError, Is.LessThan(Bound), "dq");
            Assert.That(dKvError, Is.LessThan(Bound), "dkv");
            Matrix.AssertSame(again, dq, "dq once more");
            Matrix.AssertSame(dKvAgain, dKv, "dkv once more");
        }

        (float[] Dq, float[] DKv) Run(Device device)
        {
            // Blocks that the work list does not name are left alone; what is there before in others does not matter.
            var operands = c.On(device);
            operands.Attend(device);
            var (dq, dKv) = (device.Put([.. dO.Select(_ => 9f)], c.Rows), device.Put(new float[c.MaxBlocks * operands.Kv.Data.Columns], c.MaxBlocks, ElementType.Float32));
            device.Backend.AttendBackward(operands.Q, operands.Kv, operands.Work, operands.O, operands.LogSumExp, device.Put(dO, c.Rows), dq, operands.Kv with { Data = dKv });
            return (device.Get(dq), device.Get(dKv));
        }
    }
}
