using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Learn;
using TorchSharp;

namespace LrIad.Engine.Tests.Learn.Torch;

/// <summary>Parameters, publication, AdamW and its state.</summary>
internal sealed class PolicyLearnerTests
{
    private static readonly AdapterShape Shape = new(Layers: 2, Rank: 3, Hidden: 10, QueryOutputs: 8, ValueOutputs: 4);
    private static readonly LoraOptions Lora = new() { Rank = 3, Alpha = 12 };

    [Test]
    public void Libtorch_loads() => Assert.That(LibTorch.Check().Works, LibTorch.Check().Words);

    [Test]
    public void Starts_as_PEFT_does_from_the_seed_alone()
    {
        var shape = Shape with { Rank = 8, Hidden = 400 };
        using var learner = New(1, shape: shape);
        using var same = New(1, shape: shape);
        using var other = New(2, shape: shape);
        var start = learner.Parameters();
        var (values, bound) = (start.SelectMany(layer => layer.QueryA.Concat(layer.ValueA)).ToArray(), 1 / Math.Sqrt(400));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(start.SelectMany(layer => layer.QueryB.Concat(layer.ValueB)), Is.All.Zero);
            Assert.That(values, Is.All.InRange(-bound, bound));
            Assert.That(values.Average(), Is.Zero.Within(bound / 30));
            Assert.That(values.Average(value => (double)value * value), Is.EqualTo(bound * bound / 3).Within(3).Percent);
            Assert.That(Flat(same.Parameters()), Is.EqualTo(Flat(start)));
            Assert.That(other.Parameters()[0].QueryA, Is.Not.EqualTo(start[0].QueryA));
            Assert.That(start[1].QueryA, Is.Not.EqualTo(start[0].QueryA));
            Assert.That(start[0].ValueA, Is.Not.EqualTo(start[0].QueryA));
        }
    }

    [Test]
    public void Publishes_A_and_the_scaled_B()
    {
        using var learner = New();
        var parameters = RandomFactors(5);
        learner.SetParameters(parameters);
        var published = learner.Publish();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Flat(learner.Parameters()), Is.EqualTo(Flat(parameters)));
            Assert.That(Flat(published), Is.EqualTo(Flat([.. parameters.Select(layer => layer with { QueryB = Times(layer.QueryB, 4), ValueB = Times(layer.ValueB, 4) })])));
        }
    }

    [TestCase(0)]
    [TestCase(1)]
    [TestCase(1000)]
    public void Steps_as_AdamW_by_hand(double maxGradNorm)
    {
        using var learner = New(optimizer: new OptimizerOptions { MaxGradNorm = maxGradNorm });
        learner.SetParameters(RandomFactors(5));
        var expected = Array.ConvertAll(Flat(learner.Parameters()), value => (double)value);
        var (m, v) = (new double[expected.Length], new double[expected.Length]);
        for (var step = 1; step <= 4; step++)
        {
            var (gradients, rate) = (RandomFactors(100 + step), 0.01 / step);

            // The published B is 4 B, so B's gradient is four times that of the published one.
            var gradient = Array.ConvertAll(Flat([.. gradients.Select(layer => layer with { QueryB = Times(layer.QueryB, 4), ValueB = Times(layer.ValueB, 4) })]), value => (double)value);
            var norm = Math.Sqrt(gradient.Sum(value => value * value));
            var clip = maxGradNorm == 0 ? 1 : Math.Min(1, maxGradNorm / norm);
            for (var i = 0; i < expected.Length; i++)
            {
                m[i] = (0.9 * m[i]) + (0.1 * clip * gradient[i]);
                v[i] = (0.999 * v[i]) + (0.001 * clip * clip * gradient[i] * gradient[i]);
                expected[i] -= rate * (m[i] / (1 - Math.Pow(0.9, step))) / (Math.Sqrt(v[i] / (1 - Math.Pow(0.999, step))) + 1e-8);
            }

            Assert.That(learner.Step(gradients, rate), Is.EqualTo(norm).Within(1e-4).Percent, $"norm at step {step}");
            Assert.That(Array.ConvertAll(Flat(learner.Parameters()), value => (double)value), Is.EqualTo(expected).Within(2e-6), $"parameters after step {step}");
        }
    }

    [Test]
    public void Zero_learning_rate_changes_no_parameter()
    {
        using var learner = New();
        var before = Flat(learner.Parameters());
        learner.Step(RandomFactors(1), 0);
        Assert.That(Flat(learner.Parameters()), Is.EqualTo(before));
    }

    [Test]
    public void Goes_on_from_a_saved_state_bit_for_bit()
    {
        using var straight = New();
        Train(straight, 0, 5);

        using var first = New();
        Train(first, 0, 3);
        using var second = New(seed: 99);
        second.SetParameters(first.Parameters());
        second.LoadOptimizer([.. first.SaveOptimizer().Reverse()]);
        Assert.That(Bits(second.SaveOptimizer()), Is.EqualTo(Bits(first.SaveOptimizer())));
        Train(second, 3, 5);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(Flat(second.Parameters()), Is.EqualTo(Flat(straight.Parameters())));
            Assert.That(Bits(second.SaveOptimizer()), Is.EqualTo(Bits(straight.SaveOptimizer())));
        }
    }

    [Test]
    public void Saved_state_names_every_array_once_with_its_shape()
    {
        using var learner = New();
        Train(learner, 0, 2);
        var state = learner.SaveOptimizer();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(state, Has.Count.EqualTo(Shape.Layers * 4 * 3));
            Assert.That(state.Select(array => array.Name), Is.Unique);
            Assert.That(state.Where(array => array.Shape.Aggregate(1, (a, b) => a * b) != array.Values.Length), Is.Empty);
            Assert.That(state.Single(array => array.Name == "1.v_proj.B.exp_avg").Shape, Is.EqualTo(new[] { Shape.ValueOutputs, Shape.Rank }));
            Assert.That(state.Single(array => array.Name == "0.q_proj.A.step").Values, Is.EqualTo(new[] { 2f }));
        }
    }

    [Test]
    public void State_of_another_adapter_is_refused()
    {
        using var learner = New();
        using var smaller = New(shape: Shape with { Layers = 1 });
        using var narrower = New(shape: Shape with { Hidden = 5 });
        using (Assert.EnterMultipleScope())
        {
            Assert.That(() => learner.LoadOptimizer(smaller.SaveOptimizer()), Throws.TypeOf<InputException>().With.Message.Contains("1.q_proj.A.step"));
            Assert.That(() => learner.LoadOptimizer(narrower.SaveOptimizer()), Throws.TypeOf<InputException>().With.Message.Contains("0.q_proj.A.exp_avg"));
        }
    }

    [TestCase(float.NaN)]
    [TestCase(float.PositiveInfinity)]
    public void Gradient_that_is_not_finite_changes_nothing(float bad)
    {
        using var learner = New();
        Train(learner, 0, 2);
        var (parameters, state) = (Flat(learner.Parameters()), Bits(learner.SaveOptimizer()));
        var gradients = RandomFactors(50);
        gradients[1].ValueB[3] = bad;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(() => learner.Step(gradients, 1e-2), Throws.InvalidOperationException.With.Message.Contains("layer 1, v_proj.B"));
            Assert.That(Flat(learner.Parameters()), Is.EqualTo(parameters));
            Assert.That(Bits(learner.SaveOptimizer()), Is.EqualTo(state));
        }

        using var undisturbed = New();
        Train(undisturbed, 0, 3);
        Train(learner, 2, 3);
        Assert.That(Flat(learner.Parameters()), Is.EqualTo(Flat(undisturbed.Parameters())));
    }

    [Test]
    public void Norm_beyond_float_range_changes_nothing()
    {
        using var learner = New();
        var (parameters, state) = (Flat(learner.Parameters()), Bits(learner.SaveOptimizer()));
        var gradients = RandomFactors(50);
        gradients[0].QueryB[0] = 3e38f;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(() => learner.Step(gradients, 1e-2), Throws.InvalidOperationException);
            Assert.That(Flat(learner.Parameters()), Is.EqualTo(parameters));
            Assert.That(Bits(learner.SaveOptimizer()), Is.EqualTo(state));
        }
    }

    [Test]
    public void A_thousand_steps_leave_no_tensors_behind()
    {
        using var learner = New();
        var gradients = RandomFactors(1);
        var batch = new ObjectiveBatch
        {
            LogProb = [-1, -2, -3],
            OldLogProb = [-1, -2.1f, -3],
            ReferenceLogProb = [-1, -2, -3.1f],
            Start = [0, 1, 3],
            Advantage = [1, -1],
            BatchCompletions = 2,
            BatchTokens = 3,
            MaxCompletionLength = 4,
        };
        void Once()
        {
            learner.Objective(batch);
            learner.Step(gradients, 1e-4);
            learner.Publish();
            learner.SetParameters(learner.Parameters());
            learner.LoadOptimizer(learner.SaveOptimizer());
        }

        Once();
        var before = torch.Tensor.TotalCount;
        for (var i = 0; i < 1000; i++)
        {
            Once();
        }

        Assert.That(torch.Tensor.TotalCount, Is.LessThanOrEqualTo(before));
    }

    private static IPolicyLearner New(ulong seed = 7, AdapterShape? shape = null, OptimizerOptions? optimizer = null) =>
        PolicyLearner.Create(shape ?? Shape, Lora, new ObjectiveOptions(), optimizer ?? new OptimizerOptions(), seed);

    private static void Train(IPolicyLearner learner, int from, int to)
    {
        for (var step = from; step < to; step++)
        {
            learner.Step(RandomFactors(step), 1e-2 / (step + 1));
        }
    }

    private static LayerFactors[] RandomFactors(int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, Shape.Layers).Select(_ =>
        {
            var layer = LayerFactors.Zeros(Shape);
            foreach (var values in All(layer))
            {
                for (var i = 0; i < values.Length; i++)
                {
                    values[i] = (float)((random.NextDouble() - 0.5) * 2);
                }
            }

            return layer;
        })];
    }

    private static float[][] All(LayerFactors layer) => [layer.QueryA, layer.QueryB, layer.ValueA, layer.ValueB];

    private static float[] Flat(IEnumerable<LayerFactors> layers) => [.. layers.SelectMany(All).SelectMany(values => values)];

    private static float[] Times(float[] values, float factor) => Array.ConvertAll(values, value => value * factor);

    private static string[] Bits(IEnumerable<StateArray> state) =>
        [.. state.Select(array => $"{array.Name} [{string.Join(",", array.Shape)}] {Convert.ToHexString(System.Runtime.InteropServices.MemoryMarshal.AsBytes(array.Values.AsSpan()))}")];
}
