using System.Globalization;
using System.Text.Json;

namespace LrIad.Server.Requests;

/// <summary>The fields of a JSON object in a request. A field that is null counts as left out; one of a wrong kind is an error that names it. Fields nobody asks for are ignored.</summary>
/// <param name="element">The object.</param>
/// <param name="path">What precedes its fields' names in messages: <c>messages[0].</c>, say.</param>
internal readonly struct RequestFields(JsonElement element, string path = "")
{
    public bool Has(string name) => element.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null;

    /// <summary>Whether it is there at all, be it null.</summary>
    public bool IsNamed(string name) => element.TryGetProperty(name, out _);

    /// <summary>The names of all fields.</summary>
    public IEnumerable<string> Names => element.EnumerateObject().Select(property => property.Name);

    /// <summary>A field's full name.</summary>
    public string Path(string name) => path + name;

    public JsonElement Value(string name) => Has(name) ? element.GetProperty(name) : throw Bad(name, "is missing");

    public string Text(string name) => Value(name) is { ValueKind: JsonValueKind.String } value ? Unescaped(value, path + name) : throw Bad(name, "must be a string");

    public string? TextOrNull(string name) => Has(name) ? Text(name) : null;

    public bool Flag(string name, bool otherwise = false) => !Has(name) ? otherwise : Value(name).ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Bad(name, "must be true or false"),
    };

    /// <summary>A whole number in a range; null where it is left out.</summary>
    public int? Integer(string name, int least, int most) => !Has(name) ? null
        : Value(name) is { ValueKind: JsonValueKind.Number } value && value.TryGetInt32(out var number) && number >= least && number <= most ? number
        : throw Bad(name, string.Create(CultureInfo.InvariantCulture, $"must be a whole number from {least} to {most}"));

    /// <summary>A number in a range; null where it is left out.</summary>
    public double? Number(string name, double least, double most) => !Has(name) ? null
        : Value(name) is { ValueKind: JsonValueKind.Number } value && value.TryGetDouble(out var number) && number >= least && number <= most ? number
        : throw Bad(name, string.Create(CultureInfo.InvariantCulture, $"must be a number from {least} to {most}"));

    public RequestFields Object(string name) => Value(name) is { ValueKind: JsonValueKind.Object } value ? new(value, $"{path}{name}.") : throw Bad(name, "must be an object");

    /// <summary>The objects of a list.</summary>
    public IReadOnlyList<RequestFields> Objects(string name) => Objects(Value(name), path + name);

    /// <summary>The objects of a list that is not a field itself.</summary>
    public static IReadOnlyList<RequestFields> Objects(JsonElement list, string where) =>
        [.. Items(list, where).Select((item, i) => item.ValueKind == JsonValueKind.Object ? new RequestFields(item, $"{where}[{i}].") : throw RequestException.Bad($"{where}[{i}]", "must be an object"))];

    /// <summary>A list of strings.</summary>
    public IReadOnlyList<string> Texts(string name)
    {
        var fields = this;
        return [.. Items(name).Select((item, i) => item.ValueKind == JsonValueKind.String ? Unescaped(item, fields.Path($"{name}[{i}]")) : throw fields.Bad($"{name}[{i}]", "must be a string"))];
    }

    /// <summary>An error of a field.</summary>
    public RequestException Bad(string name, string problem) => RequestException.Bad(path + name, problem);

    /// <summary>A client's text in a message: short, and without what could be taken for more than text.</summary>
    public static string Shown(string text) => $"'{string.Concat((text.Length > 60 ? text[..60] + "…" : text).Select(character => char.IsControl(character) ? '?' : character))}'";

    /// <summary>A string's text. A lone surrogate, say, is legal JSON and no text.</summary>
    public static string Unescaped(JsonElement value, string where)
    {
        try
        {
            return value.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw RequestException.Bad(where, "is not valid Unicode");
        }
    }

    /// <summary>A list's items, whatever they are.</summary>
    public JsonElement.ArrayEnumerator Items(string name) => Items(Value(name), path + name);

    private static JsonElement.ArrayEnumerator Items(JsonElement list, string where) => list.ValueKind == JsonValueKind.Array ? list.EnumerateArray() : throw RequestException.Bad(where, "must be a list");
}
