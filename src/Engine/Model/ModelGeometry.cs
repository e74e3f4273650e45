namespace LrIad.Engine.Model;

/// <summary>Sizes of the decoder.</summary>
internal sealed record TextGeometry
{
    /// <summary>Width of the residual stream.</summary>
    public required int Hidden { get; init; }

    /// <summary>Decoder layers.</summary>
    public required int Layers { get; init; }

    /// <summary>Query heads.</summary>
    public required int Heads { get; init; }

    /// <summary>Key-value heads.</summary>
    public required int KeyValueHeads { get; init; }

    /// <summary>Columns of a head.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Width of the feed-forward block.</summary>
    public required int Intermediate { get; init; }

    /// <summary>Rows of the embedding table.</summary>
    public required int Vocabulary { get; init; }

    /// <summary>Epsilon of the RMS norms.</summary>
    public required float NormEpsilon { get; init; }

    /// <summary>Base of the rotary frequencies.</summary>
    public required double RopeTheta { get; init; }

    /// <summary>How many frequencies follow the temporal, height and width position.</summary>
    public required int[] MRopeSection { get; init; }

    /// <summary>Whether the head is the embedding table.</summary>
    public required bool TiedHead { get; init; }
}

/// <summary>Sizes of the vision encoder.</summary>
internal sealed record VisionGeometry
{
    /// <summary>Width of the encoder.</summary>
    public required int EmbedDim { get; init; }

    /// <summary>Layers.</summary>
    public required int Depth { get; init; }

    /// <summary>Heads.</summary>
    public required int Heads { get; init; }

    /// <summary>Width of the feed-forward block.</summary>
    public required int Intermediate { get; init; }

    /// <summary>Pixels on a patch's side.</summary>
    public required int PatchSize { get; init; }

    /// <summary>Frames in a patch.</summary>
    public required int TemporalPatchSize { get; init; }

    /// <summary>Patches on a merged token's side.</summary>
    public required int MergeSize { get; init; }

    /// <summary>Colour channels.</summary>
    public required int Channels { get; init; }

    /// <summary>Base of the rotary frequencies.</summary>
    public double RopeTheta { get; init; } = 10_000;

    /// <summary>Columns of a head.</summary>
    public int HeadDim => EmbedDim / Heads;

    /// <summary>Values in a patch.</summary>
    public int PatchValues => Channels * TemporalPatchSize * PatchSize * PatchSize;
}

/// <summary>What config.json says, in either of the two forms Qwen2-VL folders have (flat, as published; nested, as transformers 5 saves them).</summary>
internal sealed record ModelGeometry
{
    /// <summary>The decoder.</summary>
    public required TextGeometry Text { get; init; }

    /// <summary>The vision encoder.</summary>
    public required VisionGeometry Vision { get; init; }

    /// <summary>The token that image features stand in for.</summary>
    public required int ImageTokenId { get; init; }

    /// <summary>The token before an image.</summary>
    public required int VisionStartTokenId { get; init; }

    /// <summary>End tokens that config.json names; generation_config.json goes before it.</summary>
    public required int[] EndTokens { get; init; }

    /// <summary>Qwen2-VL-7B as published.</summary>
    public static ModelGeometry Qwen2Vl7B { get; } = Qwen2Vl(3584, 28, 28, 4, 18944, 152064, tiedHead: false);

    /// <summary>Qwen2-VL-2B as published.</summary>
    public static ModelGeometry Qwen2Vl2B { get; } = Qwen2Vl(1536, 28, 12, 2, 8960, 151936, tiedHead: true);

    /// <summary>Reads and checks a config.json.</summary>
    /// <exception cref="InputException">A field is missing, unreadable or impossible.</exception>
    public static ModelGeometry Read(string file)
    {
        using var json = JsonFile.Open(file);
        var root = json.Root;
        var type = root.Text("model_type", "");
        if (type != "qwen2_vl")
        {
            throw new InputException($"{file}: model_type is '{type}'; only qwen2_vl models can be loaded.");
        }

        var text = root.Has("text_config") ? root.Object("text_config") : root;
        var rope = text.Has("rope_parameters") ? text.Object("rope_parameters") : text.Has("rope_scaling") ? text.Object("rope_scaling") : text;
        var vision = root.Object("vision_config");
        var (hidden, heads) = (text.Count("hidden_size"), text.Count("num_attention_heads"));
        var embed = vision.Count("embed_dim", 1280);
        CheckSupported(file, text, rope, vision);
        var geometry = new ModelGeometry
        {
            Text = new TextGeometry
            {
                Hidden = hidden,
                Layers = text.Count("num_hidden_layers"),
                Heads = heads,
                KeyValueHeads = text.Count("num_key_value_heads", heads),
                HeadDim = text.Count("head_dim", hidden % heads == 0 ? hidden / heads : null),
                Intermediate = text.Count("intermediate_size"),
                Vocabulary = text.Count("vocab_size"),
                NormEpsilon = (float)text.Number("rms_norm_eps", 1e-6),
                RopeTheta = rope.Number("rope_theta", text.Number("rope_theta", 1_000_000)),
                MRopeSection = rope.Counts("mrope_section"),
                TiedHead = root.Flag("tie_word_embeddings", text.Flag("tie_word_embeddings", false)),
            },
            Vision = new VisionGeometry
            {
                EmbedDim = embed,
                Depth = vision.Count("depth", 32),
                Heads = vision.Count("num_heads", 16),
                Intermediate = (int)Math.Clamp(embed * vision.Number("mlp_ratio", 4), 0, int.MaxValue),
                PatchSize = vision.Count("patch_size", vision.Count("spatial_patch_size", 14)),
                TemporalPatchSize = vision.Count("temporal_patch_size", 2),
                MergeSize = vision.Count("spatial_merge_size", 2),
                Channels = vision.Count("in_channels", vision.Count("in_chans", 3)),
                RopeTheta = vision.Has("rope_parameters") ? vision.Object("rope_parameters").Number("rope_theta", 10_000) : 10_000,
            },
            ImageTokenId = root.Count("image_token_id"),
            VisionStartTokenId = root.Count("vision_start_token_id"),
            EndTokens = text.Has("eos_token_id") ? text.Counts("eos_token_id") : [],
        };
        geometry.Check(file);
        return geometry;
    }

