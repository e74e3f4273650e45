using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Inspect;

/// <summary>How images are to be inspected: what <c>/inspect</c> and its jobs have in common.</summary>
/// <param name="Request">The request; a job's has no image yet.</param>
/// <param name="Threshold">The verdict is that of the score, defect where it reaches this; null: the model's own.</param>
internal sealed record InspectCall(InspectionRequest Request, double? Threshold)
{
    // As the command line has it; and no object's name is longer.
    private const int MaxTokens = 256, LongestName = 200;

    /// <summary>Reads a request whose images are in its JSON.</summary>
    /// <exception cref="RequestException">A field is wrong.</exception>
    public static InspectCall Read(RequestFields fields, IInferenceEngine engine, ImageSources sources, ImageData image, string client)
    {
        var references = fields.Has("references") ? fields.Items("references").ToArray() : [];
        CheckImages(references.Length, engine.Limits);
        return Read(fields, engine, image, [.. references.Select((reference, i) => sources.FromUrl(reference, fields.Path($"references[{i}]")))], client);
    }

    /// <summary>Reads a request whose images came beside its fields.</summary>
    /// <inheritdoc cref="Read(RequestFields, IInferenceEngine, ImageSources, ImageData, string)"/>
    public static InspectCall Read(RequestFields fields, IInferenceEngine engine, ImageData image, IReadOnlyList<ImageData> references, string client)
    {
        CheckImages(references.Count, engine.Limits);
        var name = fields.Text("object").Trim();
        return name.Length is 0 or > LongestName ? throw fields.Bad("object", $"must name what the image shows, in at most {LongestName} characters") : new InspectCall(
            new InspectionRequest
            {
                Image = image,
                Object = name,
                References = references,
                Adapter = ModelNames.Adapter(engine, fields.TextOrNull("adapter")),
                MaxTokens = fields.Integer("max_tokens", 1, engine.Limits.CompletionLength) ?? Math.Min(MaxTokens, engine.Limits.CompletionLength),
                Client = client,
            },
            fields.Number("threshold", double.MinValue, double.MaxValue));
    }

    private static void CheckImages(int references, EngineLimits limits)
    {
        if (references >= limits.ImagesPerRequest)
        {
            throw new RequestException(StatusCodes.Status400BadRequest, $"references must be fewer than the {limits.ImagesPerRequest} images a request may have here.", "references");
        }
    }
}
