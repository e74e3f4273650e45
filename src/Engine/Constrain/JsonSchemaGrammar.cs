using System.Text.Json;

namespace LrIad.Engine.Constrain;

/// <summary>
/// The texts that are JSON values of a schema, for the part of JSON Schema that describes them piece by piece. What a schema leaves open is left out: properties and items that it does not
/// declare are not written, a schema without a type is of the type that its keywords speak of.
/// </summary>
internal sealed class JsonSchemaGrammar
{
    /// <summary>Levels of objects and arrays in a value that the schema leaves free.</summary>
    public const int FreeDepth = 3;

    /// <summary>The same for a schema that leaves everything free, or all but that it is an object or an array.</summary>
    public const int FreeDepthOfAll = 5;

    /// <summary>How often a $ref may lead into itself.</summary>
    public const int MaxRecursion = 4;

    private const int MaxBytes = 64 * 1024;
    private const int MaxDepth = 64;
    private const int MaxSchemas = 20_000;
    private const int MaxKeyLength = 200;
    private const int MaxPrefixItems = 100;

    private static readonly HashSet<string> Annotations =
        ["title", "description", "default", "example", "examples", "$schema", "$id", "$comment", "$defs", "definitions", "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType"];

    private static readonly Dictionary<string, string[]> KeywordsOfTypes = new()
    {
        ["object"] = ["properties", "required", "additionalProperties"],
        ["array"] = ["items", "prefixItems", "minItems", "maxItems"],
        ["string"] = ["minLength", "maxLength", "pattern", "format"],
        ["number"] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
        ["integer"] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
        ["boolean"] = [],
        ["null"] = [],
    };

    // Those that say all by themselves. Only enum and const may have a type beside them.
    private static readonly string[] Alone = ["$ref", "allOf", "anyOf", "oneOf", "enum", "const"];

    private readonly JsonElement _root;
    private readonly Dictionary<string, int> _references = [];
    private int _schemas;
    private int _depth;

    private JsonSchemaGrammar(JsonElement root) => _root = root;

    /// <exception cref="InputException">It is no JSON, no schema, too large, or uses what is not supported.</exception>
    public static RegexNode Parse(string schema)
    {
        if (System.Text.Encoding.UTF8.GetByteCount(schema) > MaxBytes)
        {
            throw new InputException($"The JSON schema is larger than {MaxBytes / 1024} KiB.");
        }

        try
        {
            using var document = JsonDocument.Parse(schema, new JsonDocumentOptions { MaxDepth = MaxDepth, AllowDuplicateProperties = false });
            if (!HasWholeCharacters(document.RootElement))
            {
                throw new InputException("The JSON schema has a string with half a surrogate pair.");
            }

            var node = new JsonSchemaGrammar(document.RootElement).Value(document.RootElement, "");
            return node.IsNothing ? throw new InputException("No JSON value fits the JSON schema (with recursion as deep as is supported).") : node;
        }
        catch (JsonException e)
        {
            throw new InputException($"The JSON schema is not readable JSON: {e.Message}", e);
        }
    }

    private static bool HasWholeCharacters(JsonElement element)
    {
        try
        {
            return element.ValueKind switch
            {
                JsonValueKind.String => element.GetString() is not null,
                JsonValueKind.Array => element.EnumerateArray().All(HasWholeCharacters),
                JsonValueKind.Object => element.EnumerateObject().All(member => member.Name is not null && HasWholeCharacters(member.Value)),
                _ => true,
            };
        }
        catch (InvalidOperationException)
        {
            return false;
        }
    }

