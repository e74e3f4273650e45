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
        var rows = TableFile.Read(file);
        var (samples, problems, seen) = (new List<Sample>(), new List<Skipped>(), new HashSet<string>());
        foreach (var (line, row) in rows)
        {
            var (image, label) = (TableFile.Field(row, ImageFields), TableFile.Field(row, "label"));
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
                    path!, TableFile.Field(row, ObjectFields) ?? Path.GetFileName(Path.GetDirectoryName(path))!, defect!.Value, TableFile.Field(row, "split")?.ToLowerInvariant() ?? "all",
                    defect.Value ? TableFile.Field(row, "defect_type") : null));
            }
            else
            {
                problems.Add(new Skipped(path ?? file, $"line {line}: {problem}"));
            }
        }

        return (samples, problems);
    }
}
