using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Flow;

/// <summary>The model against float32 transformers on the sample checkpoint.</summary>
internal sealed class GoldenModelTests
{
    private CpuBackend _backend = null!;
    private QwenModel _model = null!;

    [OneTimeSetUp]
    public void Load()
    {
        _backend = new CpuBackend();
        _model = QwenModel.Load(TestFiles.TinyModel, _backend);
    }

    [OneTimeTearDown]
    public void Unload()
    {
        _model.Dispose();
        _backend.Dispose();
    }

    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void Pixels_agree(string name)
    {
        using var golden = TestFiles.Golden(name);
        var processor = new ImageProcessor(_model.Preprocessor, 401_408);
        var images = Directory.GetFiles(Path.Combine(TestFiles.Goldens, name), "image*.png").Order(StringComparer.Ordinal).Select(processor.Process).ToArray();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(images.Select(image => (image.GridT, image.GridH, image.GridW)), Is.EqualTo(GoldenPass.Grids(golden)));
            Assert.That(images.SelectMany(image => image.Pixels).ToArray(), Is.EqualTo(golden.Read("pixel_values")).Within(1e-5f));
        }
    }

    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void Prompt_tokens_are_equal(string name)
    {
        using var golden = TestFiles.Golden(name);
        using var manifest = System.Text.Json.JsonDocument.Parse(File.ReadAllBytes(Path.Combine(TestFiles.Goldens, "manifest.json")));
        var entry = manifest.RootElement.EnumerateArray().Single(item => item.TryGetProperty("case", out var value) && value.GetString() == name);
        var ids = ChatPrompt.Build(
            Tokenizer.Load(_model.TokenizerFile), PromptTemplate.Default, entry.GetProperty("object").GetString()!, [.. GoldenPass.Grids(golden).Select(grid => grid.T * grid.H * grid.W / 4)]);
        Assert.That(ids, Is.EqualTo(golden.ReadIntegers("input_ids").Take((int)golden.ReadIntegers("prompt_length")[0]).Select(id => (int)id)));
    }

    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void Image_embeddings_agree(string name)
    {
        using var golden = TestFiles.Golden(name);
        var expected = golden.Read("image_embeds");
        Assert.That(GoldenPass.Embed(_model, _backend, golden), Is.EqualTo(expected).Within(1e-3f));
    }

    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void Positions_are_equal(string name)
    {
        using var golden = TestFiles.Golden(name);
        var ids = golden.ReadIntegers("input_ids").Select(id => (int)id).ToArray();
        var promptLength = (int)golden.ReadIntegers("prompt_length")[0];
        var expected = golden.ReadIntegers("position_ids");
        var (positions, next) = PromptPositions.Compute(ids[..promptLength], GoldenPass.Grids(golden), _model.Geometry);
        using (Assert.EnterMultipleScope())
        {
            for (var i = 0; i < ids.Length; i++)
            {
                var (t, h, w) = i < promptLength ? positions[i] : (next + i - promptLength, next + i - promptLength, next + i - promptLength);
                Assert.That((t, h, w), Is.EqualTo(((int)expected[i], (int)expected[ids.Length + i], (int)expected[(2 * ids.Length) + i])), $"token {i}");
            }
        }
    }

    [TestCaseSource(typeof(GoldenPass), nameof(GoldenPass.Cases))]
    public void Log_probs_of_the_completion_agree(string name)
    {
        using var golden = TestFiles.Golden(name);
        var (prompt, completion) = GoldenPass.Split(_model, golden, golden.Read("image_embeds"));
        var actual = GoldenPass.LogProbs(_model, _backend, prompt, completion, adapter: null);
        Assert.That(actual, Is.EqualTo(golden.Read("completion_logprobs")).Within(1e-4f));
    }

    [Test]
    public void Adapter_log_probs_and_gradients_agree()
    {
        var adapter = AdapterFile.Load(Path.Combine(TestFiles.Goldens, "adapter"), _model.Geometry);
        using var golden = TestFiles.Golden("case5");
        using var expected = TestFiles.Golden("adapter");
        var (prompt, completion) = GoldenPass.Split(_model, golden, golden.Read("image_embeds"));
        var shape = AdapterWeights.ShapeFor(_model.Geometry, adapter.Rank);
        using var weights = new AdapterWeights(_backend, shape);
        using var gradients = new AdapterWeights(_backend, shape);
        using var pass = new PolicyPass(_model, _backend, 512, 2, adapter.Rank);
        weights.Upload(adapter.Effective());

        var logProbs = pass.Forward([GoldenPass.GroupOf(prompt, completion)], 1f, weights, default);
        pass.Backward(expected.Read("weights"), gradients);

        Assert.That(logProbs, Is.EqualTo(expected.Read("completion_logprobs_with_adapter")).Within(1e-4f));
        var layers = gradients.Download();
        using (Assert.EnterMultipleScope())
        {
            for (var i = 0; i < layers.Count; i++)
            {
                // The gradient of the scaled B, times the scale, is that of B.
                Check(i, "q_proj", "A", layers[i].QueryA, 1);
                Check(i, "q_proj", "B", layers[i].QueryB, adapter.Scale);
                Check(i, "v_proj", "A", layers[i].ValueA, 1);
                Check(i, "v_proj", "B", layers[i].ValueB, adapter.Scale);
            }
        }

        void Check(int layer, string projection, string factor, float[] actual, double scale)
        {
            var reference = expected.Read("grad." + AdapterFile.Key(layer, projection, factor));
            var difference = Math.Sqrt(actual.Zip(reference).Sum(pair => Math.Pow((pair.First * scale) - pair.Second, 2)));
            var norm = Math.Sqrt(reference.Sum(value => (double)value * value));
            Assert.That(difference / norm, Is.LessThan(1e-3), $"layer {layer} {projection} {factor}");
        }
    }
}
