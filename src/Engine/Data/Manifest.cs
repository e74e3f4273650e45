using System.Text;
using System.Text.Json;

namespace LrIad.Engine.Data;

/// <summary>
/// Lists of images: CSV with a header, or JSON lines. Fields: <c>image</c> (or <c>image_path</c>, <c>path</c>), <c>label</c>, <c>object</c> (or <c>category</c>), <c>split</c>,
/// <c>defect_type</c>. Other fields, masks among them, are not looked at.
/// </summary>
internal static class Manifest
{
    private static readonly string[] ImageFields = ["image", "image_path", "path"];
    private static readonly string[] ObjectFields = ["object", "category"];

    /// <summary>Reads a manifest; image paths are relative to <paramref name="root"/>, by default the manifest's folder.</summary>
    public static (List<Sample> Samples, List<Skipped> Problems) Read(string file, string? root = null)
    {
        root ??= Path.GetDirectoryName(Path.GetFullPath(file))!;
        string[] lines;
        try
        {
            lines = File.ReadAllLines(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"The manifest {file} cannot be read: {e.Message}", e);
        }

        var content = Array.Find(lines, line => line.Trim().Length > 0) ?? throw new InputException($"The manifest {file} is empty.");
        var rows = content.TrimStart().StartsWith('{') ? JsonRows(file, lines) : CsvRows(file, lines);
        var (samples, problems, seen) = (new List<Sample>(), new List<Skipped>(), new HashSet<string>());
        foreach (var (line, row) in rows)
        {
            var (image, label) = (Field(row, ImageFields), Field(row, "label"));
            var path = image is null || image.Contains('\0') ? null : Path.GetFullPath(Path.Combine(root, image));
            var defect = label is null ? null : ImageFolder.Label(label);
            var problem = path is null ? $"there is no field {string.Join(" or ", ImageFields)}"
                : label is null ? "there is no field label"
                : defect is null ? $"'{label}' is no known label (normal, good, 0 or defect, anomaly, 1)"
                : !seen.Add(path) ? "it is listed twice"
                : !File.Exists(path) ? "the file does not exist"
                : null;
            if (problem is null)
            {
                samples.Add(new Sample(
                    path!, Field(row, ObjectFields) ?? Path.GetFileName(Path.GetDirectoryName(path))!, defect!.Value, Field(row, "split")?.ToLowerInvariant() ?? "all",
                    defect.Value ? Field(row, "defect_type") : null));
            }
            else
            {
                problems.Add(new Skipped(path ?? file, $"line {line}: {problem}"));
            }
        }

        return (samples, problems);
    }

    private static string? Field(Dictionary<string, string> row, params string[] names)
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

    private static IEnumerable<(int Line, Dictionary<string, string> Row)> JsonRows(string file, string[] lines)
    {
        for (var i = 0; i < lines.Length; i++)
        {
            if (lines[i].Trim().Length > 0)
            {
                yield return (i + 1, JsonRow(file, i + 1, lines[i]));
            }
        }
    }

    private static Dictionary<string, string> JsonRow(string file, int line, string text)
    {
        try
        {
            using var json = JsonDocument.Parse(text);
            return json.RootElement.EnumerateObject().ToDictionary(field => field.Name.ToLowerInvariant(), field => field.Value.ToString());
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            throw new InputException($"{file}, line {line}: not a JSON object ({e.Message})", e);
        }
    }

    private static IEnumerable<(int Line, Dictionary<string, string> Row)> CsvRows(string file, string[] lines)
    {
        var first = Array.FindIndex(lines, line => line.Trim().Length > 0);
        var header = SplitCsv(lines[first]).ConvertAll(name => name.Trim().ToLowerInvariant());
        for (var i = first + 1; i < lines.Length; i++)
        {
            if (lines[i].Trim().Length == 0)
            {
                continue;
            }

            var fields = SplitCsv(lines[i]);
            if (fields.Count > header.Count)
            {
                throw new InputException($"{file}, line {i + 1}: {fields.Count} fields, but the header names {header.Count}.");
            }

            var row = new Dictionary<string, string>();
            for (var f = 0; f < fields.Count; f++)
            {
                row[header[f]] = fields[f].Trim();
            }

            yield return (i + 1, row);
        }
    }

    private static List<string> SplitCsv(string line)
    {
        var (fields, field, quoted) = (new List<string>(), new StringBuilder(), false);
        for (var i = 0; i < line.Length; i++)
        {
            var c = line[i];
            if (c == '"')
            {
                // Two quotation marks within quotes are one.
                if (quoted && i + 1 < line.Length && line[i + 1] == '"')
                {
                    field.Append('"');
                    i++;
                }
                else
                {
                    quoted = !quoted;
                }
            }
            else if (c == ',' && !quoted)
            {
                fields.Add(field.ToString());
                field.Clear();
            }
            else
            {
                field.Append(c);
            }
        }

        fields.Add(field.ToString());
        return fields;
    }
}
