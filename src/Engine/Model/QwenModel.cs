using LrIad.Engine.Compute;
using LrIad.Engine.Data;
using LrIad.Engine.Text;

namespace LrIad.Engine.Model;

/// <summary>Weights of one decoder layer.</summary>
internal sealed record DecoderLayer(QkvWeights Qkv, Linear Output, FeedForwardWeights FeedForward);

/// <summary>Weights of one layer of the vision encoder.</summary>
internal sealed record VisionLayer(QkvWeights Qkv, Linear Output, FeedForwardWeights FeedForward);

/// <summary>A Qwen2-VL folder, as published or as transformers 5 saves it, mapped into memory: bfloat16 weights are used where they lie in the files.</summary>
internal sealed class QwenModel : IDisposable
{
    private readonly IWeights _weights;

    private QwenModel(string folder, ModelGeometry geometry, PreprocessorSettings preprocessor, string tokenizerFile, IReadOnlyList<int> endTokens, Func<IWeights> open)
    {
        (Folder, Geometry, Preprocessor, TokenizerFile, EndTokens) = (folder, geometry, preprocessor, tokenizerFile, endTokens);
        CheckPatches(folder);
        _weights = open();
        try
        {
            var (text, vision) = (Geometry.Text, Geometry.Vision);
            var (language, visual) = (_weights.Prefix("model.embed_tokens.weight", "model.language_model.embed_tokens.weight", "embed_tokens.weight"), _weights.Prefix("visual.patch_embed.proj.weight", "model.visual.patch_embed.proj.weight", "patch_embed.proj.weight"));
            Embedding = _weights.Get(language + "embed_tokens.weight", text.Vocabulary, text.Hidden);
            Layers = [.. Enumerable.Range(0, text.Layers).Select(i => ReadDecoderLayer($"{language}layers.{i}.", text))];
            var head = text.TiedHead ? Embedding : _weights.Get("lm_head.weight", text.Vocabulary, text.Hidden);
            Head = new HeadWeights(new Norm(NormKind.RootMeanSquare, _weights.Get(language + "norm.weight", text.Hidden), default, text.NormEpsilon), head);
            PatchEmbedding = _weights.Get(visual + "patch_embed.proj.weight", vision.EmbedDim, vision.Channels, vision.TemporalPatchSize, vision.PatchSize, vision.PatchSize);
            VisionLayers = [.. Enumerable.Range(0, vision.Depth).Select(i => ReadVisionLayer($"{visual}blocks.{i}.", vision))];
            var merged = vision.EmbedDim * vision.MergeSize * vision.MergeSize;
            Merger = new MergerWeights(
                LayerNorm(visual + "merger.ln_q", vision.EmbedDim), Product(visual + "merger.mlp.0", merged, merged), Product(visual + "merger.mlp.2", text.Hidden, merged));
        }
        catch
        {
            _weights.Dispose();
            throw;
        }

        DecoderRotary = MakeDecoderRotary(Geometry.Text);
        VisionRotary = MakeVisionRotary(Geometry.Vision);
    }

    /// <summary>Where it was read from.</summary>
    public string Folder { get; }

    /// <summary>Its sizes.</summary>
    public ModelGeometry Geometry { get; }

    /// <summary>Tokens that end a completion.</summary>
    public IReadOnlyList<int> EndTokens { get; }

    /// <summary>How images are prepared.</summary>
    public PreprocessorSettings Preprocessor { get; }

    /// <summary>tokenizer.json.</summary>
    public string TokenizerFile { get; }

    /// <summary>[vocabulary, hidden].</summary>
    public Tensor Embedding { get; }

    /// <summary>The decoder's layers.</summary>
    public IReadOnlyList<DecoderLayer> Layers { get; }

    /// <summary>Final norm and vocabulary product.</summary>
    public HeadWeights Head { get; }

    /// <summary>[embed, patch values].</summary>
    public Tensor PatchEmbedding { get; }

    /// <summary>The vision encoder's layers.</summary>
    public IReadOnlyList<VisionLayer> VisionLayers { get; }

