using System.Text.Json;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Model;

/// <summary>A LoRA adapter as PEFT keeps it.</summary>
/// <param name="Factors">The four matrices of each layer, B unscaled.</param>
/// <param name="Scale">What B is multiplied by when it acts: alpha / r, or alpha / √r with use_rslora.</param>
/// <param name="Rank">r.</param>
/// <param name="MaxPixels">The image limit it was trained with, where it is known.</param>
internal sealed record Adapter(IReadOnlyList<LayerFactors> Factors, double Scale, int Rank, int? MaxPixels)
{
    /// <summary>The factors as they act: B multiplied by the scale.</summary>
    public IReadOnlyList<LayerFactors> Effective() =>
        [.. Factors.Select(layer => layer with { QueryB = Scaled(layer.QueryB), ValueB = Scaled(layer.ValueB) })];

    private float[] Scaled(float[] values) => [.. values.Select(value => (float)(value * Scale))];
}

/// <summary>
/// Reads and writes PEFT adapter folders: adapter_config.json and adapter_model.safetensors. What PEFT knows no field for lies beside them in lriad.json,
/// because many of its versions refuse a configuration with an unknown field.
/// </summary>
internal static class AdapterFile
{
    private const string Weights = "adapter_model.safetensors";
    private const string Settings = "adapter_config.json";
    private const string Prefix = "base_model.model.model.language_model.layers.";
    private const string Extras = "lriad.json";
    private const string MaxPixelsField = "max_pixels";

    /// <summary>Reads an adapter for a model.</summary>
    /// <exception cref="InputException">A file is missing or broken, or a key, target or shape does not fit the model: an adapter that silently does nothing is worse than none.</exception>
    public static Adapter Load(string folder, ModelGeometry geometry)
    {
        var settingsFile = Path.Combine(folder, Settings);
        if (!File.Exists(settingsFile))
        {
            throw new InputException($"{folder} is not an adapter folder: it has no {Settings}.");
        }

        using var json = JsonFile.Open(settingsFile);
        var settings = json.Root;
        var rank = settings.Count("r");
        CheckSettings(settingsFile, settings);
        var alpha = settings.Number("lora_alpha", 8);
        var scale = settings.Flag("use_rslora", false) ? alpha / Math.Sqrt(rank) : alpha / rank;
        var shape = AdapterWeights.ShapeFor(geometry, rank);
        using var weights = SafeTensors.Open(Path.Combine(folder, Weights));
        return new Adapter(ReadFactors(weights, shape), scale, rank, ReadMaxPixels(Path.Combine(folder, Extras)));
    }

