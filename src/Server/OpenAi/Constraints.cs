using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;

namespace LrIad.Server.OpenAi;

/// <summary>Reads what a completion must look like: OpenAI's <c>response_format</c>, vLLM's <c>structured_outputs</c> and its older <c>guided_…</c> fields.</summary>
internal static class Constraints
{
    private const string AnyObject = """{"type":"object"}""";

    /// <summary>The constraint, or null.</summary>
    /// <exception cref="RequestException">There are several, or one is longer than the limit in characters.</exception>
    public static OutputConstraint? Read(RequestFields fields, int limit)
    {
        var all = new List<OutputConstraint?> { ResponseFormat(fields, limit) };
        if (fields.Has("structured_outputs"))
        {
            all.AddRange(Structured(fields.Object("structured_outputs"), "", limit));
        }

        all.AddRange(Structured(fields, "guided_", limit));
        var given = all.OfType<OutputConstraint>().ToArray();
        return given.Length <= 1 ? given.FirstOrDefault() : throw fields.Bad("response_format", "and vLLM's structured outputs together may say one thing alone of a completion");
    }

    private static OutputConstraint? ResponseFormat(RequestFields fields, int limit)
    {
        if (!fields.Has("response_format"))
        {
            return null;
        }

        var format = fields.Object("response_format");
        return format.Text("type") switch
        {
            "text" => null,
            "json_object" => OutputConstraint.ToJsonSchema(AnyObject),
            "json_schema" => Schema(format.Object("json_schema"), "schema", limit),
            var type => throw format.Bad("type", $"must be text, json_object or json_schema, not {RequestFields.Shown(type)}"),
        };
    }

    private static IEnumerable<OutputConstraint?> Structured(RequestFields fields, string prefix, int limit)
    {
        foreach (var name in new[] { "grammar", "structural_tag" }.Select(name => prefix + name).Where(fields.Has))
        {
            throw fields.Bad(name, "is not offered: a JSON schema, a regular expression or a list of choices is");
        }

        yield return fields.Has(prefix + "json") ? Schema(fields, prefix + "json", limit) : null;
        yield return fields.Has(prefix + "regex") ? OutputConstraint.ToRegex(Short(fields, prefix + "regex", fields.Text(prefix + "regex"), limit)) : null;
        yield return fields.Has(prefix + "choice") ? Choice(fields, prefix + "choice", limit) : null;
        yield return fields.Flag(prefix + "json_object") ? OutputConstraint.ToJsonSchema(AnyObject) : null;
    }

    // An object, or its text.
    private static OutputConstraint Schema(RequestFields fields, string name, int limit)
    {
        var value = fields.Value(name);
        var text = value.ValueKind switch
        {
            JsonValueKind.Object => value.GetRawText(),
            JsonValueKind.String => fields.Text(name),
            _ => throw fields.Bad(name, "must be a JSON schema"),
        };
        return OutputConstraint.ToJsonSchema(Short(fields, name, text, limit));
    }

    private static OutputConstraint Choice(RequestFields fields, string name, int limit)
    {
        var choices = fields.Texts(name);
        return choices.Count == 0 || choices.Any(choice => choice.Length == 0) ? throw fields.Bad(name, "must be texts to choose from, none of them empty")
            : choices.Sum(choice => (long)choice.Length) > limit ? throw TooLong(fields, name, limit)
            : OutputConstraint.ToChoice(choices);
    }

    private static string Short(RequestFields fields, string name, string text, int limit) => text.Length <= limit ? text : throw TooLong(fields, name, limit);

    private static RequestException TooLong(RequestFields fields, string name, int limit) => fields.Bad(name, $"is longer than the {limit} characters it may have here");
}
