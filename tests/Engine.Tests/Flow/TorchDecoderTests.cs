using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Learn;
using TorchSharp;

namespace LrIad.Engine.Tests.Flow;

/// <summary>The packed decoder, forward and all the way back, against <see cref="TorchDecoder"/> on random models and batches.</summary>
internal sealed class TorchDecoderTests
{
    private const int Rank = 3;

    private static readonly TextGeometry Small = new()
    {
        Hidden = 64,
        Layers = 2,
        Heads = 4,
        KeyValueHeads = 2,
        HeadDim = 32,
        Intermediate = 96,
        Vocabulary = 150,
        NormEpsilon = 1e-6f,
        RopeTheta = 10_000,
        MRopeSection = [4, 6, 6],
        TiedHead = true,
    };

    private static readonly TestCaseData<TextGeometry, int, double, float>[] Geometries =
    [
        new(Small, 9, 0, 1f) { TestName = "head 32, 4 over 2 heads, tied" },
        new(Small with { Layers = 1, Heads = 3, KeyValueHeads = 3, TiedHead = false }, 70, 0, 0.7f) { TestName = "one layer, no sharing, untied, prompt beyond a block" },
        new(Small with { Layers = 3, Heads = 6, KeyValueHeads = 1, HeadDim = 80, MRopeSection = [10, 15, 15] }, 12, 0, 1.3f) { TestName = "three layers, head 80, 6 over 1" },
        new(Small with { Heads = 7, KeyValueHeads = 1, HeadDim = 128, MRopeSection = [16, 24, 24], RopeTheta = 1e6, TiedHead = false }, 20, 0, 1f) { TestName = "head 128, 7 over 1, untied" },
        new(Small with { Hidden = 52, Intermediate = 37, Vocabulary = 61, Heads = 2 }, 5, 0, 1f) { TestName = "sizes of no power of two" },
        new(Small, 30, 0.3, 1f) { TestName = "with dropout" },
    ];

    [TestCaseSource(nameof(Geometries))]
    public void Log_probs_and_gradients_agree(TextGeometry text, int promptLength, double dropoutProbability, float temperature)
    {
        Assert.That(LibTorch.Check().Works, LibTorch.Check().Words);
        var random = new Random(text.Hidden + promptLength);
        var made = new RandomModel(text, promptLength);
        using var backend = new CpuBackend();
        using var model = QwenModel.Load(made.Folder, backend);
        var shape = AdapterWeights.ShapeFor(model.Geometry, Rank);
        var factors = made.Factors(shape);
        var groups = new[] { made.Group(promptLength, 0, 7, 1, 12, 3), made.Group((promptLength / 2) + 1, 4, 66, 0, 5) };
        var dropout = new Dropout((float)dropoutProbability, 77, 3, 0);
        using var adapter = new AdapterWeights(backend, shape);
        using var gradients = new AdapterWeights(backend, shape);
        adapter.Upload(factors);
        using var pass = new PolicyPass(model, backend, groups.Sum(PolicyPass.Rows), maxSegments: 16, Rank);

        var reference = pass.Forward(groups, temperature, null, default);
        var logProbs = pass.Forward(groups, temperature, adapter, dropout);
        float[] weights = [.. logProbs.Select(_ => (float)((random.NextDouble() * 2) - 1))];
        pass.Backward(weights, gradients);

        using var oracle = new TorchDecoder(made, shape, factors);
        Assert.That(reference, Is.EqualTo(Oracle(oracle, groups, temperature, adapter: false, default).to(torch.float32).data<float>().ToArray()).Within(1e-4f), "adapter off");
        var expected = Oracle(oracle, groups, temperature, adapter: true, dropout);
        Assert.That(logProbs, Is.EqualTo(expected.detach().to(torch.float32).data<float>().ToArray()).Within(1e-4f), "adapter on");
        Compare(gradients.Download(), oracle.Backward((expected * torch.tensor(weights)).sum()));
    }

    private static torch.Tensor Oracle(TorchDecoder oracle, Group[] groups, float temperature, bool adapter, Dropout dropout) => torch.cat([.. groups.SelectMany(group => group.Completions.Select(
        completion => oracle.LogProbs(group.Prompt, completion.Tokens, temperature, adapter, dropout, group.Completions[0].Sample | 0x8000_0000, completion.Sample)))]);

    private static void Compare(IReadOnlyList<LayerFactors> actual, IReadOnlyList<LayerFactors> expected)
    {
        using (Assert.EnterMultipleScope())
        {
            for (var i = 0; i < expected.Count; i++)
            {
                Check(actual[i].QueryA, expected[i].QueryA, $"layer {i} q_proj.A");
                Check(actual[i].QueryB, expected[i].QueryB, $"layer {i} q_proj.B");
                Check(actual[i].ValueA, expected[i].ValueA, $"layer {i} v_proj.A");
                Check(actual[i].ValueB, expected[i].ValueB, $"layer {i} v_proj.B");
            }
        }

        static void Check(float[] actual, float[] expected, string name)
        {
            var difference = Math.Sqrt(actual.Zip(expected).Sum(pair => Math.Pow(pair.First - pair.Second, 2)));
            var norm = Math.Sqrt(expected.Sum(value => (double)value * value));
            TestContext.Out.WriteLine($"{name}: {difference / norm:E1}");
            Assert.That(difference / norm, Is.LessThan(1e-4), name);
        }
    }
}