    private RegexNode Value(JsonElement element, string at)
    {
        if (element.ValueKind is JsonValueKind.True or JsonValueKind.False)
        {
            return element.ValueKind == JsonValueKind.True ? JsonValues.Any(at.Length == 0 ? FreeDepthOfAll : FreeDepth) : RegexNode.Nothing;
        }

        var schema = new JsonSchemaFields(element, at);
        if (++_schemas > MaxSchemas)
        {
            throw new InputException($"The JSON schema is too large: with its references followed it has more than {MaxSchemas:N0} parts.");
        }

        if (++_depth > MaxDepth)
        {
            throw schema.Bad($"nests more than {MaxDepth} deep with its references followed, which is not supported");
        }

        var names = schema.Names.Where(name => !Annotations.Contains(name) && !name.StartsWith("x-", StringComparison.Ordinal)).ToList();
        if (names.Find(name => name != "type" && !Alone.Contains(name) && !KeywordsOfTypes.Values.Any(keywords => keywords.Contains(name))) is { } unknown)
        {
            throw schema.Bad($"uses '{unknown}', which is not supported");
        }

        var node = names.Find(Alone.Contains) is { } alone ? Single(schema, alone, names) : Typed(schema, names);
        _depth--;
        return node;
    }

    private RegexNode Single(JsonSchemaFields schema, string keyword, List<string> names)
    {
        var types = schema.Types();
        if (names.Find(name => name != keyword && !(name == "type" && keyword is "enum" or "const")) is { } beside)
        {
            throw schema.Bad($"uses '{beside}' beside '{keyword}', which is not supported");
        }

        switch (keyword)
        {
            case "$ref":
                return Reference(schema);
            case "const":
                return Fits(schema.Field("const")) ? JsonText.Value(schema.Field("const")) : RegexNode.Nothing;
            case "enum":
                return RegexNode.AnyOf([.. schema.List("enum").Select(item => item.Value).Where(Fits).Select(JsonText.Value)]);
            default:
                var branches = schema.List(keyword);
                return keyword == "allOf" && branches.Count > 1
                    ? throw schema.Bad("uses 'allOf' of more than one schema, which is not supported")
                    : RegexNode.AnyOf([.. branches.Select(branch => Value(branch.Value, branch.At))]);
        }

        bool Fits(JsonElement value) => types is null || types.Any(type => JsonSchemaFields.IsOfType(value, type));
    }

    private RegexNode Reference(JsonSchemaFields schema)
    {
        var (target, at) = schema.Resolve(_root);
        var active = _references.GetValueOrDefault(at);
        if (active > MaxRecursion)
        {
            return RegexNode.Nothing;
        }

        _references[at] = active + 1;
        var node = Value(target, at);
        _references[at] = active;
        return node;
    }

    private RegexNode Typed(JsonSchemaFields schema, List<string> names)
    {
        var types = schema.Types() ?? [.. KeywordsOfTypes.Where(type => type.Key != "integer" && type.Value.Any(names.Contains)).Select(type => type.Key)];
        return types.Count == 0 ? JsonValues.Any(FreeLevels(schema)) : RegexNode.AnyOf([.. types.Select(type => type switch
        {
            "object" => Object(schema),
            "array" => Array(schema),
            "string" => Text(schema),
            "number" or "integer" => Number(schema, type),
            "boolean" => JsonValues.Boolean,
            _ => JsonValues.Null,
        })]);
    }

    private RegexNode Object(JsonSchemaFields schema)
    {
        if (!schema.Has("properties") && !schema.Has("required") && !schema.Has("additionalProperties"))
        {
            return JsonValues.AnyObject(FreeLevels(schema));
        }

        var required = schema.Strings("required");
        var properties = schema.Members("properties");
        var (others, othersAt) = schema.Child("additionalProperties");
        var members = properties.Select(property => new RegexNode.Item(Member(schema, property.Key, Value(property.Value, property.At)), required.Contains(property.Key))).ToList();

        // What is required without being declared comes next, of any kind unless additionalProperties says of which.
        var names = properties.Select(property => property.Key).Concat(required).Distinct().ToList();
        foreach (var name in names.Skip(properties.Count))
        {
            members.Add(new RegexNode.Item(Member(schema, name, others is { } given ? Value(given, othersAt) : JsonValues.Any(FreeDepth)), Required: true));
        }

        if (others is { } open)
        {
            members.Add(new RegexNode.Item(JsonText.Member(JsonText.KeyOtherThan(names), Value(open, othersAt)), Repeats: true));
        }

        return JsonText.Object(members);
    }

    private static RegexNode Member(JsonSchemaFields schema, string key, RegexNode value) =>
        key.Length <= MaxKeyLength ? JsonText.Member(JsonText.String(key), value) : throw schema.Bad($"has a property whose name is longer than {MaxKeyLength} characters, which is not supported");

