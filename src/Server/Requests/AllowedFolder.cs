namespace LrIad.Server.Requests;

/// <summary>A folder of this machine that requests may name things in. Every link on the way is followed before it is asked whether a path leads out.</summary>
/// <param name="folder">The folder.</param>
internal sealed class AllowedFolder(string folder)
{
    // What no honest path needs; a circle of links has more.
    private const int MostLinks = 32;

    private readonly string _root = Resolve(System.IO.Path.GetFullPath(folder));

    /// <summary>The real path behind a client's.</summary>
    /// <param name="path">Absolute, or relative to the folder.</param>
    /// <param name="where">The field's name.</param>
    /// <exception cref="RequestException">It leads out of the folder, whether or not there is anything.</exception>
    public string Path(string path, string where)
    {
        try
        {
            var real = path.Contains('\0') ? "" : Resolve(System.IO.Path.GetFullPath(path, _root));
            if (real == _root || real.StartsWith(_root.TrimEnd(System.IO.Path.DirectorySeparatorChar) + System.IO.Path.DirectorySeparatorChar, StringComparison.Ordinal))
            {
                return real;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            // Told as any other path that may not be named.
        }

        throw Outside(where);
    }

    /// <summary>A file's bytes.</summary>
    public byte[] Read(string path, int limit, string where)
    {
        var real = Path(path, where);
        try
        {
            using var file = File.OpenHandle(real);
            if (RandomAccess.GetLength(file) > limit)
            {
                throw ImageSources.TooLarge(where, limit);
            }

            var bytes = new byte[RandomAccess.GetLength(file)];
            var length = 0;
            while (length < bytes.Length && RandomAccess.Read(file, bytes.AsSpan(length), length) is > 0 and var read)
            {
                length += read;
            }

            return bytes[..length];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw RequestException.Bad(where, "names a file that cannot be read");
        }
    }

    /// <summary>What is said of every path that leads out.</summary>
    public static RequestException Outside(string where) => RequestException.Bad(where, "names something outside the folder that this server was allowed to read");

    private static string Resolve(string path, int links = 0)
    {
        if (links > MostLinks)
        {
            throw new IOException("Too many links.");
        }

        var root = System.IO.Path.GetPathRoot(path)!;
        var real = root;
        var parts = path[root.Length..].Split(System.IO.Path.DirectorySeparatorChar, StringSplitOptions.RemoveEmptyEntries);
        for (var i = 0; i < parts.Length; i++)
        {
            var next = System.IO.Path.Combine(real, parts[i]);
            if (new FileInfo(next).LinkTarget is { } target)
            {
                // What is behind the link can be a link again, or lie behind one.
                return Resolve(System.IO.Path.GetFullPath(System.IO.Path.Combine([target, .. parts[(i + 1)..]]), real), links + 1);
            }

            real = next;
        }

        return real;
    }
}
