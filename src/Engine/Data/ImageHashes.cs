using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

namespace LrIad.Engine.Data;

/// <summary>Images by their content: the SHA-256 of a file, whatever it is called and wherever it lies.</summary>
internal static partial class ImageHashes
{
    /// <summary>The file beside an adapter that keeps the hashes of its training images: one a line, in hexadecimal digits, sorted.</summary>
    public const string FileName = "training_images.sha256";

    /// <summary>Hashes files, each once, as many at a time as there are cores; one that cannot be read has no hash, and is told of when its image is wanted.</summary>
    /// <returns>The hash of each path.</returns>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public static IReadOnlyDictionary<string, string> Of(IEnumerable<string> files, CancellationToken cancellation)
    {
        var hashes = new ConcurrentDictionary<string, string>(StringComparer.Ordinal);
        Parallel.ForEach(files.Distinct(StringComparer.Ordinal), new ParallelOptions { CancellationToken = cancellation, MaxDegreeOfParallelism = Environment.ProcessorCount }, file =>
        {
            if (Of(file) is { } hash)
            {
                hashes[file] = hash;
            }
        });
        return hashes;
    }

    /// <summary>Those of the images that other images equal, by content.</summary>
    /// <param name="images">Paths and hashes.</param>
    /// <param name="others">The others' hashes.</param>
    /// <returns>Paths, sorted.</returns>
    public static IReadOnlyList<string> Shared(IReadOnlyDictionary<string, string> images, IEnumerable<string> others)
    {
        ArgumentNullException.ThrowIfNull(images);
        var known = others.ToHashSet(StringComparer.Ordinal);
        return [.. images.Where(image => known.Contains(image.Value)).Select(image => image.Key).Order(StringComparer.Ordinal)];
    }

    /// <summary>A few of the files and how many there are, for a message.</summary>
    internal static string Name(IReadOnlyList<string> files) => string.Join(", ", files.Take(3)) + (files.Count > 3 ? $" and {files.Count - 3} more" : "");

    /// <summary>Writes hashes as <see cref="FileName"/> keeps them.</summary>
    public static void Write(Stream stream, IEnumerable<string> hashes)
    {
        ArgumentNullException.ThrowIfNull(stream);
        stream.Write(Encoding.ASCII.GetBytes(string.Concat(hashes.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal).Select(hash => hash + "\n"))));
    }

    /// <summary>The hashes beside an adapter; null where it has no such file, as those of other programs and older versions.</summary>
    /// <exception cref="InputException">The file is not as it must be.</exception>
    public static IReadOnlyCollection<string>? Read(string adapter)
    {
        var file = Path.Combine(adapter, FileName);
        if (!File.Exists(file))
        {
            return null;
        }

        try
        {
            var lines = File.ReadAllLines(file);
            var bad = Array.FindIndex(lines, line => !Hash().IsMatch(line));
            return bad < 0 ? lines : throw new InputException($"{file}, line {bad + 1}: not a SHA-256 of 64 hexadecimal digits.");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }
    }

    private static string? Of(string file)
    {
        try
        {
            using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0, FileOptions.SequentialScan);
            return Convert.ToHexStringLower(SHA256.HashData(stream));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    [GeneratedRegex(@"\A[0-9a-f]{64}\z", RegexOptions.CultureInvariant)]
    private static partial Regex Hash();
}