    /// <summary>Patches to image tokens.</summary>
    public MergerWeights Merger { get; }

    /// <summary>M-RoPE.</summary>
    public Rotary DecoderRotary { get; }

    /// <summary>Two-dimensional rotary: the first half of the frequencies follow the height, the second the width.</summary>
    public Rotary VisionRotary { get; }

    /// <summary>Maps a model folder.</summary>
    /// <exception cref="InputException">A file is missing, truncated or not what it should be.</exception>
    public static QwenModel Load(string folder, Backend backend)
    {
        ArgumentNullException.ThrowIfNull(backend);
        var geometry = ReadGeometry(folder);
        var tokenizer = RequiredFile(folder, "tokenizer.json");
        var preprocessor = PreprocessorSettings.Parse(RequiredFile(folder, "preprocessor_config.json"));
        return new QwenModel(folder, geometry, preprocessor, tokenizer, ReadEndTokens(folder, geometry), () => WeightFiles.Open(folder, backend));
    }

    /// <summary>Sizes of the model in a folder.</summary>
    /// <exception cref="InputException">There is none.</exception>
    public static ModelGeometry ReadGeometry(string folder) => Directory.Exists(folder)
        ? ModelGeometry.Read(RequiredFile(folder, "config.json"))
        : throw new InputException($"The model folder {folder} does not exist.");

