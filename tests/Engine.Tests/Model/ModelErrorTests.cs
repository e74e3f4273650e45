using System.Text.Json.Nodes;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Model;

/// <summary>What is wrong with a model folder is said, with the file, field or tensor it is about.</summary>
internal sealed class ModelErrorTests
{
    private static IEnumerable<TestCaseData> Configs()
    {
        yield return Config("another model", root => root["model_type"] = "llama", "model_type is 'llama'");
        yield return Config("missing size", root => Text(root).Remove("hidden_size"), "text_config.hidden_size", "missing");
        yield return Config("size is text", root => Text(root)["num_hidden_layers"] = "four", "text_config.num_hidden_layers", "\"four\"");
        yield return Config("size is negative", root => Text(root)["intermediate_size"] = -768, "text_config.intermediate_size", "-768");
        yield return Config("size is huge", root => Text(root)["vocab_size"] = 4_000_000_000, "text_config.vocab_size");
        yield return Config("no heads", root => Text(root)["num_attention_heads"] = 0, "num_attention_heads");
        yield return Config("heads do not divide", root => Text(root)["num_attention_heads"] = 5, "head_dim");
        yield return Config("heads not shared evenly", root => Text(root)["num_key_value_heads"] = 2, "3 query heads", "2 key-value heads");
        yield return Config("too wide", root => (Text(root)["num_attention_heads"], Text(root)["head_dim"]) = (1 << 23, 1 << 23), "8388608 heads");
        yield return Config("sections missing", root => Rope(root).Remove("mrope_section"), "mrope_section");
        yield return Config("sections do not fill", root => Rope(root)["mrope_section"] = new JsonArray(16, 24, 25), "[16, 24, 25]", "64");
        yield return Config("sections overflow", root => Rope(root)["mrope_section"] = new JsonArray(int.MaxValue, int.MaxValue, 66), "mrope_section");
        yield return Config("theta negative", root => Rope(root)["rope_theta"] = -1, "rope_theta");
        yield return Config("other rotary", root => Rope(root)["rope_type"] = "yarn", "yarn");
        yield return Config("sliding window", root => Text(root)["use_sliding_window"] = true, "use_sliding_window");
        yield return Config("other activation", root => Text(root)["hidden_act"] = "gelu", "hidden_act is gelu");
        yield return Config("vision heads", root => Vision(root)["num_heads"] = 3, "3 vision heads", "160");
        yield return Config("ratio negative", root => Vision(root)["mlp_ratio"] = -4, "mlp_ratio");
        yield return Config("ratio huge", root => Vision(root)["mlp_ratio"] = 1e300, "mlp_ratio");
        yield return Config("merge", root => Vision(root)["spatial_merge_size"] = 3, "spatial_merge_size is 3");
        yield return Config("channels", root => Vision(root)["in_channels"] = 4, "in_channels is 4");
        yield return Config("patches of other size", root => Vision(root)["patch_size"] = 16, "preprocessor_config.json", "16");
        yield return Config("image token", root => root["image_token_id"] = 5000, "image_token_id 5000", "3072");
        yield return Config("vision is a number", root => root["vision_config"] = 3, "vision_config", "object");
        yield return Case("end token outside", folder => folder.Edit("generation_config.json", root => root["eos_token_id"] = 151645), "eos_token_id [151645]", "3072");
        yield return Case("end token is text", folder => folder.Edit("generation_config.json", root => root["eos_token_id"] = "end"), "generation_config.json", "eos_token_id");
        yield return Case("config is no JSON", folder => File.WriteAllText(folder.File("config.json"), "{\"model_type\": "), "config.json is not readable JSON");
        yield return Case("config is a list", folder => File.WriteAllText(folder.File("config.json"), "[]"), "config.json is not a JSON object");
        foreach (var file in new[] { "config.json", "tokenizer.json", "preprocessor_config.json" })
        {
            yield return Case("no " + file, folder => File.Delete(folder.File(file)), "has no " + file);
        }
    }

