using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Data;
using LrIad.Engine.Tests.Flow;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>
/// The GPU against the oracles that the CPU is held to, on what bfloat16 can hold of their inputs. The bound on ‖difference‖ / ‖oracle‖ is that of results
/// rounded once or twice to eight bits.
/// </summary>
[Category("Cuda")]
internal sealed class CudaTests
{
    private const double Bound = 6e-3;

    private Device _device = null!;

    [OneTimeSetUp]
    public void Open()
    {
        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }
    }

    [SetUp]
    public void SetUp() => _device = new Device(new CudaBackend());

    [TearDown]
    public void TearDown() => _device?.Dispose();

    private static IEnumerable<TestCaseData> Attentions()
    {
        yield return Named("prefill", new AttentionCase(4, 128, 7, 1).Prefill(100, 100).Prefill(1, 1).Prefill(64, 64));
        yield return Named("prefill goes on", new AttentionCase(2, 128, 3, 2).Prefill(200, 70).Prefill(65, 1).Prefill(130, 66));
        yield return Named("decode", new AttentionCase(4, 128, 7, 3).Group(400, false, (1, 1), (65, 1), (30, 1), (129, 1)).Group(64, false, (64, 1)));
        yield return Named(
            "decode, many rows",
            Enumerable.Range(1, 9).Aggregate(new AttentionCase(2, 128, 7, 3, 300), (c, g) => c.Group(g * 40, false, [.. Enumerable.Range(1, 8).Select(i => (i * g * 2, 1))])));
        yield return Named("packed", new AttentionCase(1, 128, 6, 4).Group(70, true, (31, 31), (1, 1), (12, 12), (80, 80)).Group(5, true, (3, 3)));
        yield return Named("vision", new AttentionCase(4, 80, 1, 6).Full(100).Full(4).Full(36).Full(260));
        yield return Named("one row", new AttentionCase(1, 80, 1, 8).Prefill(1, 1));

        static TestCaseData Named(string name, AttentionCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Attentions))]
    public void Attention_equals_the_oracle(AttentionCase c) => AssertAttention(c);

    [Test]
    public void Attention_over_random_ragged_lists_equals_the_oracle([Values(80, 128)] int headDim, [Range(0, 9)] int seed)
    {
        var random = new Random((seed * 1000) + headDim);
        for (var i = 0; i < 50; i++)
        {
            var c = new AttentionCase(random.Next(1, 3), headDim, random.Next(1, 9), random.Next(), 64);
            for (var group = random.Next(1, 4); group > 0; group--)
            {
                var completions = Enumerable.Range(0, random.Next(1, 5)).Select(_ => random.Next(1, 80)).Select(keys => (keys, random.Next(2) == 0 ? 1 : random.Next(1, keys + 1))).ToArray();
                _ = random.Next(4) switch
                {
                    0 => c.Full(random.Next(1, 150)),
                    1 => c.Prefill(160, random.Next(1, 160)),
                    2 => c.Group(random.Next(1, 140), false, completions),
                    _ => c.Group(random.Next(1, 40), true, completions),
                };
            }

            AssertAttention(c);
        }
    }

    [TestCase(40, 384, 1, 3, 128, 4, NormKind.RootMeanSquare)]
    [TestCase(9, 896, 2, 7, 128, 0, NormKind.RootMeanSquare)]
    [TestCase(70, 160, 2, 1, 80, 0, NormKind.Layer)]
    [TestCase(5, 3584, 4, 7, 128, 6, NormKind.RootMeanSquare)]
    public void Queries_keys_and_values_equal_the_oracle(int rows, int hidden, int heads, int perHead, int headDim, int rank, NormKind kind)
    {
        var c = new QkvCase(rows, hidden, heads, perHead, headDim, rank, 0f, ElementType.BFloat16, 3, kind);
        var operands = c.On(_device);
        operands.Forward(_device);
        var (q, k, v, low) = c.Oracle(Reference.Widen(Matrix.Rounded(c.X, ElementType.BFloat16)), [.. c.Factors.Select(Reference.Widen)]);
        var kv = Reference.Widen(c.InSlots([.. k.Select(x => (float)x)], [.. v.Select(x => (float)x)], [.. Enumerable.Range(0, rows)]));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.RelativeError(_device.Get(operands.Q), q), Is.LessThan(Bound), "q");
            Assert.That(Reference.RelativeError(_device.Get(operands.Kv.Data), kv), Is.LessThan(Bound), "k, v and untouched slots");
            if (rank > 0)
            {
                Assert.That(Reference.RelativeError(_device.Get(operands.LowRank), low), Is.LessThan(Bound), "A·x");
            }
        }
    }

    // Without A·x as a result it is part of a program of few rows.
    [TestCase(3, 384, 1, 3, 4)]
    [TestCase(8, 3584, 4, 7, 4)]
    [TestCase(33, 896, 2, 7, 7)]
    [TestCase(64, 384, 2, 2, 0)]
    public void Queries_keys_and_values_of_few_rows_equal_the_oracle(int rows, int hidden, int heads, int perHead, int rank)
    {
        var c = new QkvCase(rows, hidden, heads, perHead, 128, rank, 0f, ElementType.BFloat16, 4);
        var operands = c.On(_device) with { LowRank = default };
        operands.Forward(_device);
        var (q, k, v, _) = c.Oracle(Reference.Widen(Matrix.Rounded(c.X, ElementType.BFloat16)), [.. c.Factors.Select(Reference.Widen)]);
        var kv = Reference.Widen(c.InSlots([.. k.Select(x => (float)x)], [.. v.Select(x => (float)x)], [.. Enumerable.Range(0, rows)]));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.RelativeError(_device.Get(operands.Q), q), Is.LessThan(Bound), "q");
            Assert.That(Reference.RelativeError(_device.Get(operands.Kv.Data), kv), Is.LessThan(Bound), "k, v and untouched slots");
        }
    }

    [TestCase(5, 384, 1536, FeedForwardKind.GatedSilu)]
    [TestCase(100, 256, 512, FeedForwardKind.GatedSilu)]
    [TestCase(33, 160, 640, FeedForwardKind.QuickGelu)]
    // As many tiles as an H100 has multiprocessors, or more: each has one to itself, and the last ones, of which one is not whole, are shared. Boxes of 64, then of 72 outputs.
    [TestCase(9, 128, 17088, FeedForwardKind.GatedSilu)]
    [TestCase(3, 128, 18944, FeedForwardKind.GatedSilu)]
    [TestCase(64, 192, 19200, FeedForwardKind.GatedSilu)]
    // Of these sizes an H100 computes the first product by a kernel of our own: tiles of a cluster below each other and side by side, last tiles not whole.
    [TestCase(700, 128, 6304, FeedForwardKind.GatedSilu)]
    [TestCase(610, 64, 7488, FeedForwardKind.GatedSilu)]
    [TestCase(700, 64, 12640, FeedForwardKind.QuickGelu)]
    public void Feed_forward_equals_the_oracle(int rows, int hidden, int inner, FeedForwardKind kind)
    {
        var c = new FeedForwardCase(rows, hidden, inner, kind, ElementType.BFloat16, 5);
        var weights = c.On(_device);
        var (y, saved) = (_device.New(rows, hidden), _device.New(rows, weights.SavedColumns));
        _device.Backend.FeedForward(_device.Put(c.X, rows), weights, y, saved);
        var place = _device.Put(c.X, rows);
        _device.Backend.FeedForward(place, weights, place, default);
        var (expected, expectedSaved) = c.Oracle(Reference.Widen(Matrix.Rounded(c.X, ElementType.BFloat16)));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.RelativeError(_device.Get(y), expected), Is.LessThan(Bound));
            Assert.That(Reference.RelativeError(_device.Get(saved), expectedSaved), Is.LessThan(Bound));
            Assert.That(Reference.RelativeError(_device.Get(place), expected), Is.LessThan(Bound), "in place");
        }
    }

    [TestCase(40, 384, 384, true)]
    [TestCase(1, 3584, 3584, false)]
    [TestCase(8, 18944, 512, false)]
    [TestCase(12, 3584, 1000, true)]
    [TestCase(31, 64, 8, true)]
    [TestCase(64, 1536, 8960, false)]
    [TestCase(65, 1536, 1536, false)]
    [TestCase(300, 1280, 384, true)]
    public void Attention_output_equals_the_oracle(int rows, int inputs, int outputs, bool bias)
    {
        var random = new Random(rows);
        var weights = new LinearCase(random, inputs, outputs, ElementType.BFloat16, bias);
        var (o, x) = (Matrix.Rounded(Reference.Normal(random, rows * inputs, 1f), ElementType.BFloat16), Matrix.Rounded(Reference.Normal(random, rows * outputs, 1f), ElementType.BFloat16));
        var y = _device.New(rows, outputs);
        _device.Backend.ProjectOut(_device.Put(o, rows), weights.On(_device), _device.Put(x, rows), y);
        double[] expected = [.. LayerOracle.Linear(weights, Reference.Widen(o)).Zip(x, (a, b) => a + b)];
        Assert.That(Reference.RelativeError(_device.Get(y), expected), Is.LessThan(Bound));
    }

    [Test]
    public void Pixels_looked_up_are_what_their_levels_stand_for([Values(1, 2)] int frames)
    {
        var random = new Random(frames);
        var levels = new byte[37 * 3 * 196];
        random.NextBytes(levels);
        var normalised = Matrix.Rounded(Reference.Normal(random, 3 * 256, 1f), ElementType.BFloat16);
        var (onDevice, values, pixels) = (_device.New<byte>(levels.Length), _device.New<float>(3 * 256), _device.New(37, 3 * frames * 196));
        _device.Backend.Upload<byte>(levels, onDevice);
        _device.Backend.Upload<float>(normalised, values);
        _device.Backend.LookUpPixels(onDevice, values, pixels);
        Assert.That(_device.Get(pixels), Is.EqualTo(GoldenPass.Pixels(new ImagePatches(levels, 1, 37, 1), normalised, frames)));
    }

    [Test]
    public void Patches_and_merger_equal_the_oracle()
    {
        var random = new Random(7);
        var (patch, pixels) = (new LinearCase(random, 1176, 160, ElementType.BFloat16, bias: false), Matrix.Rounded(Reference.Normal(random, 52 * 1176, 1f), ElementType.BFloat16));
        var x = _device.New(52, 160);
        _device.Backend.PatchEmbed(_device.Put(pixels, 52), patch.On(_device).Weight, x);
        var norm = new NormCase(random, NormKind.Layer, 160, ElementType.BFloat16);
        var (first, second) = (new LinearCase(random, 640, 640, ElementType.BFloat16), new LinearCase(random, 640, 384, ElementType.BFloat16));
        var features = _device.New(13, 384);
        _device.Backend.MergePatches(x, new MergerWeights(norm.On(_device), first.On(_device), second.On(_device)), features);
        var embedded = LayerOracle.Linear(patch, Reference.Widen(pixels));
        var hidden = LayerOracle.Linear(first, LayerOracle.Norm(norm, Reference.Widen(_device.Get(x))));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.RelativeError(_device.Get(x), embedded), Is.LessThan(Bound));
            Assert.That(Reference.RelativeError(_device.Get(features), LayerOracle.Linear(second, [.. hidden.Select(LayerOracle.Gelu)])), Is.LessThan(Bound));
        }
    }

    [Test]
    public void Embedding_takes_tokens_from_the_table_and_image_tokens_from_the_features()
    {
        var random = new Random(1);
        var (table, features) = (Matrix.Rounded(Reference.Normal(random, 30 * 16, 1f), ElementType.BFloat16), Matrix.Rounded(Reference.Normal(random, 4 * 16, 1f), ElementType.BFloat16));
        var x = _device.New(6, 16);
        _device.Backend.Embed(_device.Put([3, -1, 29, -4, 0, 3]), _device.Put(table, 30), _device.Put(features, 4), x);
        Matrix.AssertSame(_device.Get(x), [.. Matrix.Rows([.. table, .. features], 16, [3, 30, 29, 33, 0, 3])], "x");
    }

    [TestCase(20, 384, 3072)]
    [TestCase(3, 64, 152064)]
    [TestCase(300, 64, 512)]
    public void Log_probs_entropy_and_options_equal_the_oracle(int rows, int hidden, int vocabulary)
    {
        var c = new HeadCase(rows, hidden, vocabulary, NormKind.RootMeanSquare, ElementType.BFloat16, 1);
        var (head, x) = c.On(_device);
        var targets = Enumerable.Range(0, rows + 5).Select(r => new LogProbRow((r * 7) % rows, (r * 31) % vocabulary, 0.5f + (r % 3 * 0.5f))).ToArray();
        int[] options = [0, vocabulary - 1, 3];
        var result = Result(targets.Length, options.Length);
        _device.Backend.LogProb(x, head, _device.Put(targets), _device.Put(options), result);
        var wide = Reference.Widen(Matrix.Rounded(c.X, ElementType.BFloat16));
        var (logProb, entropy, logSumExp, option) = (_device.Get(result.LogProb), _device.Get(result.Entropy), _device.Get(result.LogSumExp), _device.Get(result.Options));
        using (Assert.EnterMultipleScope())
        {
            for (var r = 0; r < targets.Length; r += Math.Max(1, targets.Length / 12))
            {
                // Normed rows are rounded to bfloat16 before the product: logits of spread 3 move by about 0.01.
                var expected = HeadOracle.LogSoftMax(c, wide, targets[r].Row, targets[r].Temperature, out var sum);
                Assert.That(logProb[r], Is.EqualTo(expected[targets[r].Target]).Within(0.06), $"log-prob {r}");
                Assert.That(entropy[r], Is.EqualTo(HeadOracle.Entropy(expected)).Within(0.06), $"entropy {r}");
                Assert.That(logSumExp[r], Is.EqualTo(sum).Within(0.06), $"log-sum-exp {r}");
                Assert.That(option.AsSpan(r * options.Length, options.Length).ToArray(), Is.EqualTo(options.Select(token => expected[token])).Within(0.06), $"options {r}");
            }
        }
    }

    [TestCase(1f, 0, 1f)]
    [TestCase(0.7f, 0, 1f)]
    [TestCase(0f, 0, 1f)]
    [TestCase(1.5f, 5, 1f)]
    [TestCase(1f, 0, 0.6f)]
    [TestCase(1f, 40, 0.9f)]
    [TestCase(0.9f, 1, 1f)]
    [TestCase(1f, 100, 0f)]
    [TestCase(1f, 0, 0.9999f)]
    // Few enough for a program; more tiles of the head than an H100 has multiprocessors.
    [TestCase(1f, 0, 1f, 34000, 60)]
    [TestCase(1f, 20, 1f, 34000, 7)]
    [TestCase(1f, 0, 1f, 37976, 8)]
    [TestCase(1f, 0, 1f, 38400, 64)]
    public void Equal_logits_give_equal_draws_on_both_backends(float temperature, int topK, float topP, int vocabulary = 3072, int draws = 600)
    {
        // Rows of ±1 are their own root-mean-square norm, and sums of few multiples of 1/64 are exact in any order.
        const int rows = 6, hidden = 64;
        var random = new Random(3);
        float[] x = [.. Enumerable.Range(0, rows * hidden).Select(_ => random.Next(2) == 0 ? 1f : -1f)];
        float[] weight = [.. Enumerable.Range(0, hidden * vocabulary).Select(_ => random.Next(-24, 25) / 64f)];
        float[] ones = [.. Enumerable.Repeat(1f, hidden)];
        var samples = Enumerable.Range(0, draws).Select(i => new SampleRow(i % rows, temperature, topK, topP, 11, 12, (uint)i / 50, (uint)i % 50)).ToArray();
        var (gpu, cpu) = (Draw(_device), Draw(null));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(gpu.Tokens, Is.EqualTo(cpu.Tokens));
            Assert.That(gpu.LogProbs, Is.EqualTo(cpu.LogProbs).Within(2e-5f));
        }

        (int[] Tokens, float[] LogProbs) Draw(Device? on)
        {
            using var own = on is null ? new Device() : null;
            var device = on ?? own!;
            var head = new HeadWeights(new Norm(NormKind.RootMeanSquare, device.Put(ones, 1, ElementType.BFloat16), default, 0f), device.Put(weight, vocabulary, ElementType.BFloat16));
            var result = Result(samples.Length, 0, device);
            device.Backend.Sample(device.Put(x, rows), head, device.Put(samples), result);
            return (device.Get(result.Token), device.Get(result.LogProb));
        }
    }

    [Test]
    public void A_row_of_few_gets_the_same_bits_in_any_company([Values(1, 8, 9, 40, 64)] int rows, [Values(1536, 17088, 19200)] int inner)
    {
        var c = new FeedForwardCase(64, 384, inner, FeedForwardKind.GatedSilu, ElementType.BFloat16, 5);
        var weights = c.On(_device);
        var all = Layers(64);
        Matrix.AssertSame(Layers(rows), all[..(rows * 384)], "y");
        Matrix.AssertSame(Layers(64), all, "once more");

        // One after the other in place, as decoding does, so that they run as one program.
        float[] Layers(int count)
        {
            var x = _device.Put(c.X[..(count * 384)], count);
            for (var i = 0; i < 5; i++)
            {
                _device.Backend.FeedForward(x, weights, x, default);
            }

            return _device.Get(x);
        }
    }

    // Keys are fetched before the step has made its own: one row's in the middle, at the beginning and at the end of a block, and those of two rows of one item.
    [Test]
    public void Attention_sees_the_keys_that_the_same_program_makes()
    {
        const int rows = 6, blocks = 13;
        var c = new QkvCase(rows, 128, 2, 7, 128, 0, 0f, ElementType.BFloat16, 4);
        int[] slots = [(4 * 64) + 5, 5 * 64, (7 * 64) + 63, (10 * 64) + 63, (12 * 64) + 1, (12 * 64) + 2];
        var tokens = c.Rows.Select((row, i) => row with { Slot = slots[i] }).ToArray();
        var old = Reference.Normal(new Random(5), blocks * KvLayer.BlockColumns(c.Heads, c.HeadDim), 1f);
        var work = _device.Work(
            [new(0, 4, 0, 150, 0, 0), new(0, 1, 3, 70, 1, 0), new(1, 1, 5, 1, 1, 0), new(2, 1, 7, 64, 1, 0), new(3, 1, 9, 128, 1, 0), new(4, 2, 11, 67, 1, 1)], [.. Enumerable.Range(0, blocks)]);
        var (operands, o, sums) = (c.On(_device), _device.New(rows, c.Queries), _device.New(rows, c.Heads * c.PerHead, ElementType.Float32));
        var cache = _device.New(blocks, old.Length / blocks);
        operands = operands with { Rows = _device.Put(tokens), Kv = new KvLayer(cache, c.Heads, c.HeadDim) };
        // The first time buffers are made, which runs what has been gathered.
        Step(apart: false);
        Matrix.AssertSame(Step(apart: false), Step(apart: true), "o");

        float[] Step(bool apart)
        {
            _device.Backend.Upload(old, cache);
            operands.Forward(_device);
            if (apart)
            {
                _device.Backend.Synchronize();
            }

            _device.Backend.Attend(operands.Q, operands.Kv, work, o, sums);
            return _device.Get(o);
        }
    }

    [Test]
    public void Memory_that_is_not_there_is_a_clear_error_and_the_device_goes_on()
    {
        var error = Assert.Throws<OutOfMemoryException>(() => _device.New(int.MaxValue, 1000));
        Assert.That(error.Message, Does.Contain("MiB are needed for test").And.Contain("--prompts-per-step"));
        Embedding_takes_tokens_from_the_table_and_image_tokens_from_the_features();
    }

    private void AssertAttention(AttentionCase c)
    {
        var operands = c.On(_device);
        operands.Attend(_device);
        var (o, logSumExp) = AttentionOracle.Attend(c, Reference.Widen(Matrix.Rounded([.. c.Q], ElementType.BFloat16)), Reference.Widen(Matrix.Rounded(c.Kv, ElementType.BFloat16)));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Reference.RelativeError(_device.Get(operands.O), o), Is.LessThan(Bound));
            Assert.That(_device.Get(operands.LogSumExp), Is.EqualTo(logSumExp).Within(2e-3));
        }
    }

    private HeadResult Result(int rows, int options, Device? device = null)
    {
        device ??= _device;
        return new HeadResult(
            device.New<int>(rows), device.New<float>(rows), device.New<float>(rows), device.New<float>(rows), options == 0 ? default : device.New(rows, options, ElementType.Float32));
    }
}
