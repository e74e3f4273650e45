using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Flow;

/// <summary>What training passes leave out, and what they compute twice, changes no result.</summary>
internal sealed class PolicyPassTests
{
    [Test]
    public void Rows_that_the_loss_cannot_see_change_nothing()
    {
        using var backend = new CpuBackend();
        using var c = new PassCase(backend);
        var (few, all) = (c.Train(recompute: false), c.TrainAllRows());
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Bits(few.LogProbs), Is.EqualTo(Bits(all.LogProbs)));
            Assert.That(Bits(few.Gradient), Is.EqualTo(Bits(all.Gradient)));
        }
    }

    [Test]
    public void Wanted_rows_come_out_as_among_all_others([Range(0, 4)] int seed)
    {
        var random = new Random(seed);
        using var backend = new CpuBackend();
        using var c = new PassCase(backend);
        var wanted = new List<(int First, int Count)>();
        for (var row = random.Next(30); row < c.Rows; row += random.Next(1, 60))
        {
            var count = Math.Min(random.Next(1, 60), c.Rows - row);
            wanted.Add((row, count));
            row += count;
        }

        var all = c.Results([]);
        var expected = wanted.SelectMany(run => all[run.First..(run.First + run.Count)]).SelectMany(row => row).ToArray();
        Assert.That(Bits([.. c.Results(wanted).SelectMany(row => row)]), Is.EqualTo(Bits(expected)));
    }

    [Test]
    public void Recomputed_layers_give_the_same_gradients_bit_for_bit()
    {
        using var backend = new CpuBackend();
        AssertRecomputes(backend);
    }

    [Test]
    [Category("Cuda")]
    public void On_a_GPU_too()
    {
        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        using var backend = new CudaBackend();
        AssertRecomputes(backend);
        using var c = new PassCase(backend);
        var (few, all) = (c.Train(recompute: false), c.TrainAllRows());
        using (Assert.EnterMultipleScope())
        {
            // Attention's tiles begin at other rows, and a gradient rounded to bfloat16 goes through two more layers.
            Assert.That(Reference.RelativeError(few.LogProbs, Reference.Widen(all.LogProbs)), Is.LessThan(1e-2), "log-probs");
            Assert.That(Reference.RelativeError(few.Gradient, Reference.Widen(all.Gradient)), Is.LessThan(2e-2), "gradients");
        }
    }

    private static void AssertRecomputes(Compute.Backend backend)
    {
        using var c = new PassCase(backend);
        var (kept, recomputed) = (c.Train(recompute: false), c.Train(recompute: true));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(kept.Gradient.Count(value => value != 0), Is.GreaterThan(kept.Gradient.Length / 2));
            Assert.That(Bits(recomputed.LogProbs), Is.EqualTo(Bits(kept.LogProbs)));
            Assert.That(Bits(recomputed.Gradient), Is.EqualTo(Bits(kept.Gradient)));
        }
    }

    private static int[] Bits(float[] values) => [.. values.Select(BitConverter.SingleToInt32Bits)];
}
