namespace LrIad.Engine;

/// <summary>Files that are there whole or not at all: written under a temporary name, flushed to the disk, renamed.</summary>
internal static class AtomicFile
{
    /// <summary>Ending of files that are still being written.</summary>
    public const string TemporarySuffix = ".partial";

    /// <summary>Writes a file; when <paramref name="write"/> fails, what was there before stays.</summary>
    /// <exception cref="InputException">The disk is full, the folder cannot be written to.</exception>
    public static void Write(string file, Action<Stream> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        var temporary = file + TemporarySuffix;
        try
        {
            using (var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write, FileShare.None))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }

            File.Move(temporary, file, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            TryDelete(temporary);
            throw new InputException($"{file} could not be written: {e.Message} Nothing that was there before has changed.", e);
        }
        catch (OperationCanceledException)
        {
            TryDelete(temporary);
            throw;
        }
    }

    /// <summary>Writes a text file in UTF-8.</summary>
    public static void WriteText(string file, string text) => Write(file, stream => stream.Write(System.Text.Encoding.UTF8.GetBytes(text)));

    private static void TryDelete(string file)
    {
        try
        {
            File.Delete(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The temporary file stays behind; its name says what it is.
        }
    }
}
