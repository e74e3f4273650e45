using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;

namespace LrIad.Server.OpenAi;

/// <summary>A request of <c>/v1/chat/completions</c>.</summary>
/// <param name="Generation">What the engine is asked.</param>
/// <param name="Model">What the client calls the model.</param>
/// <param name="IsStream">Whether parts are wanted as they come.</param>
/// <param name="WithUsage">Whether a stream ends with the count of tokens.</param>
/// <param name="WithLogProbs">Whether tokens are told.</param>
internal sealed record ChatRequest(GenerationRequest Generation, string Model, bool IsStream, bool WithUsage, bool WithLogProbs)
{
    private const int LongestStop = 256;

    /// <summary>Reads a request.</summary>
    /// <exception cref="RequestException">Something in it is wrong, or asks for what there is not.</exception>
    public static ChatRequest Read(RequestFields fields, IInferenceEngine engine, ImageSources images, ServerOptions options, string client)
    {
        NotOffered.Check(fields);
        var (limits, model, stream, logProbs) = (engine.Limits, fields.TextOrNull("model"), fields.Flag("stream"), fields.Flag("logprobs"));
        var top = fields.Integer("top_logprobs", 0, limits.TopLogProbs) ?? 0;
        if (top > 0 && !logProbs)
        {
            throw fields.Bad("top_logprobs", "needs logprobs to be true");
        }

        var generation = new GenerationRequest
        {
            Adapter = ModelNames.Adapter(engine, model),
            Prompt = Messages.Read(fields, images, limits),
            Completions = fields.Integer("n", 1, limits.CompletionsPerRequest) ?? 1,
            Temperature = (float)(fields.Number("temperature", 0, 2) ?? 1),
            TopP = (float)(fields.Number("top_p", 1e-6, 1) ?? 1),
            TopK = Math.Max(0, fields.Integer("top_k", -1, int.MaxValue) ?? 0),
            Seed = Seed(fields),
            MaxTokens = fields.Integer("max_completion_tokens", 1, limits.CompletionLength) ?? fields.Integer("max_tokens", 1, limits.CompletionLength),
            Stop = Stop(fields, limits),
            IgnoreEnd = fields.Flag("ignore_eos"),
            TopLogProbs = top,
            Constraint = Constraints.Read(fields, options.ConstraintLength),
            Client = client,
        };
        var withUsage = fields.Has("stream_options") && fields.Object("stream_options").Flag("include_usage") && stream;
        return new ChatRequest(generation, model ?? engine.Model.Name, stream, withUsage, logProbs);
    }

    // Any whole number of 64 bits, with a sign or without.
    private static ulong? Seed(RequestFields fields) => !fields.Has("seed") ? null
        : fields.Value("seed") is { ValueKind: JsonValueKind.Number } value
            ? value.TryGetInt64(out var signed) ? unchecked((ulong)signed) : value.TryGetUInt64(out var seed) ? seed : throw fields.Bad("seed", "must be a whole number of 64 bits")
            : throw fields.Bad("seed", "must be a whole number of 64 bits");

    private static IReadOnlyList<string> Stop(RequestFields fields, EngineLimits limits)
    {
        if (!fields.Has("stop"))
        {
            return [];
        }

        var texts = fields.Value("stop").ValueKind == JsonValueKind.String ? [fields.Text("stop")] : fields.Texts("stop");
        return texts.Count > limits.StopTexts ? throw fields.Bad("stop", $"has {texts.Count} texts; {limits.StopTexts} are possible")
            : texts.Any(text => text.Length is 0 or > LongestStop) ? throw fields.Bad("stop", $"must be texts of 1 to {LongestStop} characters")
            : texts;
    }
}
