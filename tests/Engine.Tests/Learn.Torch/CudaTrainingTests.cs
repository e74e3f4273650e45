using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Config;
using LrIad.Learn;

namespace LrIad.Engine.Tests.Learn.Torch;

/// <summary>Whole runs on the GPU, dropout, KL and all: the same bits every time, interrupted or not.</summary>
[Category("Cuda")]
internal sealed class CudaTrainingTests
{
    private const int Steps = 20;

    [OneTimeSetUp]
    public void Open()
    {
        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        Assert.That(LibTorch.Check().Works, LibTorch.Check().Words);
    }

    [Test]
    public void Two_runs_give_the_same_adapter_and_so_does_one_that_is_interrupted_and_resumed()
    {
        var whole = Adapter(Config(), resume: false);
        Assert.That(Adapter(Config(), resume: false), Is.EqualTo(whole), "a second run");
        Assert.That(Adapter(Config() with { Recompute = "always" }, resume: false), Is.EqualTo(whole), "layers computed twice");

        var config = Config();
        using var stop = new CancellationTokenSource();
        var steps = new Stopper(stop, after: 7);
        Assert.That(() => Run(config, resume: false, steps, stop.Token), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(Adapter(config, resume: true), Is.EqualTo(whole), "resumed");
    }

    private static TrainConfig Config() => new()
    {
        Model = TestFiles.TinyModel,
        Data = [new DataSource(TestFiles.Sample("parts-mvtec"), Split: "test")],
        Out = Path.Combine(TestFiles.NewFolder(), "run"),
        Steps = Steps,
        PromptsPerStep = 4,
        NumGenerations = 4,
        MaxPromptLength = 256,
        Sampling = new SamplingOptions { MaxCompletionLength = 40 },
        Optimizer = new OptimizerOptions { LearningRate = 1e-3 },
    };

    private static byte[] Adapter(TrainConfig config, bool resume)
    {
        Run(config, resume, null, CancellationToken.None);
        return File.ReadAllBytes(Path.Combine(config.Out, $"checkpoint-{Steps}", "adapter_model.safetensors"));
    }

    private static void Run(TrainConfig config, bool resume, IProgress<Engine.Learn.TrainingProgress>? progress, CancellationToken cancellation)
    {
        using var backend = new CudaBackend();
        Training.Run(config, backend, PolicyLearner.Create, resume, null, progress, cancellation);
    }

    private sealed class Stopper(CancellationTokenSource stop, int after) : IProgress<Engine.Learn.TrainingProgress>
    {
        public void Report(Engine.Learn.TrainingProgress value)
        {
            if (value.Step == after)
            {
                stop.Cancel();
            }
        }
    }
}
