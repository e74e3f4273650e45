using System.Text.Json.Nodes;

namespace LrIad.Engine.Tests.Model;

/// <summary>A copy of the sample model, to be changed.</summary>
internal sealed class ModelFolder
{
    public ModelFolder()
    {
        Path = TestFiles.NewFolder();
        foreach (var file in Directory.GetFiles(TestFiles.TinyModel))
        {
            System.IO.File.Copy(file, File(System.IO.Path.GetFileName(file)));
        }
    }

    public string Path { get; }

    public string File(string name) => System.IO.Path.Combine(Path, name);

    public ModelFolder Edit(string name, Action<JsonObject> change)
    {
        var json = JsonNode.Parse(System.IO.File.ReadAllText(File(name)))!.AsObject();
        change(json);
        System.IO.File.WriteAllText(File(name), json.ToJsonString());
        return this;
    }

    public ModelFolder Config(Action<JsonObject> change) => Edit("config.json", change);

    public ModelFolder Weights(Action<TensorSet> change)
    {
        var set = TensorSet.Read(File("model.safetensors"));
        change(set);
        set.Write(File("model.safetensors"));
        return this;
    }

    /// <summary>Spreads the weights over files and writes their index, as large models are published.</summary>
    public ModelFolder Shard(int shards)
    {
        var set = TensorSet.Read(File("model.safetensors"));
        var map = new JsonObject();
        var parts = Enumerable.Range(0, shards).Select(_ => new TensorSet()).ToArray();
        foreach (var ((name, tensor), i) in set.Tensors.Select((pair, i) => (pair, i * shards / set.Tensors.Count)))
        {
            parts[i].Tensors[name] = tensor;
            map[name] = Shard(i, shards);
        }

        for (var i = 0; i < shards; i++)
        {
            parts[i].Write(File(Shard(i, shards)));
        }

        System.IO.File.Delete(File("model.safetensors"));
        System.IO.File.WriteAllText(File("model.safetensors.index.json"), new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = 1 }, ["weight_map"] = map }.ToJsonString());
        return this;

        static string Shard(int i, int shards) => $"model-{i + 1:D5}-of-{shards:D5}.safetensors";
    }

    /// <summary>config.json in the flat form that Qwen2-VL was published with.</summary>
    public ModelFolder Flatten() => Config(root =>
    {
        foreach (var (name, value) in root["text_config"]!.AsObject().ToArray())
        {
            if (name != "model_type")
            {
                root[name] = value?.DeepClone();
            }
        }

        var rope = root["rope_parameters"]!.AsObject();
        root["rope_theta"] = rope["rope_theta"]!.DeepClone();
        root["rope_scaling"] = new JsonObject { ["type"] = "mrope", ["mrope_section"] = rope["mrope_section"]!.DeepClone() };
        root.Remove("text_config");
        root.Remove("rope_parameters");
        root.Remove("layer_types");
        var vision = root["vision_config"]!.AsObject();
        vision["in_chans"] = vision["in_channels"]!.DeepClone();
        vision["spatial_patch_size"] = vision["patch_size"]!.DeepClone();
        foreach (var name in new[] { "in_channels", "rope_parameters", "hidden_act", "model_type", "initializer_range" })
        {
            vision.Remove(name);
        }
    });
}
