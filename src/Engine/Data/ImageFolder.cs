using LrIad.Engine.Config;

namespace LrIad.Engine.Data;

/// <summary>
/// Reads data folders in the layouts people have. Labels come from folder names, a split file or a manifest; masks (<c>ground_truth</c>, a csv's mask column) are
/// never opened.
/// </summary>
internal static class ImageFolder
{
    private static readonly HashSet<string> Extensions = new([".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"], StringComparer.OrdinalIgnoreCase);
    private static readonly HashSet<string> MaskNames = new(["ground_truth", "masks", "mask"], StringComparer.OrdinalIgnoreCase);
    private const string SplitFolder = "split_csv";
    private static readonly string[] NormalNames = ["normal", "good", "ok"];
    private static readonly string[] DefectNames = ["defect", "defective", "anomaly", "anomalous", "bad", "ng"];

    /// <summary>Reads a folder or manifest.</summary>
    /// <exception cref="InputException">It is missing, in none of the layouts, or holds no image.</exception>
    public static DataSet Read(DataSource source) => Read([source]);

    /// <summary>Reads folders and manifests into one data set, of the first one's layout; a category may be in one of them alone.</summary>
    /// <exception cref="InputException">One is missing, in none of the layouts, or holds no image; or none has a category that is asked for.</exception>
    public static DataSet Read(IReadOnlyList<DataSource> sources)
    {
        ArgumentNullException.ThrowIfNull(sources);
        var sets = sources.Select(ReadSource).ToArray();
        string[] names = [.. sets.SelectMany(set => set.Samples).Select(sample => sample.Object).Distinct().Order(StringComparer.Ordinal)];
        Sample[] samples = [.. sources.Zip(sets).SelectMany(pair => OfCategories(pair.Second.Samples, pair.First, names))];
        return samples.Length > 0 ? new DataSet(sets[0].Layout, samples, [.. sets.SelectMany(set => set.Problems)])
            : throw new InputException($"Of the categories of {string.Join(", ", sources.Select(source => source.Path))} none is left.");
    }

    private static DataSet ReadSource(DataSource source)
    {
        try
        {
            return ReadLayout(source);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{source.Path} cannot be read: {e.Message}", e);
        }
    }

    private static DataSet ReadLayout(DataSource source)
    {
        var layout = source.Layout == "auto" ? Detect(source.Path) : source.Layout;
        CheckExists(source.Path, layout);
        var (samples, problems) = layout switch
        {
            "mvtec" => ReadMvtec(source.Path),
            "visa" => ReadVisa(source.Path),
            "folder" => ReadPlain(source.Path),
            "manifest" => Manifest.Read(source.Path),
            _ => throw new InputException($"Unknown layout '{layout}'; it is auto, mvtec, visa, folder or manifest."),
        };
        if (samples.Count == 0)
        {
            throw new InputException($"{source.Path} holds no labelled images (read as layout '{layout}').{(problems.Count > 0 ? $" First problem: {problems[0].ImagePath}: {problems[0].Reason}" : "")}");
        }

        return new DataSet(layout, Select(samples, source), problems);
    }

    internal static bool IsImage(string file) => Extensions.Contains(Path.GetExtension(file));

    /// <summary>What a label says: true for a defect, null where it is no known label.</summary>
    internal static bool? Label(string label)
    {
        var word = label.Trim().ToLowerInvariant();
        return DefectNames.Contains(word) || word is "1" or "true" ? true : NormalNames.Contains(word) || word is "0" or "false" ? false : null;
    }

    private static List<Sample> Select(List<Sample> samples, DataSource source)
    {
        samples.Sort((a, b) => string.CompareOrdinal(a.ImagePath, b.ImagePath));
        if (source.Split == "all")
        {
            return samples;
        }

        if (source.Split is not ("train" or "test"))
        {
            throw new InputException($"Unknown split '{source.Split}'; it is all, train or test.");
        }

        var selected = samples.FindAll(sample => sample.Split == source.Split);
        return selected.Count > 0 ? selected : throw new InputException(
            $"{source.Path} has no images of split '{source.Split}', only of {string.Join(" and ", samples.Select(sample => $"'{sample.Split}'").Distinct().Order(StringComparer.Ordinal))}; use --split all.");
    }

    private static IEnumerable<Sample> OfCategories(IReadOnlyList<Sample> samples, DataSource source, string[] names)
    {
        var unknown = (source.Categories ?? []).Concat(source.WithoutCategories ?? []).FirstOrDefault(name => !names.Contains(name, StringComparer.Ordinal));
        return unknown is null
            ? samples.Where(sample => source.Categories?.Contains(sample.Object, StringComparer.Ordinal) != false && source.WithoutCategories?.Contains(sample.Object, StringComparer.Ordinal) != true)
            : throw new InputException($"{source.Path} has no category '{unknown}', only {string.Join(", ", names)}.");
    }

    private static void CheckExists(string path, string layout)
    {
        if (layout == "manifest" ? !File.Exists(path) : !Directory.Exists(path))
        {
            throw new InputException($"The data {(layout == "manifest" ? "manifest" : "folder")} {path} does not exist.");
        }
    }

