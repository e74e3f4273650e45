using System.Runtime.ExceptionServices;
using System.Security.Cryptography;
using System.Text.Json;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Synth;

/// <summary>
/// Makes a data set to train on from normal images alone: the images, and copies of some that are given a defect. It is laid out as MVTec-AD: category/train/good
/// and category/test/&lt;method&gt;. All files are written as PNG in the same way, so that a file's format says nothing about its label.
/// </summary>
internal static class Synthesis
{
    private const string RecordName = "synth.json";

    /// <summary>Writes the data set, all of it or nothing.</summary>
    /// <exception cref="InputException">The data or the output folder are not as they must be.</exception>
    public static SynthRecord Run(SynthConfig config, IProgress<EvalProgress>? progress, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(config);
        config.Check();
        var data = ImageFolder.Read(config.Data);
        var categories = Categories(data, config);
        return WholeFolder.Write(config.Out, folder => new Work(config, folder, progress, cancellation).Write(data, categories));
    }

    // The normal images of each category asked for.
    private static SortedDictionary<string, Sample[]> Categories(DataSet data, SynthConfig config)
    {
        var all = data.Samples.Select(sample => sample.Object).Distinct().Order(StringComparer.Ordinal).ToArray();
        if (config.Categories.Except(all).FirstOrDefault() is { } unknown)
        {
            throw new InputException($"{config.Data.Path} has no category '{unknown}'; it has {string.Join(", ", all)}.");
        }

        var categories = new SortedDictionary<string, Sample[]>(StringComparer.Ordinal);
        foreach (var name in config.Categories.Count > 0 ? config.Categories : all)
        {
            if (name is "." or ".." || name.IndexOfAny([.. Path.GetInvalidFileNameChars(), '/', '\\']) >= 0)
            {
                throw new InputException($"The category '{name}' of {config.Data.Path} cannot be a folder's name.");
            }

            categories[name] = [.. data.Samples.Where(sample => sample.Object == name && !sample.Defect)];
            RequireEnough(name, categories[name].Length, config);
        }

        return categories;
    }

    private static void RequireEnough(string category, int normal, SynthConfig config)
    {
        if (normal == 0)
        {
            throw new InputException($"The category '{category}' of {config.Data.Path} has no normal image that can be used. Name the others with --categories.");
        }

        if (normal == 1 && config.Method == "nsa")
        {
            throw new InputException($"The category '{category}' of {config.Data.Path} has one normal image alone; nsa needs a second one to take patches from. Use --method cutpaste, or name other categories with --categories.");
        }
    }

    /// <summary>A normal image that can be used, and what it was made from.</summary>
    private sealed record Part(SynthNormal Record, string Path);

    private sealed class Work(SynthConfig config, string folder, IProgress<EvalProgress>? progress, CancellationToken cancellation)
    {
        private readonly string _root = File.Exists(config.Data.Path) ? Path.GetDirectoryName(Path.GetFullPath(config.Data.Path))! : config.Data.Path;
        private int _done, _total;

        public SynthRecord Write(DataSet data, SortedDictionary<string, Sample[]> categories)
        {
            int Wanted(int normal) => config.Count ?? (int)Math.Ceiling((config.PerImage * normal) - 1e-9);
            _total = categories.Values.Sum(normal => normal.Length + Wanted(normal.Length));
            var (normal, defects, failures, skipped) = (new List<SynthNormal>(), new List<SynthDefect>(), new List<SynthFailure>(), new List<Skipped>());
            foreach (var (category, samples) in categories)
            {
                Directory.CreateDirectory(Path.Combine(folder, category, "train", "good"));
                Directory.CreateDirectory(Path.Combine(folder, category, "test", config.Method));
                var copied = Each(samples.Length, i => Copy(category, samples[i], i));
                skipped.AddRange(copied.Select(copy => copy.Problem).OfType<Skipped>());
                var parts = copied.Select(copy => copy.Part).OfType<Part>().ToArray();
                RequireEnough(category, parts.Length, config);
                normal.AddRange(parts.Select(part => part.Record));

                var targets = Targets(category, parts.Length, Wanted(samples.Length));
                var made = Each(targets.Length, i => Make(category, parts, targets[i], i));
                defects.AddRange(made.Select(defect => defect.Made).OfType<SynthDefect>());
                failures.AddRange(made.Select(defect => defect.Failure).OfType<SynthFailure>());
            }

            if (defects.Count == 0)
            {
                throw new InputException($"No defect could be made: {failures[0].Reason}. Lower --min-change or --on-object, or try the other method.");
            }

            var record = new SynthRecord
            {
                Version = typeof(Synthesis).Assembly.GetName().Version!.ToString(3),
                Settings = config,
                Layout = data.Layout,
                DefectsLeftOut = data.Samples.Count(sample => sample.Defect),
                Normal = normal,
                Defects = defects,
                NotMade = failures,
                Skipped = [.. data.Problems, .. skipped],
            };
            AtomicFile.WriteText(Path.Combine(folder, RecordName), JsonSerializer.Serialize(record, ConfigRules.Json));
            return record;
        }

