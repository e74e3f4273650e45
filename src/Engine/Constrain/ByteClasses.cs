namespace LrIad.Engine.Constrain;

/// <summary>The 256 bytes in runs that no edge of an automaton tells apart, numbered upwards.</summary>
internal sealed class ByteClasses
{
    private readonly byte[] _classes = new byte[256];

    public ByteClasses(IEnumerable<(byte From, byte To)> edges)
    {
        var starts = new bool[257];
        foreach (var (from, to) in edges)
        {
            starts[from] = starts[to + 1] = true;
        }

        var count = 0;
        for (var b = 0; b < 256; b++)
        {
            count += b > 0 && starts[b] ? 1 : 0;
            _classes[b] = (byte)count;
        }

        Count = count + 1;
    }

    public int Count { get; }

    public ReadOnlySpan<byte> All => _classes;

    public int Of(byte b) => _classes[b];
}
