using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Learn;

namespace LrIad.Engine.Tests.Flow;

/// <summary>Score, objective, backward, step and publication together.</summary>
internal sealed class PolicyStepTests
{
    [TestCase("grpo")]
    [TestCase("dr_grpo")]
    [TestCase("dapo")]
    [TestCase("gspo")]
    public void A_small_step_lowers_the_loss_as_much_as_the_gradient_says(string lossType)
    {
        var made = new RandomModel(
            new TextGeometry
            {
                Hidden = 32,
                Layers = 2,
                Heads = 2,
                KeyValueHeads = 1,
                HeadDim = 16,
                Intermediate = 48,
                Vocabulary = 40,
                NormEpsilon = 1e-6f,
                RopeTheta = 10_000,
                MRopeSection = [2, 3, 3],
                TiedHead = true,
            },
            seed: 3);
        using var backend = new CpuBackend();
        using var model = QwenModel.Load(made.Folder, backend);
        var lora = new LoraOptions { Rank = 2, Alpha = 8 };
        var shape = AdapterWeights.ShapeFor(model.Geometry, lora.Rank);
        using var learner = PolicyLearner.Create(shape, lora, new ObjectiveOptions { LossType = lossType }, new OptimizerOptions { MaxGradNorm = 0 }, 5);
        learner.SetParameters(made.Factors(shape));
        using var adapter = new AdapterWeights(backend, shape);
        using var gradients = new AdapterWeights(backend, shape);
        var group = made.Group(8, 0, 9, 4, 6);
        using var pass = new PolicyPass(model, backend, PolicyPass.Rows(group), maxSegments: 4, lora.Rank);
        var reference = pass.Forward([group], 1f, null, default);

        var (parameters, start) = (learner.Parameters(), Score());
        var before = learner.Objective(Batch(start));
        pass.Backward(before.Gradient, gradients);
        var incoming = gradients.Download();
        var norm = learner.Step(incoming, 2e-4);
        var after = learner.Objective(Batch(Score()));

        var gradient = incoming.SelectMany(layer => Flat(layer, lora.Alpha / lora.Rank)).ToArray();
        var moved = learner.Parameters().Zip(parameters).SelectMany(pair => Flat(pair.First, 1).Zip(Flat(pair.Second, 1), (to, from) => to - from));
        var predicted = moved.Zip(gradient, (step, slope) => step * slope).Sum();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(norm, Is.EqualTo(Math.Sqrt(gradient.Sum(value => value * value))).Within(0.01).Percent);
            Assert.That(predicted, Is.Negative);
            Assert.That(after.Loss - before.Loss, Is.EqualTo(predicted).Within(5).Percent);
        }

        float[] Score()
        {
            adapter.Upload(learner.Publish());
            return pass.Forward([group], 1f, adapter, default);
        }

        ObjectiveBatch Batch(float[] logProb) => new()
        {
            LogProb = logProb,
            OldLogProb = start,
            ReferenceLogProb = reference,
            Start = [0, 9, 13, 19],
            Advantage = [1.5f, -1, -0.5f],
            BatchCompletions = 3,
            BatchTokens = 19,
            MaxCompletionLength = 10,
        };
    }

    private static IEnumerable<double> Flat(LayerFactors layer, double scaleOfB) =>
        [.. Scaled(layer.QueryA, 1), .. Scaled(layer.QueryB, scaleOfB), .. Scaled(layer.ValueA, 1), .. Scaled(layer.ValueB, scaleOfB)];

    private static IEnumerable<double> Scaled(float[] values, double scale) => values.Select(value => value * scale);
}