    private static string Detect(string path)
    {
        if (File.Exists(path))
        {
            return "manifest";
        }

        if (!Directory.Exists(path))
        {
            throw new InputException($"The data folder {path} does not exist.");
        }

        var folders = Folders(path);
        bool Has(Func<string, bool> isCategory) => isCategory(path) || folders.Any(isCategory);
        var (visa, mvtec) = (HasFolder(path, SplitFolder) || Has(IsVisaCategory), Has(IsMvtecCategory));
        if (visa && mvtec)
        {
            throw new InputException($"{path} holds folders of both the VisA and the MVTec-AD layout; say which to read with --layout visa or --layout mvtec.");
        }

        return visa ? "visa" : mvtec ? "mvtec" : Has(IsPlainCategory) ? "folder" : throw new InputException(
            $"{path} is in none of the known layouts: MVTec-AD (category/train/good, category/test/…), VisA (category/Data/Images/Normal and Anomaly), " +
            "plain (normal/ and defect/, or good/ and others, with or without a category above), or a manifest file (CSV or JSONL).");
    }

    private static bool HasFolder(string path, string name) => Directory.Exists(Path.Combine(path, name));

    private static bool IsVisaCategory(string path) => HasFolder(path, Path.Combine("Data", "Images"));

    private static bool IsMvtecCategory(string path) => HasFolder(path, "test") || (HasFolder(path, "train") && HasFolder(Path.Combine(path, "train"), "good"));

    private static bool IsPlainCategory(string path) => Folders(path).Any(folder => Label(Path.GetFileName(folder)) is not null);

    // Folders of masks are not so much as looked into.
    private static string[] Folders(string path) => [.. Directory.GetDirectories(path).Where(folder => !MaskNames.Contains(Path.GetFileName(folder))).Order(StringComparer.Ordinal)];

    // The folder itself, or those in it; one that is no category is a problem to tell of.
    private static IEnumerable<string> Categories(string path, Func<string, bool> isCategory, List<Skipped> problems)
    {
        if (isCategory(path))
        {
            return [path];
        }

        var folders = Folders(path);
        problems.AddRange(folders.Where(folder => !isCategory(folder) && Path.GetFileName(folder) != SplitFolder).Select(folder => new Skipped(folder, "it is no category of this layout")));
        return folders.Where(isCategory);
    }

    private static IEnumerable<string> Images(string path) => Directory.Exists(path) ? Directory.GetFiles(path).Where(IsImage).Order(StringComparer.Ordinal) : [];

    private static string NameOf(string folder) => Path.GetFileName(Path.GetFullPath(folder).TrimEnd(Path.DirectorySeparatorChar));

    // A folder whose name is no label is named after its defect.
    private static IEnumerable<Sample> OfKind(string folder, string category, string split)
    {
        var name = Path.GetFileName(folder);
        return Images(folder).Select(file => new Sample(file, NameOf(category), Label(name) ?? true, split, Label(name) is null ? name : null));
    }

    // category/train/good, category/test/good and category/test/<kind of defect>.
    private static (List<Sample> Samples, List<Skipped> Problems) ReadMvtec(string path)
    {
        var (samples, problems) = (new List<Sample>(), new List<Skipped>());
        foreach (var category in Categories(path, IsMvtecCategory, problems))
        {
            foreach (var split in new[] { "train", "test" })
            {
                var folder = Path.Combine(category, split);
                foreach (var kind in Directory.Exists(folder) ? Folders(folder) : [])
                {
                    samples.AddRange(OfKind(kind, category, split));
                }
            }
        }

        return (samples, problems);
    }

    // split_csv/1cls.csv where it is there, else the folders.
    private static (List<Sample> Samples, List<Skipped> Problems) ReadVisa(string path)
    {
        var csv = Path.Combine(path, SplitFolder, "1cls.csv");
        if (File.Exists(csv))
        {
            return Manifest.Read(csv, path);
        }

        var (samples, problems) = (new List<Sample>(), new List<Skipped>());
        foreach (var category in Categories(path, IsVisaCategory, problems))
        {
            foreach (var (kind, defect) in new[] { ("Normal", false), ("Anomaly", true) })
            {
                samples.AddRange(Images(Path.Combine(category, "Data", "Images", kind)).Select(file => new Sample(file, NameOf(category), defect, "all")));
            }
        }

        return (samples, problems);
    }

    // normal/ and defect/ (or good/ and anything else), directly or in a folder a category.
    private static (List<Sample> Samples, List<Skipped> Problems) ReadPlain(string path)
    {
        var (samples, problems) = (new List<Sample>(), new List<Skipped>());
        foreach (var category in Categories(path, IsPlainCategory, problems))
        {
            var hasNormal = Folders(category).Any(folder => Label(Path.GetFileName(folder)) == false);
            foreach (var folder in Folders(category))
            {
                // Beside a folder of good parts, folders are kinds of defects.
                if (hasNormal || Label(Path.GetFileName(folder)) is not null)
                {
                    samples.AddRange(OfKind(folder, category, "all"));
                }
                else
                {
                    problems.Add(new Skipped(folder, "its name is no known label"));
                }
            }
        }

        return (samples, problems);
    }
}
