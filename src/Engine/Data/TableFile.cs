using System.Globalization;
using System.Text.Json;
using CsvHelper;
using CsvHelper.Configuration;

namespace LrIad.Engine.Data;

/// <summary>Tables that people bring: CSV with a header (RFC 4180), or a JSON object a line. Names of fields are lower case, values are text; null and what is missing are not there.</summary>
internal static class TableFile
{
    /// <summary>The rows, each with the number of its line.</summary>
    /// <exception cref="InputException">The file cannot be read, is empty, or is neither.</exception>
    public static IReadOnlyList<(int Line, Dictionary<string, string> Row)> Read(string file)
    {
        string text;
        try
        {
            text = File.ReadAllText(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }

        var rows = text.AsSpan().TrimStart() switch
        {
            [] => throw new InputException($"{file} is empty."),
            ['{', ..] => JsonRows(file, text),
            _ => CsvRows(file, text),
        };
        return [.. rows];
    }

    /// <summary>The first of some fields that says something, or null.</summary>
    public static string? Field(Dictionary<string, string> row, params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
        {
            if (row.TryGetValue(name, out var value) && value.Length > 0)
            {
                return value;
            }
        }

        return null;
    }

    private static IEnumerable<(int, Dictionary<string, string>)> JsonRows(string file, string text)
    {
        var line = 0;
        foreach (var json in text.Split('\n'))
        {
            line++;
            if (json.Trim().Length > 0)
            {
                yield return (line, JsonRow(file, line, json));
            }
        }
    }

    private static Dictionary<string, string> JsonRow(string file, int line, string text)
    {
        try
        {
            using var json = JsonDocument.Parse(text);
            return json.RootElement.EnumerateObject().Where(field => field.Value.ValueKind != JsonValueKind.Null).ToDictionary(field => field.Name.ToLowerInvariant(), field => field.Value.ToString());
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            throw new InputException($"{file}, line {line}: not a JSON object ({e.Message})", e);
        }
    }

    private static IEnumerable<(int, Dictionary<string, string>)> CsvRows(string file, string text)
    {
        using var reader = new StringReader(text);
        using var csv = new CsvParser(reader, new CsvConfiguration(CultureInfo.InvariantCulture) { TrimOptions = TrimOptions.Trim, BadDataFound = null });
        string[]? header = null;
        while (csv.Read())
        {
            var fields = csv.Record!;
            if (header is null)
            {
                header = [.. fields.Select(name => name.ToLowerInvariant())];
                continue;
            }

            if (fields.Length > header.Length)
            {
                throw new InputException($"{file}, line {csv.RawRow}: {fields.Length} fields, but the header names {header.Length}.");
            }

            var row = new Dictionary<string, string>();
            foreach (var (name, value) in header.Zip(fields))
            {
                row[name] = value;
            }

            yield return (csv.RawRow, row);
        }
    }
}
