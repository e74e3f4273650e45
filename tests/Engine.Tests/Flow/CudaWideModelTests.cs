using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Flow;

/// <summary>
/// Two layers of Qwen2-VL-7B's full widths on the GPU, image included, no further from float32 transformers than 1.25 times what transformers' own bfloat16 is.
/// <c>bench/peers/parity_wide.py</c> makes the model, its input and what transformers says; LRIAD_WIDE_MODEL names the folder. Logits do not come through the
/// seam: the log-probs of 256 tokens after every position stand in for them, which are those tokens' logits but for a constant a position.
/// </summary>
[Category("Cuda")]
internal sealed class CudaWideModelTests
{
    private const string Folder = "LRIAD_WIDE_MODEL";
    private const double Allowed = 1.25;

    private string _folder = "";
    private SafeTensors _expected = null!;
    private Result _actual = null!;

    [OneTimeSetUp]
    public void Run()
    {
        if (Environment.GetEnvironmentVariable(Folder) is not { Length: > 0 } folder)
        {
            Assert.Ignore($"{Folder} names no folder; bench/peers/parity_wide.py makes one.");
            return;
        }

        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        _folder = folder;
        _expected = SafeTensors.Open(Path.Combine(folder, "parity.safetensors"));
        using var backend = new CudaBackend();
        using var model = QwenModel.Load(folder, backend);
        var (prompt, completion) = GoldenPass.Split(model, _expected, GoldenPass.Embed(model, backend, _expected));
        _actual = GoldenPass.Forward(model, backend, prompt, completion, (arena, x) => Score(model, backend, arena, x));
    }

    [OneTimeTearDown]
    public void Close() => _expected?.Dispose();

    [Test]
    public void Log_probs_and_logits_are_as_close_as_bfloat16_allows()
    {
        var completion = ((int)_expected.ReadIntegers("prompt_length")[0] - 1)..;
        var (reference, rounded) = (_expected.Read("log_probs"), _expected.Read("bf16_log_probs"));
        var (options, roundedOptions) = (_expected.Read("option_log_probs"), _expected.Read("bf16_option_log_probs"));
        TestContext.Out.WriteLine($"logits of transformers' bfloat16, the whole vocabulary: off by {_expected.Read("bf16_logits_error")[0]:P3}");
        using (Assert.EnterMultipleScope())
        {
            AssertClose("log-probs of the completion", Errors(reference[completion], _actual.LogProbs[completion]), Errors(reference[completion], rounded[completion]));
            AssertClose("log-probs of all tokens", Errors(reference, _actual.LogProbs), Errors(reference, rounded));
            AssertClose("log-probs of the options", Errors(options, _actual.Options), Errors(options, roundedOptions));
            var (ours, theirs) = (LogitError(options, _actual.Options), LogitError(options, roundedOptions));
            TestContext.Out.WriteLine($"logits of the options: off by {ours:P3}, transformers' bfloat16 by {theirs:P3}");
            Assert.That(ours, Is.LessThanOrEqualTo(Allowed * theirs), "logits of the options");
        }
    }

    [Test]
    public void The_likeliest_token_is_the_same_wherever_float32_is_sure()
    {
        var (margin, expected) = (_expected.Read("margin"), _expected.ReadIntegers("argmax"));
        var sure = Enumerable.Range(0, margin.Length).Where(i => margin[i] > 0.1f).ToArray();
        var different = Enumerable.Range(0, margin.Length).Except(sure).Count(i => _actual.Likeliest[i] != expected[i]);
        TestContext.Out.WriteLine($"{sure.Length} of {margin.Length} are sure; of the others {different} differ");
        using (Assert.EnterMultipleScope())
        {
            Assert.That(sure, Is.Not.Empty);
            Assert.That(sure.Select(i => (long)_actual.Likeliest[i]), Is.EqualTo(sure.Select(i => expected[i])));
        }
    }

