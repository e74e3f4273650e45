using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Model;
using LrIad.Engine.Tests.Flow;

namespace LrIad.Engine.Tests.Model;

/// <summary>Every form in which Qwen2-VL folders exist loads, and computes the same.</summary>
internal sealed class ModelVariantTests
{
    private CpuBackend _backend = null!;
    private float[] _expected = null!;

    [OneTimeSetUp]
    public void ComputeExpected()
    {
        _backend = new CpuBackend();
        _expected = LogProbs(TestFiles.TinyModel);
    }

    [OneTimeTearDown]
    public void Dispose() => _backend.Dispose();

    private static IEnumerable<TestCaseData> Same()
    {
        yield return Case("flat config", folder => folder.Flatten());
        yield return Case("nested config of transformers 4.5x", folder => folder.Config(root =>
        {
            var text = root["text_config"]!.AsObject();
            text["rope_scaling"] = new JsonObject { ["type"] = "default", ["rope_type"] = "default", ["mrope_section"] = text["rope_parameters"]!["mrope_section"]!.DeepClone() };
            text["rope_theta"] = text["rope_parameters"]!["rope_theta"]!.DeepClone();
            text.Remove("rope_parameters");
        }));
        yield return Case("tying said in text_config only", folder => folder.Config(root => root.Remove("tie_word_embeddings")));
        yield return Case("nested names", folder => folder.Weights(set => set.Rename(name =>
            name.StartsWith("visual.", StringComparison.Ordinal) ? "model." + name : name.Replace("model.", "model.language_model.", StringComparison.Ordinal))));
        yield return Case("untied head", folder => Untie(folder, embedding => embedding));
        yield return Case("flat, untied, sharded", folder => Untie(folder.Flatten(), embedding => embedding).Shard(3));
        yield return Case("one shard with an index", folder => folder.Shard(1));
        yield return Case("float32 weights", folder => folder.Weights(set => Convert(set, values => RawTensor.Float32([], [.. values]))));
        yield return Case("float32, flat, sharded", folder => folder.Flatten().Weights(set => Convert(set, values => RawTensor.Float32([], [.. values]))).Shard(2));
        yield return Case("size with edges", folder => folder.Edit("preprocessor_config.json", root => Resize(root, "shortest_edge", "longest_edge")));
        yield return Case("size with pixels", folder => folder.Edit("preprocessor_config.json", root => Resize(root, "min_pixels", "max_pixels")));

        static TestCaseData Case(string name, Func<ModelFolder, ModelFolder> change) => new TestCaseData(change).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Same))]
    public void Loads_and_computes_the_same(Func<ModelFolder, ModelFolder> change)
    {
        var folder = change(new ModelFolder()).Path;
        using var original = QwenModel.Load(TestFiles.TinyModel, _backend);
        using var variant = QwenModel.Load(folder, _backend);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(LogProbs(folder), Is.EqualTo(_expected));
            Assert.That(variant.EndTokens, Is.EqualTo(original.EndTokens));
            Assert.That((variant.Preprocessor.MinPixels, variant.Preprocessor.MaxPixels), Is.EqualTo((original.Preprocessor.MinPixels, original.Preprocessor.MaxPixels)));
        }
    }

    [Test]
    public void An_untied_head_is_the_one_that_counts()
    {
        // A head of zeros makes every token equally likely.
        var logProbs = LogProbs(Untie(new ModelFolder(), embedding => embedding with { Bytes = new byte[embedding.Bytes.Length] }).Path);
        Assert.That(logProbs, Is.All.EqualTo(-MathF.Log(3072)).Within(1e-5f));
    }

    [Test]
    public void Float16_weights_are_rounded_to_bfloat16()
    {
        Half[] values = [.. Enumerable.Range(0, 3072 * 384).Select(i => (Half)(MathF.Sin(i) * 0.1f))];
        var folder = new ModelFolder().Weights(set => set.Tensors["model.embed_tokens.weight"] = RawTensor.Float16([3072, 384], values));
        using var model = QwenModel.Load(folder.Path, _backend);
        var found = new float[values.Length];
        _backend.Download(model.Embedding, found);
        Assert.That(found, Is.EqualTo(values.Select(value => Numbers.FromBFloat16(Numbers.ToBFloat16((float)value))).ToArray()));
    }

    [Test]
    public void Bfloat16_weights_are_not_copied()
    {
        using var model = QwenModel.Load(TestFiles.TinyModel, _backend);
        Assert.That(model.Head.Weight, Is.EqualTo(model.Embedding));
        Assert.That(model.Layers[3].FeedForward.Down.Weight.Storage, Is.SameAs(model.Embedding.Storage));
    }

    private static IEnumerable<TestCaseData> EndTokens()
    {
        yield return new TestCaseData("[3060, 3058]", "3060", (int[])[3060, 3058]).SetArgDisplayNames("a list");
        yield return new TestCaseData("null", "[3058]", (int[])[3058]).SetArgDisplayNames("only config.json's");
        yield return new TestCaseData("[]", "3058", (int[])[3058]).SetArgDisplayNames("an empty list");
        yield return new TestCaseData("null", "null", (int[])[3060]).SetArgDisplayNames("none: the tokenizer's");
        yield return new TestCaseData(null, "3058", (int[])[3058]).SetArgDisplayNames("no generation_config.json");
    }

    [TestCaseSource(nameof(EndTokens))]
    public void End_tokens(string? generation, string config, int[] expected)
    {
        var folder = new ModelFolder().Config(root => root["text_config"]!["eos_token_id"] = JsonNode.Parse(config));
        if (generation is null)
        {
            File.Delete(folder.File("generation_config.json"));
        }
        else
        {
            folder.Edit("generation_config.json", root => root["eos_token_id"] = JsonNode.Parse(generation));
        }

        using var model = QwenModel.Load(folder.Path, _backend);
        Assert.That(model.EndTokens, Is.EqualTo(expected));
    }

    [Test]
    public void Missing_vision_fields_are_the_published_ones()
    {
        var folder = new ModelFolder().Flatten().Config(root => root["vision_config"] = new JsonObject { ["hidden_size"] = 384 });
        var vision = ModelGeometry.Read(folder.File("config.json")).Vision;
        Assert.That(vision, Is.EqualTo(new VisionGeometry
        {
            Depth = 32,
            EmbedDim = 1280,
            Heads = 16,
            Intermediate = 5120,
            PatchSize = 14,
            MergeSize = 2,
            TemporalPatchSize = 2,
            Channels = 3,
            RopeTheta = 10_000,
        }));
    }

    [Test]
    public void The_published_7B_configuration()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "config.json");
        File.WriteAllText(file, """
            {"model_type": "qwen2_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
             "vocab_size": 152064, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "hidden_act": "silu",
             "use_sliding_window": false, "sliding_window": 32768, "tie_word_embeddings": false, "eos_token_id": 151645, "image_token_id": 151655, "vision_start_token_id": 151652,
             "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": 3584, "patch_size": 14,
                               "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}}
            """);
        var geometry = ModelGeometry.Read(file);
        using (Assert.EnterMultipleScope())
        {
            Assert.That((geometry.Text.Hidden, geometry.Text.Layers, geometry.Text.Heads, geometry.Text.KeyValueHeads, geometry.Text.HeadDim), Is.EqualTo((3584, 28, 28, 4, 128)));
            Assert.That((geometry.Text.Intermediate, geometry.Text.Vocabulary, geometry.Text.TiedHead, geometry.Text.RopeTheta), Is.EqualTo((18944, 152064, false, 1e6)));
            Assert.That((geometry.Vision.HeadDim, geometry.Vision.Intermediate, geometry.Vision.PatchValues), Is.EqualTo((80, 5120, 1176)));
            Assert.That((geometry.ImageTokenId, geometry.EndTokens.Single()), Is.EqualTo((151655, 151645)));
        }
    }

    // The pictures of case 0 through the vision encoder, then its completion through the decoder: every weight has a say.
    private float[] LogProbs(string folder)
    {
        using var model = QwenModel.Load(folder, _backend);
        using var golden = TestFiles.Golden("case0");
        var grid = golden.ReadIntegers("image_grid_thw").Select(size => (int)size).ToArray();
        var image = GoldenPass.Patches(model, golden.Read("pixel_values"), grid[0], grid[1], grid[2]);
        using var arena = _backend.CreateArena("features");
        var features = arena.Allocate(ElementType.Float32, image.MergedTokens, model.Geometry.Text.Hidden);
        using var encoder = new VisionEncoder(model, _backend);
        encoder.Encode([image], features);
        var values = new byte[features.Bytes.Length];
        _backend.Download<byte>(features.Bytes, values);

        var ids = golden.ReadIntegers("input_ids").Select(id => (int)id).ToArray();
        var length = (int)golden.ReadIntegers("prompt_length")[0];
        var (positions, next) = PromptPositions.Compute(ids[..length], [(grid[0], grid[1], grid[2])], model.Geometry);
        var feature = 0;
        var prompt = new EncodedPrompt([.. ids[..length].Select(id => id == model.Geometry.ImageTokenId ? -(feature++) - 1 : id)], positions, next, values);
        return GoldenPass.LogProbs(model, _backend, prompt, ids[length..], adapter: null);
    }

    private static ModelFolder Untie(ModelFolder folder, Func<RawTensor, RawTensor> head) => folder
        .Config(root =>
        {
            root["tie_word_embeddings"] = false;
            if (root.ContainsKey("text_config"))
            {
                root["text_config"]!["tie_word_embeddings"] = false;
            }
        })
        .Weights(set => set.Tensors["lm_head.weight"] = head(set.Tensors["model.embed_tokens.weight"]));

    private static void Convert(TensorSet set, Func<IEnumerable<float>, RawTensor> convert)
    {
        foreach (var (name, tensor) in set.Tensors.ToArray())
        {
            var values = MemoryMarshal.Cast<byte, ushort>(tensor.Bytes).ToArray().Select(Numbers.FromBFloat16);
            set.Tensors[name] = convert(values) with { Shape = tensor.Shape };
        }
    }

    private static void Resize(JsonObject root, string least, string most)
    {
        root["size"] = new JsonObject { [least] = root["min_pixels"]!.DeepClone(), [most] = root["max_pixels"]!.DeepClone() };
        root.Remove("min_pixels");
        root.Remove("max_pixels");
    }
}
