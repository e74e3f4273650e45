using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Server.OpenAi;
using LrIad.Server.Requests;

namespace LrIad.Server.Trl;

/// <summary>How a request to <c>/generate/</c> or <c>/chat/</c> wants its completions drawn: its fields, and over them those of its <c>generation_kwargs</c> (vLLM's <c>SamplingParams</c>).</summary>
/// <param name="Request">All but the prompt.</param>
/// <param name="WithLogProbs">Whether log-probs are wanted.</param>
internal sealed record TrlSampling(GenerationRequest Request, bool WithLogProbs)
{
    // TRL's own, where a request names none.
    private const int MaxTokens = 16;

    private static readonly Prompt NoPrompt = new RawPrompt("", []);

    // What generation_kwargs may name: what is offered, what concerns texts (the answer has none), and what has a value that asks for nothing.
    private static readonly HashSet<string> Offered = ["n", "temperature", "top_p", "top_k", "max_tokens", "logprobs", "seed", "stop", "ignore_eos", "structured_outputs", "adapter"];
    private static readonly HashSet<string> OfTexts = ["detokenize", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output"];
    private static readonly Dictionary<string, double> Neutral = new() { ["repetition_penalty"] = 1, ["min_p"] = 0, ["frequency_penalty"] = 0, ["presence_penalty"] = 0, ["min_tokens"] = 0 };

    /// <exception cref="RequestException">A field is wrong, or asks for what is not offered.</exception>
    public static TrlSampling Read(RequestFields fields, IInferenceEngine engine, ServerOptions options, string client)
    {
        var more = fields.Has("generation_kwargs") ? fields.Object("generation_kwargs") : default(RequestFields?);
        CheckOffered(fields, more);
        RequestFields Of(string name) => more is { } given && given.IsNamed(name) ? given : fields;
        var (limits, logProbs) = (engine.Limits, Of("logprobs"));
        var request = new GenerationRequest
        {
            Prompt = NoPrompt,
            Adapter = ModelNames.Adapter(engine, Of("adapter").TextOrNull("adapter")),
            Completions = Of("n").Integer("n", 1, limits.CompletionsPerRequest) ?? 1,
            Temperature = (float)(Of("temperature").Number("temperature", 0, 100) ?? 1),
            TopP = (float)(Of("top_p").Number("top_p", float.Epsilon, 1) ?? 1),
            TopK = Math.Max(0, Of("top_k").Integer("top_k", -1, int.MaxValue) ?? 0),
            MaxTokens = Of("max_tokens").Integer("max_tokens", 1, limits.CompletionLength) ?? MaxTokens,
            Seed = Of("seed").Integer("seed", 0, int.MaxValue) is { } seed ? (ulong)seed : null,
            Stop = Stop(Of("stop")),
            IgnoreEnd = Of("ignore_eos").Flag("ignore_eos"),
            TopLogProbs = logProbs.Integer("logprobs", 0, limits.TopLogProbs) ?? 0,
            Constraint = Constraint(fields, more, options.ConstraintLength),
            Client = client,
        };

        // Left out it is 0, the drawn token alone; null is none at all.
        return new TrlSampling(request, WithLogProbs: logProbs.Has("logprobs") || !logProbs.IsNamed("logprobs"));
    }

    private static void CheckOffered(RequestFields fields, RequestFields? more)
    {
        foreach (var name in more?.Names ?? [])
        {
            if (more!.Value.Has(name) && !Offered.Contains(name) && !OfTexts.Contains(name) && !Neutral.ContainsKey(name))
            {
                throw more.Value.Bad(name, "is not offered here: leave it out");
            }
        }

        foreach (var (name, neutral) in Neutral)
        {
            foreach (var given in new[] { fields, more ?? fields })
            {
                if (given.Number(name, double.MinValue, double.MaxValue) is { } value && value != neutral)
                {
                    throw given.Bad(name, $"is not offered here: leave it out, or {neutral}");
                }
            }
        }

        if (fields.Has("tools") && fields.Items("tools").Any())
        {
            throw fields.Bad("tools", "cannot be used: this model calls no tools");
        }

        if (fields.Has("chat_template_kwargs") && fields.Object("chat_template_kwargs").Names.Any())
        {
            throw fields.Bad("chat_template_kwargs", "cannot be given by a request: the model's own template is used");
        }
    }

    private static IReadOnlyList<string> Stop(RequestFields fields) => !fields.Has("stop") ? []
        : fields.Value("stop").ValueKind == JsonValueKind.String ? [fields.Text("stop")] : fields.Texts("stop");

    // TRL has a field of its own for a regular expression (guided_decoding_regex in older versions); the rest of vLLM's structured outputs comes in generation_kwargs.
    private static OutputConstraint? Constraint(RequestFields fields, RequestFields? more, int limit)
    {
        foreach (var name in new[] { "structured_outputs_regex", "guided_decoding_regex" })
        {
            if (fields.TextOrNull(name) is { } pattern)
            {
                return pattern.Length <= limit ? OutputConstraint.ToRegex(pattern) : throw fields.Bad(name, $"is longer than the {limit} characters it may have here");
            }
        }

        return more is { } given ? Constraints.Read(given, limit) : null;
    }
}
