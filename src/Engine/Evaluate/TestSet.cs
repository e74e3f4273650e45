using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;

namespace LrIad.Engine.Evaluate;

/// <summary>What is judged: labelled images by content, and the faultless part that is shown first for each category, if any.</summary>
/// <param name="Samples">The images.</param>
/// <param name="Problems">What could not be used.</param>
/// <param name="Hashes">SHA-256 of the images' files.</param>
/// <param name="References">A faultless part's image for each category; empty: none is shown.</param>
internal sealed record TestSet(
    IReadOnlyList<Sample> Samples, IReadOnlyList<Skipped> Problems, IReadOnlyDictionary<string, string> Hashes, IReadOnlyDictionary<string, string> References)
{
    private const string Auto = "auto";

    /// <summary>Reads data; an image that serves as reference is not judged.</summary>
    /// <param name="source">The data.</param>
    /// <param name="reference"><c>auto</c>, an image file, or null.</param>
    /// <param name="seed">Of the choice of references.</param>
    /// <param name="limit">At most so many images (0: all).</param>
    /// <param name="cancellation">Stops it.</param>
    /// <exception cref="InputException">The data cannot be read, or a category has no image for a reference.</exception>
    public static TestSet Read(DataSource source, string? reference, ulong seed, int limit, CancellationToken cancellation)
    {
        var data = ImageFolder.Read(source);
        var references = reference switch
        {
            null => new Dictionary<string, string>(),
            Auto => Choose(source, data.Samples, seed),
            _ => Given(reference, source, data.Samples),
        };
        var hashes = ImageHashes.Of(data.Samples.Select(sample => sample.ImagePath).Concat(references.Values), cancellation);
        var shown = references.Values.Select(file => hashes.TryGetValue(file, out var hash) ? hash : throw new InputException($"The reference {file} cannot be read.")).ToHashSet();
        var samples = data.Samples.Where(sample => !(hashes.TryGetValue(sample.ImagePath, out var hash) && shown.Contains(hash)));
        Sample[] kept = [.. limit > 0 ? samples.Take(limit) : samples];
        return new TestSet(kept, data.Problems, kept.Where(sample => hashes.ContainsKey(sample.ImagePath)).ToDictionary(sample => sample.ImagePath, sample => hashes[sample.ImagePath]), references);
    }

    /// <summary>How many of the images an adapter was trained on, by the hashes beside it; null for the base model.</summary>
    public TrainingOverlap? OverlapWith(string? adapter) => adapter is null ? null
        : ImageHashes.Read(adapter) is { } trained ? OverlapWith(trained)
        : new TrainingOverlap { Checked = false, Reason = $"{adapter} has no {ImageHashes.FileName}, which says what it was trained on" };

    /// <summary>How many of the images are among training images.</summary>
    public TrainingOverlap OverlapWith(IEnumerable<string> trained) => new() { Checked = true, Images = ImageHashes.Shared(Hashes, trained).Count };

    private static Dictionary<string, string> Given(string file, DataSource source, IReadOnlyList<Sample> samples)
    {
        var categories = samples.Select(sample => sample.Object).Distinct().ToArray();
        return categories.Length == 1
            ? new() { [categories[0]] = file }
            : throw new InputException($"--reference {file} is one image, but {source.Path} has {categories.Length} categories; choose one with --categories, or let --reference auto take an image of each.");
    }

    // Rather an image that is not judged, rather one of the train split; among as good ones by lot, for each category by itself.
    private static Dictionary<string, string> Choose(DataSource source, IReadOnlyList<Sample> judged, ulong seed)
    {
        var taken = judged.Select(sample => sample.ImagePath).ToHashSet(StringComparer.Ordinal);
        var normals = ImageFolder.Read(source with { Split = "all" }).Samples.Where(sample => !sample.Defect).ToLookup(sample => sample.Object);
        string One(string category)
        {
            var best = normals[category].GroupBy(sample => (taken.Contains(sample.ImagePath), sample.Split != "train")).OrderBy(group => group.Key).FirstOrDefault() ?? throw new InputException(
                $"{source.Path} has no normal image of '{category}' to show first; leave the category out with --without-categories, or name an image with --reference.");
            var lot = BinaryPrimitives.ReadUInt32LittleEndian(SHA256.HashData(Encoding.UTF8.GetBytes(category)));
            return best.ElementAt(Philox.Below(best.Count(), seed, lot, 0)).ImagePath;
        }

        return judged.Select(sample => sample.Object).Distinct().ToDictionary(category => category, One);
    }
}
