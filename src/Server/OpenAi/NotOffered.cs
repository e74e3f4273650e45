using System.Text.Json;
using LrIad.Server.Requests;

namespace LrIad.Server.OpenAi;

/// <summary>
/// Fields that would change the answer and are not offered: refused by name where they ask for something, never passed over in silence. Fields that nobody here knows, and those
/// that change nothing (<c>user</c>, <c>metadata</c>), are ignored.
/// </summary>
internal static class NotOffered
{
    // By what they may say without asking for anything, beside null, false and an empty list or object.
    private static readonly (string Name, string Neutral)[] Fields =
    [
        .. new[] { "frequency_penalty", "presence_penalty", "min_p", "min_tokens" }.Select(name => (name, "0")),
        .. new[] { "repetition_penalty", "length_penalty", "best_of" }.Select(name => (name, "1")),
        .. new[] { "add_generation_prompt", "skip_special_tokens", "spaces_between_special_tokens" }.Select(name => (name, "true")),
        .. new[]
        {
            "logit_bias", "use_beam_search", "stop_token_ids", "bad_words", "allowed_token_ids", "prompt_logprobs", "echo", "include_stop_str_in_output", "continue_final_message",
            "add_special_tokens", "truncate_prompt_tokens", "mm_processor_kwargs", "documents", "logits_processors", "return_tokens_as_token_ids", "return_token_ids", "audio",
            "web_search_options", "vllm_xargs", "kv_transfer_params",
        }.Select(name => (name, "null")),
        ("modalities", """["text"]"""),
        ("reasoning_effort", "\"none\""),
    ];

    private static readonly string[] Tools = ["tools", "functions", "function_call", "tool_choice"];

    /// <exception cref="RequestException">One of them asks for something.</exception>
    public static void Check(RequestFields fields)
    {
        foreach (var name in Tools.Where(name => Asks(fields, name, "\"none\"")))
        {
            throw fields.Bad(name, "cannot be used: this model calls no tools");
        }

        foreach (var name in new[] { "chat_template", "chat_template_kwargs" }.Where(name => Asks(fields, name, "null")))
        {
            throw fields.Bad(name, "cannot be given by a request: the model's own template is used");
        }

        foreach (var (name, neutral) in Fields.Where(field => Asks(fields, field.Name, field.Neutral)))
        {
            throw fields.Bad(name, $"is not offered here: leave it out{(neutral == "null" ? "" : $", or {neutral}")}");
        }
    }

    private static bool Asks(RequestFields fields, string name, string neutral)
    {
        if (!fields.Has(name))
        {
            return false;
        }

        using var document = JsonDocument.Parse(neutral);
        var value = fields.Value(name);
        return value.ValueKind switch
        {
            JsonValueKind.False => neutral == "true",
            JsonValueKind.Array when value.GetArrayLength() == 0 => false,
            JsonValueKind.Object when !value.EnumerateObject().MoveNext() => false,
            _ => !JsonElement.DeepEquals(value, document.RootElement),
        };
    }
}