    /// <summary>Writes the files of an adapter into an existing folder.</summary>
    /// <param name="folder">Where.</param>
    /// <param name="parameters">The four matrices of each layer, B unscaled.</param>
    /// <param name="shape">Their sizes.</param>
    /// <param name="lora">Rank, alpha and dropout.</param>
    /// <param name="baseModel">Name of the base model.</param>
    /// <param name="maxPixels">The image limit of the training.</param>
    /// <param name="write">How a file is written: name and contents.</param>
    public static void Save(
        string folder, IReadOnlyList<LayerFactors> parameters, AdapterShape shape, LoraOptions lora, string baseModel, int maxPixels, Action<string, Action<Stream>> write)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(shape);
        ArgumentNullException.ThrowIfNull(lora);
        ArgumentNullException.ThrowIfNull(write);
        write(Path.Combine(folder, Weights), stream => SafeTensorsWriter.Write(stream, parameters.SelectMany((layer, i) => Named(layer, i, shape))));
        var settings = new Dictionary<string, object?>
        {
            ["peft_type"] = "LORA",
            ["task_type"] = "CAUSAL_LM",
            ["base_model_name_or_path"] = baseModel,
            ["r"] = lora.Rank,
            ["lora_alpha"] = lora.Alpha,
            ["lora_dropout"] = lora.Dropout,
            ["target_modules"] = new[] { "q_proj", "v_proj" },
            ["bias"] = "none",
            ["fan_in_fan_out"] = false,
            ["inference_mode"] = true,
            ["init_lora_weights"] = true,
            ["modules_to_save"] = null,
            ["use_dora"] = false,
            ["use_rslora"] = false,
        };
        write(Path.Combine(folder, Settings), stream => JsonSerializer.Serialize(stream, settings, Indented));
        write(Path.Combine(folder, Extras), stream => JsonSerializer.Serialize(stream, new Dictionary<string, int> { [MaxPixelsField] = maxPixels }, Indented));
    }

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    /// <summary>The name of a matrix.</summary>
    public static string Key(int layer, string projection, string factor) => $"{Prefix}{layer}.self_attn.{projection}.lora_{factor}.weight";

    private static IEnumerable<(string Name, int[] Shape, float[] Values)> Named(LayerFactors layer, int i, AdapterShape shape) =>
    [
        (Key(i, "q_proj", "A"), [shape.Rank, shape.Hidden], layer.QueryA),
        (Key(i, "q_proj", "B"), [shape.QueryOutputs, shape.Rank], layer.QueryB),
        (Key(i, "v_proj", "A"), [shape.Rank, shape.Hidden], layer.ValueA),
        (Key(i, "v_proj", "B"), [shape.ValueOutputs, shape.Rank], layer.ValueB),
    ];

    private static void CheckSettings(string file, JsonFields settings)
    {
        var type = settings.Text("peft_type", "LORA");
        if (type != "LORA" || settings.Flag("use_dora", false) || settings.Flag("fan_in_fan_out", false) || settings.Text("bias", "none") != "none")
        {
            throw new InputException($"{file}: only plain LoRA adapters can be loaded (peft_type LORA, bias none, no DoRA, no fan_in_fan_out).");
        }

        foreach (var field in new[] { "rank_pattern", "alpha_pattern" })
        {
            if (settings.Has(field) && settings.Object(field).Any())
            {
                throw new InputException($"{file}: {field} is not supported; rank and alpha must be the same for every layer.");
            }
        }

        // Names; an expression (one with other characters) is judged by the weights it led to.
        var targets = settings.Has("target_modules") ? settings.Texts("target_modules") : [];
        var other = targets.FirstOrDefault(target => target.All(c => char.IsAsciiLetterOrDigit(c) || c is '_' or '.') && target.Split('.')[^1] is not ("q_proj" or "v_proj"));
        if (other is not null)
        {
            throw new InputException($"{file}: target_modules names {other}; only q_proj and v_proj of the language model can be adapted.");
        }

        // Both change what is computed without leaving a trace in the weights.
        if (settings.Has("alora_invocation_tokens") || (settings.IsText("init_lora_weights") && settings.Text("init_lora_weights", "") is not ("gaussian" or "orthogonal" or "eva")))
        {
            throw new InputException($"{file}: activated LoRA and initialisations that change the base model (PiSSA, OLoRA, CorDA, LoftQ) are not supported.");
        }
    }

    private static int? ReadMaxPixels(string file)
    {
        if (!File.Exists(file))
        {
            return null;
        }

        using var json = JsonFile.Open(file);
        return json.Root.Has(MaxPixelsField) ? json.Root.Count(MaxPixelsField) : null;
    }

    private static LayerFactors[] ReadFactors(SafeTensors weights, AdapterShape shape)
    {
        var layers = new LayerFactors[shape.Layers];
        var unread = weights.Names.ToHashSet();
        for (var i = 0; i < shape.Layers; i++)
        {
            var layer = i;
            float[] Read(string projection, string factor, int rows, int columns)
            {
                var name = Key(layer, projection, factor);
                name = weights.Contains(name) ? name : name.Replace("language_model.", "", StringComparison.Ordinal);
                if (!weights.Contains(name))
                {
                    throw new InputException($"{weights.File}: {Key(layer, projection, factor)} is missing; the model has {shape.Layers} layers with q_proj and v_proj each.");
                }

                unread.Remove(name);
                var found = weights.Shape(name);
                if (!found.SequenceEqual([rows, columns]))
                {
                    throw new InputException($"{weights.File}: {name} has shape [{string.Join(", ", found)}]; the model asks for [{rows}, {columns}].");
                }

                var values = weights.Read(name);
                return Array.TrueForAll(values, float.IsFinite) ? values : throw new InputException($"{weights.File}: {name} holds values that are not finite.");
            }

            layers[i] = new LayerFactors(
                Read("q_proj", "A", shape.Rank, shape.Hidden), Read("q_proj", "B", shape.QueryOutputs, shape.Rank),
                Read("v_proj", "A", shape.Rank, shape.Hidden), Read("v_proj", "B", shape.ValueOutputs, shape.Rank));
        }

        return unread.Count == 0
            ? layers
            : throw new InputException($"{weights.File}: {unread.Count} tensors match nothing in the model, {unread.Order().First()} for one. Only q_proj and v_proj of the language model can be adapted.");
    }
}
