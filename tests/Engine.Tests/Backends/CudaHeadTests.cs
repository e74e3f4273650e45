using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Masked draws and the likeliest tokens on a GPU: those of the CPU, whose tests compare them with their definitions.</summary>
[Category("Cuda")]
internal sealed class CudaHeadTests
{
    private Device _device = null!;

    [OneTimeSetUp]
    public void Open()
    {
        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore($"Not run: {reason}");
        }

        _device = new Device(new CudaBackend());
    }

    [OneTimeTearDown]
    public void Close() => _device?.Dispose();

    [TestCase(1f, 0, 1f, 3072)]
    [TestCase(0f, 0, 1f, 3072)]
    [TestCase(0.7f, 0, 1f, 152064)]
    [TestCase(1.5f, 5, 1f, 3072)]
    [TestCase(1f, 0, 0.6f, 3072)]
    [TestCase(1f, 40, 0.9f, 3080)]
    [TestCase(1f, 2000, 0.99f, 3072)]
    [TestCase(0.9f, 1, 1f, 3072)]
    public void Equal_logits_give_equal_masked_draws_and_likeliest_tokens_on_both_backends(float temperature, int topK, float topP, int vocabulary)
    {
        // Rows of ±1 are their own root-mean-square norm, and sums of few multiples of 1/64 are exact in any order.
        const int rows = 6, hidden = 64, top = 20;
        var random = new Random(31);
        float[] x = [.. Enumerable.Range(0, rows * hidden).Select(_ => random.Next(2) == 0 ? 1f : -1f)];
        float[] weight = [.. Enumerable.Range(0, hidden * vocabulary).Select(_ => random.Next(-24, 25) / 64f)];
        float[] ones = [.. Enumerable.Repeat(1f, hidden)];
        uint[] masks = [.. HeadMaskTests.Masks(2, 32, 0.1, vocabulary), .. HeadMaskTests.Masks(1, 33, 0.0005, vocabulary)];
        masks[^2] |= 1;
        var samples = Enumerable.Range(0, 300).Select(i => new SampleRow(i % rows, temperature, topK, topP, 11, 12, (uint)i / 50, (uint)i % 50, Mask: (i % 4) - 1, Top: i % 3 * 10)).ToArray();
        var (gpu, cpu) = (Draw(_device), Draw(null));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(gpu.Tokens, Is.EqualTo(cpu.Tokens));
            Assert.That(gpu.LogProbs, Is.EqualTo(cpu.LogProbs).Within(2e-5f));
            Assert.That(gpu.TopTokens, Is.EqualTo(cpu.TopTokens));
            Assert.That(gpu.TopLogProbs, Is.EqualTo(cpu.TopLogProbs).Within(2e-5f));
        }

        (int[] Tokens, float[] LogProbs, int[] TopTokens, float[] TopLogProbs) Draw(Device? on)
        {
            using var own = on is null ? new Device() : null;
            var device = on ?? own!;
            var head = new HeadWeights(new Norm(NormKind.RootMeanSquare, device.Put(ones, 1, ElementType.BFloat16), default, 0f), device.Put(weight, vocabulary, ElementType.BFloat16));
            var result = new HeadResult(
                device.New<int>(samples.Length), device.New<float>(samples.Length), device.New<float>(samples.Length), default, default,
                device.New<int>(samples.Length * top), device.New<float>(samples.Length * top));
            device.Backend.Sample(device.Put(x, rows), head, device.Put(samples), result, device.Put(masks));
            return (device.Get(result.Token), device.Get(result.LogProb), device.Get(result.TopToken), device.Get(result.TopLogProb));
        }
    }

    [Test]
    public void Rows_that_are_scored_can_ask_for_their_likeliest_tokens()
    {
        var c = new HeadCase(40, 64, 3072, NormKind.RootMeanSquare, ElementType.BFloat16, 34);
        var rows = Enumerable.Range(0, 1100).Select(r => new LogProbRow(r % 40, (r * 31) % 3072, 0.5f + (r % 3 * 0.5f), Top: r % 5)).ToArray();
        var (head, x) = c.On(_device);
        var result = new HeadResult(
            default, _device.New<float>(rows.Length), _device.New<float>(rows.Length), _device.New<float>(rows.Length), default, _device.New<int>(rows.Length * 4), _device.New<float>(rows.Length * 4));
        _device.Backend.LogProb(x, head, _device.Put(rows), default, result);
        var (tokens, told) = (_device.Get(result.TopToken), _device.Get(result.TopLogProb));
        using (Assert.EnterMultipleScope())
        {
            for (var r = 0; r < rows.Length; r += 7)
            {
                // What scoring says of the same tokens.
                int[] asked = [.. tokens.AsSpan(4 * r, rows[r].Top)];
                var again = new HeadResult(default, _device.New<float>(1), _device.New<float>(1), _device.New<float>(1), asked.Length == 0 ? default : _device.New(1, asked.Length, ElementType.Float32));
                _device.Backend.LogProb(x, head, _device.Put([rows[r] with { Top = 0 }]), asked.Length == 0 ? default : _device.Put(asked), again);
                float[] expected = asked.Length == 0 ? [] : _device.Get(again.Options);
                Assert.That(told.AsSpan(4 * r, asked.Length).ToArray(), Is.EqualTo(expected).Within(1e-5f).And.Ordered.Descending, $"row {r}");
                Assert.That(asked, Is.Unique, $"row {r}");
            }
        }
    }
}