    [Test]
    public void Adapter_gradients_are_as_close_as_bfloat16_autograd()
    {
        const double scale = 16.0 / 4;
        using var backend = new CudaBackend();
        using var model = QwenModel.Load(_folder, backend);
        var (prompt, completion) = GoldenPass.Split(model, _expected, GoldenPass.Embed(model, backend, _expected));
        var shape = AdapterWeights.ShapeFor(model.Geometry, 4);
        using var weights = new AdapterWeights(backend, shape);
        using var gradients = new AdapterWeights(backend, shape);
        using var pass = new PolicyPass(model, backend, prompt.Length + completion.Length, 2, shape.Rank);
        float[] Factor(int layer, string name, double by = 1) => [.. _expected.Read($"factor.{layer}.{name}").Select(value => (float)(value * by))];
        weights.Upload([.. Enumerable.Range(0, shape.Layers).Select(i => new LayerFactors(Factor(i, "q_proj.A"), Factor(i, "q_proj.B", scale), Factor(i, "v_proj.A"), Factor(i, "v_proj.B", scale)))]);
        _ = pass.Forward([GoldenPass.GroupOf(prompt, completion)], 1f, weights, default);
        pass.Backward(_expected.Read("weights"), gradients);
        var (difference, theirDifference, norm) = (0.0, 0.0, 0.0);
        foreach (var (layer, i) in gradients.Download().Select((layer, i) => (layer, i)))
        {
            Check($"{i}.q_proj.A", layer.QueryA, 1);
            Check($"{i}.q_proj.B", layer.QueryB, scale);
            Check($"{i}.v_proj.A", layer.ValueA, 1);
            Check($"{i}.v_proj.B", layer.ValueB, scale);
        }

        var (ours, autograd) = (Math.Sqrt(difference / norm), Math.Sqrt(theirDifference / norm));
        TestContext.Out.WriteLine($"gradient: off by {ours:P3}, bfloat16 autograd by {autograd:P3}");
        Assert.That(ours, Is.LessThanOrEqualTo(Allowed * autograd));

        // The gradient of the scaled B, times the scale, is that of B.
        void Check(string name, float[] actual, double by)
        {
            var reference = Reference.Widen(_expected.Read($"grad.{name}"));
            var (error, theirs) = (Reference.RelativeError([.. actual.Select(value => (float)(value * by))], reference), _expected.Read($"bf16_grad_error.{name}")[0]);
            TestContext.Out.WriteLine($"gradient of {name}: off by {error:P3}, bfloat16 autograd by {theirs:P3}");
            var square = reference.Sum(value => value * value);
            (difference, theirDifference, norm) = (difference + (error * error * square), theirDifference + (theirs * theirs * square), norm + square);
        }
    }

    // After every token but the last, as the reference has them.
    private Result Score(QwenModel model, Backend backend, Arena arena, Tensor x)
    {
        var (ids, options) = (_expected.ReadIntegers("input_ids"), _expected.ReadIntegers("options").Select(token => (int)token).ToArray());
        var count = ids.Length - 1;
        var (rows, tokens) = (arena.Allocate<LogProbRow>(count), arena.Allocate<int>(options.Length));
        backend.Upload<LogProbRow>(Enumerable.Range(0, count).Select(row => new LogProbRow(row, (int)ids[row + 1], 1f)).ToArray(), rows);
        backend.Upload<int>(options, tokens);
        var result = new Compute.HeadResult(
            default, arena.Allocate<float>(count), arena.Allocate<float>(count), arena.Allocate<float>(count), arena.Allocate(ElementType.Float32, count, options.Length));
        backend.LogProb(x, model.Head, rows, tokens, result);
        var (logProbs, optionLogProbs) = (new float[count], new float[count * options.Length]);
        backend.Download(result.LogProb, logProbs);
        backend.Download(result.Options, optionLogProbs);
        return new Result(logProbs, optionLogProbs, GoldenPass.Likeliest(model, backend, arena, x, 0, count).Tokens);
    }

    private static void AssertClose(string what, double[] ours, double[] theirs)
    {
        TestContext.Out.WriteLine(
            $"{what}: off by {ours.Average():F5} on average, {ours.Max():F5} at most; transformers' bfloat16 by {theirs.Average():F5}, {theirs.Max():F5}; {ours.Length} values");
        Assert.That(ours.Average(), Is.LessThanOrEqualTo(Allowed * theirs.Average()), what);
    }

    private static double[] Errors(float[] expected, float[] actual) => [.. expected.Zip(actual, (a, b) => Math.Abs((double)a - b))];

    // ‖difference‖ / ‖expected‖ of what is left of each position's values less their mean.
    private double LogitError(float[] expected, float[] actual)
    {
        var (difference, norm) = (0.0, 0.0);
        foreach (var (reference, other) in expected.Chunk(Options).Zip(actual.Chunk(Options)))
        {
            var (mean, otherMean) = (reference.Average(), other.Average());
            norm += reference.Sum(value => Math.Pow(value - mean, 2));
            difference += reference.Zip(other, (a, b) => Math.Pow(a - mean - (b - otherMean), 2)).Sum();
        }

        return Math.Sqrt(difference / norm);
    }

    private int Options => (int)_expected.Shape("options")[0];

    /// <summary>What the engine says after each position: the given next token's log-prob, the options' [positions, options], and the likeliest token.</summary>
    private sealed record Result(float[] LogProbs, float[] Options, int[] Likeliest);
}
