using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;

namespace LrIad.Engine.Learn;

/// <summary>
/// Checkpoints of a run, <c>checkpoint-{step}</c> folders. One is written under a temporary name, every file flushed, a manifest with the files' SHA-256
/// last, and then renamed: whatever happens in between, what is called a checkpoint is whole, and the one before it is untouched.
/// </summary>
/// <param name="folder">The run's folder.</param>
/// <param name="boundary">Called before every step of a save that touches the disk; tests make it fail.</param>
internal sealed class CheckpointStore(string folder, Action<string>? boundary = null)
{
    private const string Prefix = "checkpoint-";
    private const string ManifestName = "manifest.json";

    /// <summary>Writes a checkpoint; one of the same step that is whole already is left as it is.</summary>
    /// <param name="step">Its step.</param>
    /// <param name="write">Writes its files, through the function it is given: path and contents.</param>
    /// <exception cref="InputException">It could not be written; earlier checkpoints are as they were.</exception>
    public string Save(int step, Action<string, Action<string, Action<Stream>>> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        var final = Path.Combine(folder, Prefix + step.ToString(CultureInfo.InvariantCulture));
        if (Problem(final) is null)
        {
            return final;
        }

        var temporary = final + AtomicFile.TemporarySuffix;
        try
        {
            Remove(temporary);
            Boundary("create " + temporary);
            Directory.CreateDirectory(temporary);
            var hashes = new SortedDictionary<string, string>(StringComparer.Ordinal);
            write(temporary, (file, contents) => hashes[Path.GetFileName(file)] = WriteFile(file, contents));
            WriteFile(Path.Combine(temporary, ManifestName), stream => JsonSerializer.Serialize(stream, hashes));
            Remove(final);
            Boundary("rename " + final);
            Directory.Move(temporary, final);
            return final;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            TryRemove(temporary);
            throw new InputException($"The checkpoint {final} could not be written: {e.Message} Earlier checkpoints are as they were; free some space and go on with --resume.", e);
        }
    }

    /// <summary>The newest checkpoint that is whole, or null; those that are not are named to <paramref name="report"/>.</summary>
    public (int Step, string Folder)? FindNewest(Action<string>? report = null)
    {
        if (!Directory.Exists(folder))
        {
            return null;
        }

        var found = Directory.GetDirectories(folder, Prefix + "*")
            .Select(path => (Path: path, Step: int.TryParse(Path.GetFileName(path)[Prefix.Length..], NumberStyles.None, CultureInfo.InvariantCulture, out var step) ? step : -1))
            .Where(checkpoint => checkpoint.Step >= 0)
            .OrderByDescending(checkpoint => checkpoint.Step);
        foreach (var (path, step) in found)
        {
            var problem = Problem(path);
            if (problem is null)
            {
                return (step, path);
            }

            report?.Invoke($"{path} is passed over: {problem}");
        }

        return null;
    }

    /// <summary>What is wrong with a checkpoint, or null.</summary>
    public static string? Problem(string checkpoint)
    {
        var manifest = Path.Combine(checkpoint, ManifestName);
        if (!File.Exists(manifest))
        {
            return "it has no manifest: it was never finished";
        }

        try
        {
            var hashes = JsonSerializer.Deserialize<Dictionary<string, string>>(File.ReadAllBytes(manifest));
            if (hashes is not { Count: > 0 })
            {
                return "its manifest names no files";
            }

            foreach (var (name, hash) in hashes)
            {
                using var stream = File.OpenRead(Path.Combine(checkpoint, name));
                if (Convert.ToHexStringLower(SHA256.HashData(stream)) != hash)
                {
                    return $"{name} is not what was written";
                }
            }

            return null;
        }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException or ArgumentException)
        {
            return e.Message;
        }
    }

    private string WriteFile(string file, Action<Stream> contents)
    {
        Boundary("open " + file);
        using var stream = new FileStream(file, FileMode.Create, FileAccess.ReadWrite, FileShare.None);
        Boundary("write " + file);
        contents(stream);
        Boundary("flush " + file);
        stream.Flush(flushToDisk: true);
        stream.Position = 0;
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private void Remove(string path)
    {
        if (Directory.Exists(path))
        {
            Boundary("remove " + path);
            Directory.Delete(path, recursive: true);
        }
    }

    private static void TryRemove(string path)
    {
        try
        {
            Directory.Delete(path, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It stays behind; its name says what it is.
        }
    }

    private void Boundary(string what) => boundary?.Invoke(what);
}
