using System.Text.Json.Nodes;

namespace LrIad.Engine.Tests.Constrain;

/// <summary>Random JSON schemas of the supported subset that some value fits.</summary>
internal static class RandomSchema
{
    private static readonly string[] Names = ["a", "ab", "b", "box", "défaut", "q\"\\", "一", "line\nfeed", "a/b~c", ""];
    private static readonly string[] Patterns = ["^[A-Z]{2}-[0-9]{3}$", "^a|b$", "x", "^(left|right)$", "^[^a]{1,4}$", "[\"\\\\]", "^é+$", "^\\n?.$"];
    private static readonly string[] Formats = ["date", "time", "date-time", "uuid", "email", "ipv4"];

    public static JsonObject Next(Random random)
    {
        var schema = Schema(random, 3);
        schema["$defs"] = new JsonObject
        {
            ["tree"] = JsonNode.Parse("""{"type":"object","properties":{"value":{"type":"integer"},"children":{"type":"array","items":{"$ref":"#/$defs/tree"},"maxItems":2}},"required":["value"],"additionalProperties":false}"""),
            ["a/b"] = new JsonObject { ["type"] = "string", ["maxLength"] = 3 },
        };
        return schema;
    }

    private static JsonObject Schema(Random random, int depth)
    {
        var schema = random.Next(depth > 0 ? 14 : 8) switch
        {
            0 => Text(random),
            1 => Number(random, "integer"),
            2 => Number(random, "number"),
            3 => new JsonObject { ["type"] = random.Next(2) == 0 ? "boolean" : "null" },
            4 => new JsonObject { ["enum"] = new JsonArray(Constants(random).ToArray()) },
            5 => new JsonObject { ["const"] = Constants(random).First() },
            6 => new JsonObject { ["$ref"] = random.Next(2) == 0 ? "#/$defs/tree" : "#/$defs/a~1b" },
            7 => new JsonObject { ["type"] = new JsonArray("string", "integer", "null"), ["minimum"] = -3, ["maxLength"] = 4 },
            8 => new JsonObject { [random.Next(2) == 0 ? "anyOf" : "allOf"] = new JsonArray(Schema(random, depth - 1)) },
            9 => new JsonObject { ["anyOf"] = new JsonArray(Schema(random, depth - 1), Schema(random, depth - 1)) },
            10 => new JsonObject { ["oneOf"] = new JsonArray(Text(random), Number(random, "number"), new JsonObject { ["type"] = "null" }) },
            11 => Array(random, depth),
            _ => Object(random, depth),
        };
        if (random.Next(4) == 0)
        {
            schema["description"] = "What it is for";
        }

        return schema;
    }

    private static JsonObject Text(Random random)
    {
        var schema = new JsonObject { ["type"] = "string" };
        switch (random.Next(4))
        {
            case 0:
                schema["minLength"] = random.Next(3);
                schema["maxLength"] = 2 + random.Next(20);
                break;
            case 1:
                schema["pattern"] = Patterns[random.Next(Patterns.Length)];
                break;
            case 2:
                schema["format"] = Formats[random.Next(Formats.Length)];
                break;
        }

        return schema;
    }

    private static JsonObject Number(Random random, string type)
    {
        var schema = new JsonObject { ["type"] = type };
        var scale = type == "integer" ? 1m : (decimal)Math.Pow(10, -random.Next(4));
        var least = (random.Next(4001) - 2000) * scale;
        if (random.Next(2) == 0)
        {
            schema[random.Next(2) == 0 ? "minimum" : "exclusiveMinimum"] = least;
        }

        if (random.Next(2) == 0)
        {
            schema[random.Next(2) == 0 ? "maximum" : "exclusiveMaximum"] = least + ((2 + random.Next(random.Next(2) == 0 ? 3 : 5000)) * scale);
        }

        return schema;
    }

    private static JsonObject Array(Random random, int depth)
    {
        var schema = new JsonObject { ["type"] = "array" };
        var least = random.Next(3);
        if (random.Next(2) == 0)
        {
            schema["items"] = Schema(random, depth - 1);
        }

        if (random.Next(3) == 0)
        {
            schema["prefixItems"] = new JsonArray(Schema(random, depth - 1), Schema(random, depth - 1));
        }

        if (random.Next(2) == 0)
        {
            schema["minItems"] = least;
        }

        if (random.Next(2) == 0)
        {
            schema["maxItems"] = least + random.Next(3);
        }

        return schema;
    }

    private static JsonObject Object(Random random, int depth)
    {
        var names = Names.OrderBy(_ => random.Next()).Take(random.Next(4)).ToArray();
        var schema = new JsonObject { ["type"] = "object" };
        if (random.Next(8) != 0)
        {
            schema["properties"] = new JsonObject(names.Select(name => KeyValuePair.Create<string, JsonNode?>(name, Schema(random, depth - 1))));
            schema["required"] = new JsonArray([.. names.Where(_ => random.Next(2) == 0).Select(name => JsonValue.Create(name))]);
        }

        switch (random.Next(3))
        {
            case 0:
                schema["additionalProperties"] = random.Next(4) == 0;
                break;
            case 1:
                schema["additionalProperties"] = Schema(random, depth - 1);
                break;
        }

        return schema;
    }

    private static IEnumerable<JsonNode?> Constants(Random random) =>
        new[] { "\"normal\"", "\"crack \\\"x\\\" é\"", "7", "-2.50", "1e3", "true", "null", "[1, [\"a\"]]", "{\"a\": {\"b\": []}, \"c\": 1}" }.OrderBy(_ => random.Next()).Take(1 + random.Next(3)).Select(text => JsonNode.Parse(text));
}
