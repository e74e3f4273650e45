using System.Runtime.InteropServices;
using System.Text.Json;
using LrIad.Engine.Compute;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Tests.Flow;

/// <summary>A Qwen2-VL folder with small random weights that bfloat16 holds exactly, and the same weights by name.</summary>
internal sealed class RandomModel
{
    private readonly Random _random;
    private readonly Dictionary<string, (int[] Shape, float[] Values)> _weights = [];

    public RandomModel(TextGeometry text, int seed)
    {
        (Text, _random) = (text, new Random(seed));
        var (queries, keys) = (text.Heads * text.HeadDim, text.KeyValueHeads * text.HeadDim);
        Normal("model.embed_tokens.weight", 0, 0.3, text.Vocabulary, text.Hidden);
        for (var i = 0; i < text.Layers; i++)
        {
            var prefix = $"model.layers.{i}.";
            Normal(prefix + "input_layernorm.weight", 1, 0.2, text.Hidden);
            Product(prefix + "self_attn.q_proj", queries, text.Hidden, bias: true);
            Product(prefix + "self_attn.k_proj", keys, text.Hidden, bias: true);
            Product(prefix + "self_attn.v_proj", keys, text.Hidden, bias: true);
            Product(prefix + "self_attn.o_proj", text.Hidden, queries, bias: false);
            Normal(prefix + "post_attention_layernorm.weight", 1, 0.2, text.Hidden);
            Product(prefix + "mlp.gate_proj", text.Intermediate, text.Hidden, bias: false);
            Product(prefix + "mlp.up_proj", text.Intermediate, text.Hidden, bias: false);
            Product(prefix + "mlp.down_proj", text.Hidden, text.Intermediate, bias: false);
        }

        Normal("model.norm.weight", 1, 0.2, text.Hidden);
        if (!text.TiedHead)
        {
            Normal("lm_head.weight", 0, 0.3, text.Vocabulary, text.Hidden);
        }

        Vision();
        Folder = TestFiles.NewFolder();
        Write();
    }

    public TextGeometry Text { get; }

    public string Folder { get; }

    public IReadOnlyDictionary<string, (int[] Shape, float[] Values)> Weights => _weights;

    /// <summary>A random prompt with an image in its middle, at random positions on the three axes, and completions of these lengths.</summary>
    public Group Group(int promptLength, uint firstSample, params int[] completionLengths)
    {
        const int imageTokens = 6;
        var ids = Tokens(promptLength + imageTokens);
        var positions = ids.Select((_, i) => (_random.Next(40), _random.Next(40), _random.Next(40))).ToArray();
        for (var f = 0; f < imageTokens; f++)
        {
            ids[f + (promptLength / 2)] = -f - 1;
        }

        var features = Enumerable.Range(0, imageTokens * Text.Hidden).Select(_ => (float)((_random.NextDouble() * 2) - 1)).ToArray();
        var prompt = new EncodedPrompt(ids, positions, 41, MemoryMarshal.AsBytes<float>(features).ToArray());
        return new Group(
            prompt, [.. completionLengths.Select((length, i) => new Completion(firstSample + (uint)i, Tokens(length), new float[length], new float[length], true))], null);

        int[] Tokens(int count) => [.. Enumerable.Range(0, count).Select(_ => _random.Next(Text.Vocabulary))];
    }

    /// <summary>Random factors of an adapter, none of them zero.</summary>
    public LayerFactors[] Factors(AdapterShape shape)
    {
        float[] Uniform(int count, double bound) => [.. Enumerable.Range(0, count).Select(_ => (float)((_random.NextDouble() - 0.5) * 2 * bound))];
        var bound = 1 / Math.Sqrt(shape.Hidden);
        return [.. Enumerable.Range(0, shape.Layers).Select(_ => new LayerFactors(
            Uniform(shape.Rank * shape.Hidden, bound), Uniform(shape.QueryOutputs * shape.Rank, 0.5),
            Uniform(shape.Rank * shape.Hidden, bound), Uniform(shape.ValueOutputs * shape.Rank, 0.5)))];
    }

    // The smallest vision encoder that loads; the tests here give image features themselves.
    private void Vision()
    {
        const int width = 8;
        Normal("visual.patch_embed.proj.weight", 0, 0.1, width, 3, 2, 14, 14);
        foreach (var norm in new[] { "visual.blocks.0.norm1", "visual.blocks.0.norm2", "visual.merger.ln_q" })
        {
            Normal(norm + ".weight", 1, 0.1, width);
            Normal(norm + ".bias", 0, 0.1, width);
        }

        Product("visual.blocks.0.attn.qkv", 3 * width, width, bias: true);
        Product("visual.blocks.0.attn.proj", width, width, bias: true);
        Product("visual.blocks.0.mlp.fc1", width, width, bias: true);
        Product("visual.blocks.0.mlp.fc2", width, width, bias: true);
        Product("visual.merger.mlp.0", 4 * width, 4 * width, bias: true);
        Product("visual.merger.mlp.2", Text.Hidden, 4 * width, bias: true);
    }

    private void Product(string name, int outputs, int inputs, bool bias)
    {
        Normal(name + ".weight", 0, 1 / Math.Sqrt(inputs), outputs, inputs);
        if (bias)
        {
            Normal(name + ".bias", 0, 0.2, outputs);
        }
    }

    private void Normal(string name, double mean, double deviation, params int[] shape)
    {
        var values = new float[shape.Aggregate(1, (a, b) => a * b)];
        for (var i = 0; i < values.Length; i++)
        {
            var normal = Math.Sqrt(-2 * Math.Log(1 - _random.NextDouble())) * Math.Cos(2 * Math.PI * _random.NextDouble());
            values[i] = Numbers.FromBFloat16(Numbers.ToBFloat16((float)(mean + (deviation * normal))));
        }

        _weights.Add(name, (shape, values));
    }

    private void Write()
    {
        var config = new
        {
            model_type = "qwen2_vl",
            hidden_size = Text.Hidden,
            num_hidden_layers = Text.Layers,
            num_attention_heads = Text.Heads,
            num_key_value_heads = Text.KeyValueHeads,
            head_dim = Text.HeadDim,
            intermediate_size = Text.Intermediate,
            vocab_size = Text.Vocabulary,
            rms_norm_eps = Text.NormEpsilon,
            rope_theta = Text.RopeTheta,
            rope_scaling = new { type = "mrope", mrope_section = Text.MRopeSection },
            tie_word_embeddings = Text.TiedHead,
            eos_token_id = 1,
            image_token_id = 2,
            vision_start_token_id = 3,
            vision_config = new { embed_dim = 8, depth = 1, num_heads = 2, mlp_ratio = 1 },
        };
        File.WriteAllText(Path.Combine(Folder, "config.json"), JsonSerializer.Serialize(config));
        File.WriteAllText(Path.Combine(Folder, "preprocessor_config.json"), "{}");
        File.WriteAllText(Path.Combine(Folder, "tokenizer.json"), "{}");
        using var stream = File.Create(Path.Combine(Folder, "model.safetensors"));
        SafeTensorsWriter.Write(stream, _weights.Select(weight => (weight.Key, weight.Value.Shape, weight.Value.Values)));
    }
}
