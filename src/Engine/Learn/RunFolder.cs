namespace LrIad.Engine.Learn;

/// <summary>A run's output folder, held for one process.</summary>
internal sealed class RunFolder : IDisposable
{
    private const string LockName = ".lock";

    private readonly FileStream _lock;

    private RunFolder(string path, FileStream held) => (Path, _lock) = (path, held);

    /// <summary>Where it is.</summary>
    public string Path { get; }

    /// <summary>Opens a folder for writing results.</summary>
    /// <param name="path">Where; made if it is not there.</param>
    /// <param name="mayHoldResults">Whether there may be results in it already (when resuming).</param>
    /// <exception cref="InputException">Another process uses it, it holds results, or it cannot be written to.</exception>
    public static RunFolder Open(string path, bool mayHoldResults)
    {
        if (string.IsNullOrWhiteSpace(path))
        {
            throw new InputException("An output folder is needed: --out DIR.");
        }

        var folder = new RunFolder(path, Lock(path));
        if (mayHoldResults || Directory.EnumerateFileSystemEntries(path).All(entry => System.IO.Path.GetFileName(entry) == LockName))
        {
            return folder;
        }

        folder.Dispose();
        throw new InputException($"The output folder {path} is not empty. Give another one with --out, or --resume to go on with the run in it.");
    }

    /// <summary>A file in it.</summary>
    public string File(string name) => System.IO.Path.Combine(Path, name);

    /// <inheritdoc/>
    public void Dispose() => _lock.Dispose();

    private static FileStream Lock(string path)
    {
        var file = System.IO.Path.Combine(path, LockName);
        try
        {
            Directory.CreateDirectory(path);
            return new FileStream(file, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1, FileOptions.DeleteOnClose);
        }
        catch (IOException e) when (System.IO.File.Exists(file))
        {
            throw new InputException($"The output folder {path} is in use by another run.", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"The output folder {path} cannot be written to: {e.Message}", e);
        }
    }
}