    // What would otherwise load and silently compute something else.
    private static void CheckSupported(string file, JsonFields text, JsonFields rope, JsonFields vision)
    {
        Only("hidden_act", text.Text("hidden_act", "silu"), "silu");
        Only("vision_config.hidden_act", vision.Text("hidden_act", "quick_gelu"), "quick_gelu");
        Only("rope type", rope.Text("rope_type", "default"), "default", "mrope");
        Only("rope type", rope.Text("type", "mrope"), "default", "mrope");
        Only("use_sliding_window", text.Flag("use_sliding_window", false) ? "true" : "false", "false");

        void Only(string name, string found, params string[] supported)
        {
            if (!supported.Contains(found))
            {
                throw new InputException($"{file}: {name} is {found}; only {string.Join(" or ", supported)} is supported.");
            }
        }
    }

    private void Check(string file)
    {
        const int Widest = 1 << 20;
        var (text, vision) = (Text, Vision);
        Require(text.Heads % text.KeyValueHeads == 0, $"{text.Heads} query heads cannot share {text.KeyValueHeads} key-value heads");
        Require(text.HeadDim % 2 == 0, $"head_dim {text.HeadDim} is odd");
        Require((long)text.Heads * text.HeadDim <= Widest, $"{text.Heads} heads of {text.HeadDim} columns are more than any Qwen2-VL has");
        Require(text.MRopeSection.Length == 3 && text.MRopeSection.Sum(size => (long)size) == text.HeadDim / 2, $"mrope_section [{string.Join(", ", text.MRopeSection)}] does not fill {text.HeadDim / 2} frequencies");
        Require(text.NormEpsilon > 0 && text.RopeTheta > 0 && vision.RopeTheta > 0, "rms_norm_eps and rope_theta must be positive");
        Require(vision.EmbedDim % vision.Heads == 0 && vision.HeadDim % 4 == 0, $"{vision.Heads} vision heads do not divide {vision.EmbedDim} columns into multiples of 4");
        Require(vision.EmbedDim <= Widest && vision.Intermediate is > 0 and <= Widest, $"embed_dim {vision.EmbedDim} with this mlp_ratio is not a width any Qwen2-VL has");
        Require(vision.MergeSize == 2, $"spatial_merge_size is {vision.MergeSize}; only 2 is supported");
        Require(vision.Channels == 3, $"in_channels is {vision.Channels}; only 3 (red, green, blue) is supported");
        Require((long)vision.PatchSize * vision.PatchSize * vision.TemporalPatchSize <= Widest, $"patches of {vision.TemporalPatchSize} x {vision.PatchSize} x {vision.PatchSize} are larger than any Qwen2-VL has");
        Require(ImageTokenId < text.Vocabulary, $"image_token_id {ImageTokenId} is outside the vocabulary of {text.Vocabulary}");

        void Require(bool holds, string otherwise)
        {
            if (!holds)
            {
                throw new InputException($"{file}: {otherwise}.");
            }
        }
    }

    private static ModelGeometry Qwen2Vl(int hidden, int layers, int heads, int keyValueHeads, int intermediate, int vocabulary, bool tiedHead) => new()
    {
        Text = new TextGeometry
        {
            Hidden = hidden,
            Layers = layers,
            Heads = heads,
            KeyValueHeads = keyValueHeads,
            HeadDim = hidden / heads,
            Intermediate = intermediate,
            Vocabulary = vocabulary,
            NormEpsilon = 1e-6f,
            RopeTheta = 1_000_000,
            MRopeSection = [16, 24, 24],
            TiedHead = tiedHead,
        },
        Vision = new VisionGeometry { EmbedDim = 1280, Depth = 32, Heads = 16, Intermediate = 5120, PatchSize = 14, TemporalPatchSize = 2, MergeSize = 2, Channels = 3 },
        ImageTokenId = 151655,
        VisionStartTokenId = 151652,
        EndTokens = [],
    };
}
