using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Learn;

/// <summary>What a run has come to, beside the adapter and the optimizer: trainer_state.json.</summary>
internal sealed class TrainerState
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    /// <summary>Steps done.</summary>
    public int Step { get; set; }

    /// <summary>Draws of the sampler so far.</summary>
    public long SamplerPosition { get; set; }

    /// <summary>Id of the next completion: the random counter.</summary>
    public uint NextSample { get; set; }

    /// <summary>Tokens trained on.</summary>
    public long NumTokens { get; set; }

    /// <summary>Classes of the last training samples.</summary>
    public required ClassWindow ClassWindow { get; init; }

    /// <summary>What was logged, a step each.</summary>
    public List<JsonObject> History { get; init; } = [];

    public static TrainerState Read(string file)
    {
        try
        {
            var json = JsonNode.Parse(File.ReadAllBytes(file))!;
            return new TrainerState
            {
                Step = (int)json["global_step"]!,
                SamplerPosition = (long)json["sampler_position"]!,
                NextSample = (uint)json["next_sample"]!,
                NumTokens = (long)json["num_tokens"]!,
                ClassWindow = new ClassWindow(((string)json["class_window"]!).Select(c => c == 'D')),
                History = [.. json["log_history"]!.AsArray().Select(entry => entry!.DeepClone().AsObject())],
            };
        }
        catch (Exception e) when (e is JsonException or NullReferenceException or InvalidOperationException or FormatException or IOException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }
    }

    public void Write(Stream stream)
    {
        var json = new JsonObject
        {
            ["global_step"] = Step,
            ["sampler_position"] = SamplerPosition,
            ["next_sample"] = NextSample,
            ["num_tokens"] = NumTokens,
            ["class_window"] = string.Concat(ClassWindow.Contents.Select(defect => defect ? 'D' : 'N')),
            ["log_history"] = new JsonArray([.. History.Select(entry => entry.DeepClone())]),
        };
        JsonSerializer.Serialize(stream, json, Indented);
    }
}