    private RegexNode Array(JsonSchemaFields schema)
    {
        var prefix = schema.Has("prefixItems") ? schema.List("prefixItems") : [];
        var (rest, restAt) = schema.Child("items");
        var (min, max) = (schema.Count("minItems") ?? 0, schema.Count("maxItems"));
        if (prefix.Count > MaxPrefixItems)
        {
            throw schema.Bad($"has more than {MaxPrefixItems} 'prefixItems', which is not supported");
        }

        if (prefix.Count == 0 && rest is null && min == 0 && max is null)
        {
            return JsonValues.AnyArray(FreeLevels(schema));
        }

        var first = prefix.Take(max ?? prefix.Count).Select(item => Value(item.Value, item.At)).ToList();
        var others = rest is { } given ? Value(given, restAt) : prefix.Count == 0 ? JsonValues.Any(FreeDepth) : RegexNode.Nothing;
        return max < min ? RegexNode.Nothing : JsonText.Array(Items(first, others, min, max));
    }

    // The first items each of its own kind, then others; any number of them that lies in the bounds.
    private static RegexNode Items(List<RegexNode> first, RegexNode others, int min, int? max)
    {
        if (first.Count == 0 && min <= 1 && max is null)
        {
            return RegexNode.Listed(JsonText.Comma, [new RegexNode.Item(others, Required: min == 1, Repeats: true)]);
        }

        // From the end on: after the first items, and after the one others if there were none.
        var separated = RegexNode.Concat(JsonText.Comma, others);
        var lead = first.Count > 0 ? first : [others];
        var node = max == 0 ? RegexNode.Empty : RegexNode.Many(separated, Math.Max(min - lead.Count, 0), max - lead.Count);
        for (var i = max == 0 ? -1 : lead.Count - 1; i >= 0; i--)
        {
            var item = RegexNode.Concat(i == 0 ? RegexNode.Empty : JsonText.Comma, lead[i], node);
            node = i < min ? item : RegexNode.Optional(item);
        }

        return node;
    }

    private static RegexNode Text(JsonSchemaFields schema)
    {
        var (min, max) = (schema.Count("minLength"), schema.Count("maxLength"));
        var ways = new[] { schema.Has("pattern"), schema.Has("format"), min is not null || max is not null };
        if (ways.Count(used => used) > 1)
        {
            throw schema.Bad("uses more than one of 'pattern', 'format' and 'minLength' or 'maxLength' together, which is not supported: put all into the pattern");
        }

        return schema.Has("pattern") ? JsonText.String(RegexParser.ParseSearch(schema.String("pattern"), $"The JSON schema's {schema.At}/pattern"))
            : schema.Has("format") ? JsonText.String(JsonFormats.Of(schema.String("format")) ?? throw schema.Bad($"uses the format '{schema.String("format")}', which is not supported; {JsonFormats.Names} are"))
            : max < min ? RegexNode.Nothing
            : JsonText.Quoted(RegexNode.Many(JsonText.AnyCharacter, min ?? 0, max));
    }

    private static RegexNode Number(JsonSchemaFields schema, string type)
    {
        var min = Tighter(schema.Bound("minimum", exclusive: false), schema.Bound("exclusiveMinimum", exclusive: true), 1);
        var max = Tighter(schema.Bound("maximum", exclusive: false), schema.Bound("exclusiveMaximum", exclusive: true), -1);
        return (type, min, max) switch
        {
            ("integer", null, null) => JsonValues.Integer,
            ("integer", _, _) => DecimalRange.Integers(min, max),
            (_, null, null) => JsonValues.Number,
            _ => DecimalRange.Numbers(min, max),
        };
    }

    private static DecimalRange.Bound? Tighter(DecimalRange.Bound? inclusive, DecimalRange.Bound? exclusive, int sign) =>
        inclusive is null || (exclusive is not null && sign * exclusive.Value.Value >= sign * inclusive.Value.Value) ? exclusive : inclusive;

    private static int FreeLevels(JsonSchemaFields schema) => schema.At.Length == 0 ? FreeDepthOfAll : FreeDepth;
}