    /// <summary>A model of some size whose weights mean nothing, for measuring. It has no tokenizer, and no token ends a completion.</summary>
    /// <param name="geometry">Its sizes.</param>
    /// <param name="backend">Where its weights are made.</param>
    public static QwenModel Random(ModelGeometry geometry, Backend backend)
    {
        ArgumentNullException.ThrowIfNull(geometry);
        var vision = geometry.Vision;
        var preprocessor = new PreprocessorSettings(vision.PatchSize, vision.TemporalPatchSize, vision.MergeSize, 3136, 12_845_056, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]);
        return new QwenModel("(random weights)", geometry, preprocessor, "", [], () => new RandomWeights(backend, seed: 0));
    }

    /// <inheritdoc/>
    public void Dispose() => _weights.Dispose();

    private static string RequiredFile(string folder, string name)
    {
        var file = Path.Combine(folder, name);
        return File.Exists(file) ? file : throw new InputException($"The model folder {folder} has no {name}. A Qwen2-VL folder as published has config.json, tokenizer.json, preprocessor_config.json and *.safetensors.");
    }

    // generation_config.json, else config.json, else the token that ends a turn.
    private static int[] ReadEndTokens(string folder, ModelGeometry geometry)
    {
        var file = Path.Combine(folder, "generation_config.json");
        var tokens = geometry.EndTokens;
        if (File.Exists(file))
        {
            using var json = JsonFile.Open(file);
            tokens = json.Root.Has("eos_token_id") && json.Root.Counts("eos_token_id") is { Length: > 0 } named ? named : tokens;
        }

        if (tokens.Length == 0)
        {
            tokens = Tokenizer.Load(Path.Combine(folder, "tokenizer.json")).TokenId("<|im_end|>") is { } end
                ? [end]
                : throw new InputException($"{folder}: neither generation_config.json nor config.json names an eos_token_id, and the tokenizer has no <|im_end|>.");
        }

        return tokens.All(token => token < geometry.Text.Vocabulary)
            ? tokens
            : throw new InputException($"{folder}: eos_token_id [{string.Join(", ", tokens)}] is outside the vocabulary of {geometry.Text.Vocabulary}.");
    }

    private void CheckPatches(string folder)
    {
        var (vision, images) = (Geometry.Vision, Preprocessor);
        if ((images.PatchSize, images.TemporalPatchSize, images.MergeSize) != (vision.PatchSize, vision.TemporalPatchSize, vision.MergeSize))
        {
            throw new InputException(
                $"{folder}: preprocessor_config.json cuts patches of {images.TemporalPatchSize} x {images.PatchSize} x {images.PatchSize} merged by {images.MergeSize}; config.json asks for {vision.TemporalPatchSize} x {vision.PatchSize} x {vision.PatchSize} merged by {vision.MergeSize}.");
        }
    }

    private DecoderLayer ReadDecoderLayer(string prefix, TextGeometry text)
    {
        var (queries, keys) = (text.Heads * text.HeadDim, text.KeyValueHeads * text.HeadDim);
        var attention = prefix + "self_attn.";
        var qkv = _weights.Get(text.Hidden, (attention + "q_proj.weight", queries), (attention + "k_proj.weight", keys), (attention + "v_proj.weight", keys));
        var biases = _weights.Get(0, (attention + "q_proj.bias", queries), (attention + "k_proj.bias", keys), (attention + "v_proj.bias", keys));
        var gateUp = _weights.Get(text.Hidden, (prefix + "mlp.gate_proj.weight", text.Intermediate), (prefix + "mlp.up_proj.weight", text.Intermediate));
        Linear Third(int i) => new(qkv[i], biases[i]);
        return new DecoderLayer(
            new QkvWeights(RmsNorm(prefix + "input_layernorm", text), Third(0), Third(1), Third(2)),
            Product(attention + "o_proj", text.Hidden, queries, bias: false),
            new FeedForwardWeights(
                FeedForwardKind.GatedSilu, RmsNorm(prefix + "post_attention_layernorm", text), new Linear(gateUp[0], default), new Linear(gateUp[1], default),
                Product(prefix + "mlp.down_proj", text.Hidden, text.Intermediate, bias: false)));
    }

    private VisionLayer ReadVisionLayer(string prefix, VisionGeometry vision)
    {
        var width = vision.EmbedDim;
        var fused = Product(prefix + "attn.qkv", 3 * width, width);
        var bias = fused.Bias.Reshape(3, width);
        Linear Third(int i) => new(fused.Weight.Slice(i * width, width), bias.Slice(i, 1));
        var feedForward = new FeedForwardWeights(
            FeedForwardKind.QuickGelu, LayerNorm(prefix + "norm2", width), null, Product(prefix + "mlp.fc1", vision.Intermediate, width), Product(prefix + "mlp.fc2", width, vision.Intermediate));
        return new VisionLayer(new QkvWeights(LayerNorm(prefix + "norm1", width), Third(0), Third(1), Third(2)), Product(prefix + "attn.proj", width, width), feedForward);
    }

    private Norm RmsNorm(string name, TextGeometry text) => new(NormKind.RootMeanSquare, _weights.Get(name + ".weight", text.Hidden), default, text.NormEpsilon);

    private Norm LayerNorm(string name, int width) => new(NormKind.Layer, _weights.Get(name + ".weight", width), _weights.Get(name + ".bias", width), 1e-6f);

    private Linear Product(string name, int outputs, int inputs, bool bias = true) =>
        new(_weights.Get(name + ".weight", outputs, inputs), bias ? _weights.Get(name + ".bias", outputs) : default);

    private static Rotary MakeDecoderRotary(TextGeometry text)
    {
        var half = text.HeadDim / 2;
        var axis = Enumerable.Range(0, 3).SelectMany(a => Enumerable.Repeat(a, text.MRopeSection[a])).ToArray();
        return new Rotary(text.HeadDim, axis, [.. Enumerable.Range(0, half).Select(i => InverseFrequency(text.RopeTheta, 2 * i, text.HeadDim))]);
    }

    private static Rotary MakeVisionRotary(VisionGeometry vision)
    {
        var (half, quarter) = (vision.HeadDim / 2, vision.HeadDim / 4);
        return new Rotary(
            vision.HeadDim, [.. Enumerable.Range(0, half).Select(i => i < quarter ? 1 : 2)], [.. Enumerable.Range(0, half).Select(i => InverseFrequency(vision.RopeTheta, 2 * (i % quarter), half))]);
    }

    // In float32 at every stage, as the reference computes it.
    private static float InverseFrequency(double theta, int i, int dim) => 1f / (float)Math.Pow(theta, (float)i / dim);
}
