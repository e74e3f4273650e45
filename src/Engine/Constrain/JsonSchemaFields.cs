using System.Globalization;
using System.Text.Json;

namespace LrIad.Engine.Constrain;

/// <summary>The keywords of one schema, asked for by name and kind; what is of another kind is an error that names the place.</summary>
internal readonly struct JsonSchemaFields
{
    private static readonly string[] TypeNames = ["object", "array", "string", "number", "integer", "boolean", "null"];

    private readonly JsonElement _element;

    public JsonSchemaFields(JsonElement element, string at)
    {
        (_element, At) = (element, at);
        if (element.ValueKind != JsonValueKind.Object)
        {
            throw Bad("is no schema: neither an object nor true or false");
        }
    }

    /// <summary>Where it stands: a JSON pointer.</summary>
    public string At { get; }

    public IEnumerable<string> Names => _element.EnumerateObject().Select(property => property.Name);

    public bool Has(string name) => _element.TryGetProperty(name, out _);

    public JsonElement Field(string name) => _element.GetProperty(name);

    /// <summary>The types it names, or null.</summary>
    public IReadOnlyList<string>? Types()
    {
        if (!Has("type"))
        {
            return null;
        }

        var types = Field("type").ValueKind == JsonValueKind.String ? [Field("type").GetString()!] : Strings("type");
        var schema = this;
        return types.Count == 0 ? throw Bad("has an empty list of types")
            : types.FirstOrDefault(type => !TypeNames.Contains(type)) is { } unknown ? throw schema.Bad($"uses the type '{unknown}', which does not exist; {string.Join(", ", TypeNames)} do")
            : [.. types.Distinct()];
    }

    public string String(string name) => Field(name).ValueKind == JsonValueKind.String ? Field(name).GetString()! : throw Bad(name, "a string");

    /// <summary>A list of strings; empty where it is missing.</summary>
    public IReadOnlyList<string> Strings(string name)
    {
        if (!Has(name))
        {
            return [];
        }

        var schema = this;
        return Field(name).ValueKind == JsonValueKind.Array
            ? [.. Field(name).EnumerateArray().Select(item => item.ValueKind == JsonValueKind.String ? item.GetString()! : throw schema.Bad(name, "a list of strings"))]
            : throw Bad(name, "a list of strings");
    }

    /// <summary>A list that is not empty, each item with its place.</summary>
    public IReadOnlyList<(JsonElement Value, string At)> List(string name)
    {
        var at = $"{At}/{name}";
        return Field(name).ValueKind == JsonValueKind.Array && Field(name).GetArrayLength() > 0
            ? [.. Field(name).EnumerateArray().Select((item, i) => (item, string.Create(CultureInfo.InvariantCulture, $"{at}/{i}")))]
            : throw Bad(name, "a list that is not empty");
    }

    /// <summary>The fields of an object, each with its place; none where it is missing.</summary>
    public IReadOnlyList<(string Key, JsonElement Value, string At)> Members(string name)
    {
        if (!Has(name))
        {
            return [];
        }

        var at = $"{At}/{name}";
        return Field(name).ValueKind == JsonValueKind.Object
            ? [.. Field(name).EnumerateObject().Select(member => (member.Name, member.Value, $"{at}/{Escape(member.Name)}"))]
            : throw Bad(name, "an object");
    }

    /// <summary>A schema under a keyword with its place, or null.</summary>
    public (JsonElement? Value, string At) Child(string name) => (Has(name) ? Field(name) : null, $"{At}/{name}");

    public int? Count(string name) => !Has(name) ? null : Field(name).ValueKind == JsonValueKind.Number && Field(name).TryGetInt32(out var count) && count >= 0 ? count : throw Bad(name, "a whole number from 0 on");

    /// <summary>An end of a range of numbers, or null.</summary>
    public DecimalRange.Bound? Bound(string name, bool exclusive)
    {
        if (!Has(name))
        {
            return null;
        }

        return Field(name).ValueKind == JsonValueKind.Number && Field(name).TryGetDecimal(out var value) && decimal.Round(value, DecimalRange.MaxDigits) == value
            ? new DecimalRange.Bound(value, exclusive)
            : throw Bad(name, $"a number that 28 digits hold, at most {DecimalRange.MaxDigits} of them after the point");
    }

    /// <summary>What $ref points to, and where that is.</summary>
    public (JsonElement Target, string At) Resolve(JsonElement root)
    {
        var reference = String("$ref");
        if (reference.Length == 0 || reference[0] != '#' || (reference.Length > 1 && reference[1] != '/'))
        {
            throw Bad($"refers to '{reference}'; only places in the schema itself are supported, as #/$defs/name");
        }

        var target = root;
        var at = Uri.UnescapeDataString(reference[1..]);
        foreach (var step in at.Split('/').Skip(1).Select(step => step.Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal)))
        {
            var found = target.ValueKind switch
            {
                JsonValueKind.Object when target.TryGetProperty(step, out var member) => member,
                JsonValueKind.Array when int.TryParse(step, NumberStyles.None, CultureInfo.InvariantCulture, out var index) && index < target.GetArrayLength() => target[index],
                _ => throw Bad($"refers to '{reference}', which is not there"),
            };
            target = found;
        }

        return (target, at);
    }

    public static bool IsOfType(JsonElement value, string type) => value.ValueKind switch
    {
        JsonValueKind.Object => type == "object",
        JsonValueKind.Array => type == "array",
        JsonValueKind.String => type == "string",
        JsonValueKind.Number => type == "number" || (type == "integer" && value.TryGetDecimal(out var number) && number == decimal.Truncate(number)),
        JsonValueKind.Null => type == "null",
        _ => type == "boolean",
    };

    public InputException Bad(string problem) => new(At.Length == 0 ? $"The JSON schema {problem}." : $"The JSON schema's {At} {problem}.");

    private InputException Bad(string name, string expected) => new($"The JSON schema's {At}/{name} must be {expected}.");

    private static string Escape(string name) => name.Replace("~", "~0", StringComparison.Ordinal).Replace("/", "~1", StringComparison.Ordinal);
}
