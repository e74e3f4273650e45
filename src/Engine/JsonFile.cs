using System.Text.Json;

namespace LrIad.Engine;

/// <summary>A JSON file whose fields are asked for by name and kind; what is missing or of another kind is an error that names file and field.</summary>
internal sealed class JsonFile : IDisposable
{
    private readonly JsonDocument _document;

    private JsonFile(string file, JsonDocument document) => (_document, Root) = (document, new JsonFields(file, "", document.RootElement));

    public JsonFields Root { get; }

    public static JsonFile Open(string file)
    {
        try
        {
            var document = JsonDocument.Parse(File.ReadAllBytes(file));
            return document.RootElement.ValueKind == JsonValueKind.Object
                ? new JsonFile(file, document)
                : throw new InputException($"{file} is not a JSON object.");
        }
        catch (JsonException e)
        {
            throw new InputException($"{file} is not readable JSON: {e.Message}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }
    }

    public void Dispose() => _document.Dispose();
}

/// <summary>The fields of one JSON object.</summary>
internal readonly struct JsonFields(string file, string path, JsonElement element)
{
    private const int LargestCount = 1 << 24;

    public bool Has(string name) => element.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null;

    public bool Any() => element.EnumerateObject().MoveNext();

    public JsonFields Object(string name) =>
        Has(name) && element.GetProperty(name).ValueKind == JsonValueKind.Object ? new JsonFields(file, path + name + ".", element.GetProperty(name)) : throw Bad(name, "an object");

    public string Text(string name, string otherwise) => !Has(name) ? otherwise : element.GetProperty(name).ValueKind == JsonValueKind.String ? element.GetProperty(name).GetString()! : throw Bad(name, "a string");

    public bool IsText(string name) => Has(name) && element.GetProperty(name).ValueKind == JsonValueKind.String;

    /// <summary>A string or a list of strings.</summary>
    public string[] Texts(string name)
    {
        var value = Has(name) ? element.GetProperty(name) : default;
        return value.ValueKind switch
        {
            JsonValueKind.String => [value.GetString()!],
            JsonValueKind.Array when value.EnumerateArray().All(item => item.ValueKind == JsonValueKind.String) => [.. value.EnumerateArray().Select(item => item.GetString()!)],
            _ => throw Bad(name, "a string or a list of strings"),
        };
    }

    public bool Flag(string name, bool otherwise) => !Has(name) ? otherwise : element.GetProperty(name).ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Bad(name, "true or false"),
    };

    public double Number(string name, double otherwise) => !Has(name) ? otherwise : element.GetProperty(name) is { ValueKind: JsonValueKind.Number } value && double.IsFinite(value.GetDouble()) ? value.GetDouble() : throw Bad(name, "a number");

    public int Count(string name, int? otherwise = null)
    {
        if (!Has(name) && otherwise is { } value)
        {
            return value;
        }

        return Has(name) && IsCount(element.GetProperty(name), out var count) ? count : throw Bad(name, "a whole number from 1 to 16,777,216");
    }

    public int[] Counts(string name)
    {
        if (!Has(name))
        {
            throw Bad(name, "a list of numbers");
        }

        var value = element.GetProperty(name);
        var items = value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray()] : new[] { value };
        var counts = new int[items.Length];
        for (var i = 0; i < items.Length; i++)
        {
            if (items[i].ValueKind != JsonValueKind.Number || !items[i].TryGetInt32(out counts[i]) || counts[i] < 0)
            {
                throw Bad(name, "a whole number or a list of them");
            }
        }

        return counts;
    }

    public double[] Numbers(string name) =>
        Has(name) && element.GetProperty(name) is { ValueKind: JsonValueKind.Array } list && list.EnumerateArray().All(item => item.ValueKind == JsonValueKind.Number)
            ? [.. list.EnumerateArray().Select(item => item.GetDouble())]
            : throw Bad(name, "a list of numbers");

    /// <summary>All values of an object of strings.</summary>
    public IEnumerable<string> Strings()
    {
        foreach (var property in element.EnumerateObject())
        {
            yield return property.Value.ValueKind == JsonValueKind.String ? property.Value.GetString()! : throw Bad(property.Name, "a string");
        }
    }

    private static bool IsCount(JsonElement value, out int count)
    {
        count = 0;
        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out count) && count is > 0 and <= LargestCount;
    }

    private InputException Bad(string name, string expected) => new($"{file}: {path}{name} must be {expected}{(Has(name) ? $", not {element.GetProperty(name).GetRawText()}" : "; it is missing")}.");
}