    private static IEnumerable<TestCaseData> Weights()
    {
        const string Name = "model.layers.2.self_attn.v_proj.weight";
        yield return Case("no weights", folder => File.Delete(folder.File("model.safetensors")), "neither model.safetensors nor model.safetensors.index.json");
        yield return Case("empty weights", folder => File.WriteAllBytes(folder.File("model.safetensors"), []), "model.safetensors", "0 bytes");
        yield return Case("truncated", folder => Truncate(folder.File("model.safetensors"), 9_000_000), "model.safetensors", "truncated");
        yield return Case("missing shard", folder => File.Delete(folder.Shard(3).File("model-00002-of-00003.safetensors")), "model-00002-of-00003.safetensors", "missing");
        yield return Case("truncated shard", folder => Truncate(folder.Shard(3).File("model-00002-of-00003.safetensors"), 100_000), "model-00002-of-00003.safetensors", "truncated");
        yield return Case("shard elsewhere", folder => folder.Shard(1).Edit("model.safetensors.index.json", root => root["weight_map"]!["x"] = "../x.safetensors"), "../x.safetensors");
        yield return Case("index without map", folder => folder.Shard(1).Edit("model.safetensors.index.json", root => root.Remove("weight_map")), "index.json", "weight_map");
        yield return Case("index names numbers", folder => folder.Shard(1).Edit("model.safetensors.index.json", root => root["weight_map"]!["x"] = 3), "index.json");
        yield return Case(
            "in two shards",
            folder =>
            {
                folder.Shard(2);
                var (first, second) = (TensorSet.Read(folder.File("model-00001-of-00002.safetensors")), TensorSet.Read(folder.File("model-00002-of-00002.safetensors")));
                var (name, tensor) = first.Tensors.First();
                second.Tensors[name] = tensor;
                second.Write(folder.File("model-00002-of-00002.safetensors"));
            },
            "model.embed_tokens.weight", "also in");
        yield return Case("missing tensor", folder => folder.Weights(set => set.Tensors.Remove(Name)), Name, "missing", "[128, 384]");
        yield return Case("missing embedding", folder => folder.Weights(set => set.Tensors.Remove("model.embed_tokens.weight")), "model.embed_tokens.weight");
        yield return Case("missing head", folder => folder.Config(root => root["tie_word_embeddings"] = false), "lm_head.weight", "[3072, 384]");
        yield return Case("transposed", folder => folder.Weights(set => set.Tensors[Name] = set.Tensors[Name] with { Shape = [384, 128] }), Name, "[384, 128]", "[128, 384]");
        yield return Case("flattened", folder => folder.Weights(set => set.Tensors[Name] = set.Tensors[Name] with { Shape = [128 * 384] }), Name, "[49152]");
        yield return Case("norm of two dimensions", folder => folder.Weights(set => set.Tensors["model.norm.weight"] = set.Tensors["model.norm.weight"] with { Shape = [384, 1] }), "model.norm.weight", "[384, 1]", "[384]");
        yield return Case("vocabulary", folder => folder.Config(root => Text(root)["vocab_size"] = 3073), "model.embed_tokens.weight", "[3072, 384]", "[3073, 384]");
        yield return Case("integers", folder => folder.Weights(set => set.Tensors[Name] = set.Tensors[Name] with { Type = "I16" }), Name, "I16");
        yield return Case("more layers than weights", folder => folder.Config(root => Text(root)["num_hidden_layers"] = 5), "model.layers.4.");
    }

    [TestCaseSource(nameof(Configs))]
    [TestCaseSource(nameof(Weights))]
    public void Says_what_is_wrong(Action<ModelFolder> change, string[] told)
    {
        var folder = new ModelFolder();
        change(folder);
        using var backend = new CpuBackend(1);
        var message = Assert.Throws<InputException>(() => QwenModel.Load(folder.Path, backend).Dispose())!.Message;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(message, Does.Contain(folder.Path));
            foreach (var part in told)
            {
                Assert.That(message, Does.Contain(part));
            }
        }
    }

    [Test]
    public void A_folder_that_does_not_exist()
    {
        using var backend = new CpuBackend(1);
        Assert.That(() => QwenModel.Load(Path.Combine(TestFiles.NewFolder(), "none"), backend), Throws.TypeOf<InputException>().With.Message.Contains("does not exist"));
    }

    private static TestCaseData Config(string name, Action<JsonObject> change, params string[] told) => Case(name, folder => folder.Config(change), told);

    private static TestCaseData Case(string name, Action<ModelFolder> change, params string[] told) => new TestCaseData(change, told).SetArgDisplayNames(name);

    private static JsonObject Text(JsonObject root) => root["text_config"]!.AsObject();

    private static JsonObject Rope(JsonObject root) => Text(root)["rope_parameters"]!.AsObject();

    private static JsonObject Vision(JsonObject root) => root["vision_config"]!.AsObject();

    private static void Truncate(string file, long bytes)
    {
        using var stream = File.OpenWrite(file);
        stream.SetLength(bytes);
    }
}