        // Every image once, in a new order, before any comes a second time.
        private int[] Targets(string category, int parts, int wanted) =>
            [.. Enumerable.Range(0, (wanted + parts - 1) / parts).SelectMany(round => new Draws(config.Seed, category, uint.MaxValue - (uint)round).Shuffle(parts)).Take(wanted)];

        private (Part? Part, Skipped? Problem) Copy(string category, Sample sample, int number)
        {
            RgbImage image;
            try
            {
                image = ImageFile.Read(sample.ImagePath);
            }
            catch (InputException problem)
            {
                return (null, new Skipped(sample.ImagePath, problem.Message));
            }

            if (Math.Min(image.Width, image.Height) < DefectMaker.LeastSide)
            {
                return (null, new Skipped(sample.ImagePath, $"it is {image.Width} × {image.Height} pixels, too small for a patch: {DefectMaker.LeastSide} a side are needed"));
            }

            var file = Name(category, "train/good", number);
            var hash = Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(sample.ImagePath)));
            PngFile.Write(Path.Combine(folder, file), image);
            return (new Part(new SynthNormal(file, category, Path.GetRelativePath(_root, sample.ImagePath).Replace('\\', '/'), hash), sample.ImagePath), null);
        }

        private (SynthDefect? Made, SynthFailure? Failure) Make(string category, Part[] parts, int at, int number)
        {
            var draws = new Draws(config.Seed, category, (uint)number);
            var (part, other) = (parts[at], parts[config.Method == "nsa" ? (at + 1 + draws.Below(parts.Length - 1)) % parts.Length : at]);
            var target = ImageFile.Read(part.Path);
            var on = Foreground.Estimate(target);
            var source = other == part ? target : ImageFile.Read(other.Path);
            var from = other == part ? on : Foreground.Estimate(source);
            if (new DefectMaker(config).Make(target, source, on, from, draws, cancellation) is not { } made)
            {
                return (null, new SynthFailure(category, part.Record.Source, $"none of {DefectMaker.Attempts} patches lies on the object and changes the image visibly"));
            }

            var file = Name(category, "test/" + config.Method, number);
            PngFile.Write(Path.Combine(folder, file), made.Image);
            return (new SynthDefect(file, category, part.Record.Source, part.Record.Sha256, other.Record.Source, other.Record.Sha256, on.IsWholeImage, made.Patch), null);
        }

        private static string Name(string category, string kind, int number) => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{category}/{kind}/{number:D5}.png");

        // In parallel; the results are in order, and the first problem is thrown as it is.
        private T[] Each<T>(int count, Func<int, T> make)
        {
            var results = new T[count];
            try
            {
                Parallel.For(0, count, new ParallelOptions { MaxDegreeOfParallelism = config.Threads, CancellationToken = cancellation }, i =>
                {
                    results[i] = make(i);
                    lock (results)
                    {
                        progress?.Report(new EvalProgress(++_done, _total));
                    }
                });
            }
            catch (AggregateException e)
            {
                ExceptionDispatchInfo.Throw(e.Flatten().InnerExceptions[0]);
            }

            return results;
        }
    }
}
