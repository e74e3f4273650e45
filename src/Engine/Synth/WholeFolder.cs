using LrIad.Engine.Learn;

namespace LrIad.Engine.Synth;

/// <summary>A folder that is there whole or not at all: filled under a temporary name beside it, then renamed.</summary>
internal static class WholeFolder
{
    /// <summary>Fills a folder; when <paramref name="fill"/> fails, nothing is left.</summary>
    /// <exception cref="InputException">The folder is not empty, is being written by another run, or cannot be written.</exception>
    public static T Write<T>(string folder, Func<string, T> fill)
    {
        var final = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        if (File.Exists(final) || (Directory.Exists(final) && Directory.EnumerateFileSystemEntries(final).Any()))
        {
            throw new InputException($"The output folder {folder} is not empty. Give another one with --out.");
        }

        var temporary = final + AtomicFile.TemporarySuffix;
        try
        {
            using var held = RunFolder.Open(temporary, mayHoldResults: true);
            try
            {
                // What a killed run left.
                Clear(temporary);
                var result = fill(temporary);
                held.Dispose();
                if (Directory.Exists(final))
                {
                    Directory.Delete(final);
                }

                Directory.Move(temporary, final);
                return result;
            }
            catch
            {
                held.Dispose();
                Directory.Delete(temporary, recursive: true);
                throw;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"The output folder {folder} cannot be written: {e.Message}", e);
        }
    }

    private static void Clear(string folder)
    {
        foreach (var left in Directory.GetDirectories(folder))
        {
            Directory.Delete(left, recursive: true);
        }
    }
}
