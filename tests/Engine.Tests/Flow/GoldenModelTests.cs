using System.Runtime.InteropServices;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Tests.Oracle;
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
            Assert.That(images.SelectMany(image => GoldenPass.Pixels(image, _model.Preprocessor.NormalisedLevels(), frames: 2)).ToArray(), Is.EqualTo(golden.Read("pixel_values")).Within(1e-5f));
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
        Assert.That(MemoryMarshal.Cast<byte, float>(GoldenPass.Embed(_model, _backend, golden)).ToArray(), Is.EqualTo(expected).Within(1e-3f));
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
        var (prompt, completion) = GoldenPass.Split(_model, golden, GoldenPass.GoldenFeatures(_model, _backend, golden));
        var actual = GoldenPass.LogProbs(_model, _backend, prompt, completion, adapter: null);
        Assert.That(actual, Is.EqualTo(golden.Read("completion_logprobs")).Within(1e-4f));
    }

    [Test]
    public void Adapter_log_probs_and_gradients_agree()
    {
        using var expected = TestFiles.Golden("adapter");
        var (gradients, logProbs) = GoldenPass.AdapterGradients(_model, _backend);
        Assert.That(logProbs, Is.EqualTo(expected.Read("completion_logprobs_with_adapter")).Within(1e-4f));
        using (Assert.EnterMultipleScope())
        {
            foreach (var (key, actual) in gradients)
            {
                Assert.That(Reference.RelativeError(actual, Reference.Widen(expected.Read("grad." + key))), Is.LessThan(1e-3), key);
            }
        }
    }
}
