namespace LrIad.Engine.Compare;

/// <summary>Finds an image of one file in another, whose paths may begin elsewhere: by the longest end of the path that is there, if only one image has it.</summary>
internal sealed class ImageMatch
{
    private readonly Dictionary<string, int> _exact = [];
    private readonly Dictionary<string, List<int>> _byName = [];
    private readonly string[][] _parts;

    /// <param name="paths">Paths with forward slashes, none twice.</param>
    public ImageMatch(IReadOnlyList<string> paths)
    {
        _parts = [.. paths.Select(Parts)];
        for (var i = 0; i < paths.Count; i++)
        {
            _exact[paths[i]] = i;
            (_byName.TryGetValue(_parts[i][^1], out var same) ? same : _byName[_parts[i][^1]] = []).Add(i);
        }
    }

    /// <summary>The number of the path that is meant, or null where there is none or more than one.</summary>
    public int? Find(string path)
    {
        if (_exact.TryGetValue(path, out var exact))
        {
            return exact;
        }

        var parts = Parts(path);
        if (!_byName.TryGetValue(parts[^1], out var candidates))
        {
            return null;
        }

        var common = candidates.ConvertAll(candidate => CommonEnd(_parts[candidate], parts));
        var longest = common.Max();
        return common.Count(length => length == longest) == 1 ? candidates[common.IndexOf(longest)] : null;
    }

    private static string[] Parts(string path) => path.Split('/', StringSplitOptions.RemoveEmptyEntries) is { Length: > 0 } parts ? parts : [""];

    private static int CommonEnd(string[] a, string[] b)
    {
        var length = 0;
        while (length < Math.Min(a.Length, b.Length) && a[^(length + 1)] == b[^(length + 1)])
        {
            length++;
        }

        return length;
    }
}
