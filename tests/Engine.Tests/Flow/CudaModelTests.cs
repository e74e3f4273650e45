using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Model;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Flow;

/// <summary>The whole model on the GPU, images included, against float32 transformers.</summary>
[Category("Cuda")]
internal sealed class CudaModelTests
{
    private CudaBackend _backend = null!;
    private QwenModel _model = null!;

    [OneTimeSetUp]
    public void Load()
    {
        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        _backend = new CudaBackend();
        _model = QwenModel.Load(TestFiles.TinyModel, _backend);
    }

    [OneTimeTearDown]
    public void Unload()
    {
        _model?.Dispose();
        _backend?.Dispose();
    }

    // transformers' own bfloat16 is off by 0.004 to 0.010 on average on these cases.
    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void Log_probs_are_as_close_as_bfloat16_allows(string name)
    {
        using var golden = TestFiles.Golden(name);
        var (prompt, completion) = GoldenPass.Split(_model, golden, GoldenPass.Embed(_model, _backend, golden));
        var errors = GoldenPass.LogProbs(_model, _backend, prompt, completion, adapter: null).Zip(golden.Read("completion_logprobs"), (a, b) => Math.Abs(a - b)).ToArray();
        TestContext.Out.WriteLine($"{name}: mean {errors.Average():F5}, largest {errors.Max():F5} of {errors.Length} tokens");
        Assert.That(errors.Average(), Is.LessThan(0.015));
    }

    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void The_likeliest_token_is_the_same_wherever_float32_is_sure(string name)
    {
        using var golden = TestFiles.Golden(name);
        using var cpu = new CpuBackend();
        using var reference = QwenModel.Load(TestFiles.TinyModel, cpu);
        var expected = Likeliest(reference, cpu, golden);
        var actual = Likeliest(_model, _backend, golden);

        // The second token's log-prob is at most that of all others together.
        var sure = Enumerable.Range(0, expected.Tokens.Length).Where(i => expected.LogProbs[i] - Math.Log(Math.Max(1e-9, 1 - Math.Exp(expected.LogProbs[i]))) > 0.1).ToArray();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(sure, Is.Not.Empty);
            Assert.That(sure.Select(i => actual.Tokens[i]), Is.EqualTo(sure.Select(i => expected.Tokens[i])));
        }
    }

    [Test]
    public void Adapter_gradients_are_those_of_the_CPU()
    {
        using var cpu = new CpuBackend();
        using var reference = QwenModel.Load(TestFiles.TinyModel, cpu);
        using var golden = TestFiles.Golden("adapter");
        var (gpuGradients, gpuLogProbs) = GoldenPass.AdapterGradients(_model, _backend);
        var (cpuGradients, _) = GoldenPass.AdapterGradients(reference, cpu);
        var errors = gpuLogProbs.Zip(golden.Read("completion_logprobs_with_adapter"), (a, b) => Math.Abs(a - b)).ToArray();
        TestContext.Out.WriteLine($"log-probs with adapter: mean {errors.Average():F5}, largest {errors.Max():F5}");
        using (Assert.EnterMultipleScope())
        {
            Assert.That(errors.Average(), Is.LessThan(0.015));
            foreach (var (key, expected) in cpuGradients)
            {
                var error = Reference.RelativeError(gpuGradients[key], Reference.Widen(expected));
                TestContext.Out.WriteLine($"{key}: {error:P3}");
                Assert.That(error, Is.LessThan(0.02), key);
            }
        }
    }

    // After every row but the last, given the golden tokens before it.
    private static (int[] Tokens, float[] LogProbs) Likeliest(QwenModel model, Backend backend, SafeTensors golden)
    {
        var (prompt, completion) = GoldenPass.Split(model, golden, GoldenPass.Embed(model, backend, golden));
        return GoldenPass.Forward(model, backend, prompt, completion, (arena, x) => GoldenPass.Likeliest(model, backend, arena, x, prompt.Length - 1, completion.Length));
    }
}
