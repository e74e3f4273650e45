using LrIad.Engine.Evaluate;
using LrIad.Engine.Text;

namespace LrIad.Engine.Compare;

/// <summary>A system among those compared.</summary>
internal sealed record ComparedSystem
{
    /// <summary>What it is called.</summary>
    public required string Name { get; init; }

    /// <summary>Images in its file.</summary>
    public required int Images { get; init; }

    /// <summary>The score from which on an image counts as a defect, where it gave no verdicts; chosen for the best F1 on the very images it is judged by, which flatters it.</summary>
    public required double? BestF1Threshold { get; init; }

    /// <summary>Figures on the images that all systems have.</summary>
    public required Figures Figures { get; init; }
}

/// <summary>McNemar's test of two systems on the same images.</summary>
/// <param name="First">One system.</param>
/// <param name="Second">The other.</param>
/// <param name="FirstAlone">Images that the first alone is right on.</param>
/// <param name="SecondAlone">Images that the second alone is right on.</param>
/// <param name="P">Chance of so uneven a split, or a more uneven one, between systems that are equally often right.</param>
internal sealed record ComparedPair(string First, string Second, int FirstAlone, int SecondAlone, double P);

/// <summary>Systems on the same images: figures of each, and of each pair whether one is right more often than chance explains.</summary>
internal sealed record Comparison
{
    /// <summary>Images that all systems have.</summary>
    public required int Images { get; init; }

    /// <summary>The systems, in the order they were given.</summary>
    public required IReadOnlyList<ComparedSystem> Systems { get; init; }

    /// <summary>The trivial answers on the same images.</summary>
    public required IReadOnlyDictionary<string, Figures> Baselines { get; init; }

    /// <summary>Every pair.</summary>
    public required IReadOnlyList<ComparedPair> Pairs { get; init; }

    /// <summary>Reads files of predictions and compares them.</summary>
    /// <param name="files">Names and files; two or more, or one to see its figures alone.</param>
    /// <exception cref="InputException">A file is damaged, they contradict each other, or they have no image in common.</exception>
    public static Comparison Of(IReadOnlyList<(string Name, string File)> files)
    {
        ArgumentNullException.ThrowIfNull(files);
        var said = files.Select(file => Unique(file.File, PredictionFile.Read(file.File))).ToArray();

        // The images of the first file that knows the truth are the ones the others are matched with.
        var reference = Array.FindIndex(said, file => file.Any(image => image.Truth is not null));
        if (reference < 0)
        {
            throw new InputException("None of the files says what the images are: one needs a column gt_label.");
        }

        var paths = said[reference].Select(image => image.Path).ToArray();
        var match = new ImageMatch(paths);
        var found = said.Select((file, i) => Assign(files[i].File, file, match)).ToArray();
        var shared = Enumerable.Range(0, paths.Length).Where(image => found.All(system => system.ContainsKey(image))).ToArray();
        var images = shared.Select(image => (Image: image, Truth: Truth(image))).Where(image => image.Truth is not null).Select(image => (image.Image, Truth: image.Truth!.Value)).ToArray();
        if (images.Length == 0)
        {
            throw new InputException($"The files have no labelled image in common: {files[reference].File} has {paths[0]}, {files[^1].File} has {said[^1][0].Path}.");
        }

        bool? Truth(int image)
        {
            var truths = found.Select(system => system[image].Truth).OfType<bool>().Distinct().ToArray();
            return truths.Length > 1 ? throw new InputException($"The files contradict each other: {paths[image]} is a defect in one and normal in another.") : truths.Length == 1 ? truths[0] : null;
        }

        var systems = files.Select((file, i) => Judge(file.Name, said[i].Count, [.. images.Select(image => (found[i][image.Image], image.Truth))])).ToArray();
        return new Comparison
        {
            Images = images.Length,
            Systems = [.. systems.Select(system => system.System)],
            Baselines = new Dictionary<string, Figures>
            {
                ["always normal"] = Metrics.Always(systems[0].Judged, AnswerKind.Normal),
                ["always defect"] = Metrics.Always(systems[0].Judged, AnswerKind.Defect),
            },
            Pairs = [.. from i in Enumerable.Range(0, systems.Length)
                        from j in Enumerable.Range(i + 1, systems.Length - i - 1)
                        select Pair(systems[i], systems[j])],
        };
    }

    /// <summary>McNemar's exact test: the two-sided binomial probability of <paramref name="a"/> against <paramref name="b"/> where each side is as likely.</summary>
    public static double McNemar(int a, int b)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(a);
        ArgumentOutOfRangeException.ThrowIfNegative(b);

        // Σ_{i ≤ min} C(n, i) / 2ⁿ, twice; by logarithms, since 2ⁿ leaves a double's range.
        var (n, logTerm, sum) = (a + b, -(a + b) * Math.Log(2), 0.0);
        for (var i = 0; i <= Math.Min(a, b); i++)
        {
            sum += Math.Exp(logTerm);
            logTerm += Math.Log(n - i) - Math.Log(i + 1);
        }

        return Math.Min(1, 2 * sum);
    }

    private static IReadOnlyList<Said> Unique(string file, IReadOnlyList<Said> said) => said.Count == 0
        ? throw new InputException($"{file} holds no predictions.")
        : said.CountBy(image => image.Path).FirstOrDefault(image => image.Value > 1) is { Key: { } twice } ? throw new InputException($"{file} names {twice} more than once.") : said;

    private static Dictionary<int, Said> Assign(string file, IReadOnlyList<Said> said, ImageMatch match)
    {
        var assigned = new Dictionary<int, Said>();
        foreach (var image in said)
        {
            if (match.Find(image.Path) is { } number && !assigned.TryAdd(number, image))
            {
                throw new InputException($"{file}: {assigned[number].Path} and {image.Path} would both be the same image of the other file. Give paths that tell them apart.");
            }
        }

        return assigned;
    }

    private static (ComparedSystem System, Judged[] Judged) Judge(string name, int count, (Said Said, bool Truth)[] images)
    {
        double? threshold = null;
        if (images.All(image => image.Said.Verdict is null))
        {
            threshold = ThresholdRule.Parse("f1").Choose([.. images.Select(image => (image.Said.Score ?? throw new InputException($"{name} gives {image.Said.Path} neither a verdict nor a score."), image.Truth))]);
        }

        var judged = images.Select(image => new Judged(
            "", image.Truth, threshold is null ? image.Said.Verdict ?? AnswerKind.Invalid : image.Said.Score >= threshold ? AnswerKind.Defect : AnswerKind.Normal, image.Said.Score)).ToArray();
        return (new ComparedSystem { Name = name, Images = count, BestF1Threshold = threshold, Figures = Metrics.Compute(judged, "wrong") }, judged);
    }

    private static ComparedPair Pair((ComparedSystem System, Judged[] Judged) one, (ComparedSystem System, Judged[] Judged) other)
    {
        static bool Right(Judged image) => image.Verdict == (image.Defect ? AnswerKind.Defect : AnswerKind.Normal);
        var (first, second) = (0, 0);
        foreach (var (a, b) in one.Judged.Zip(other.Judged))
        {
            first += Right(a) && !Right(b) ? 1 : 0;
            second += Right(b) && !Right(a) ? 1 : 0;
        }

        return new ComparedPair(one.System.Name, other.System.Name, first, second, McNemar(first, second));
    }
}
