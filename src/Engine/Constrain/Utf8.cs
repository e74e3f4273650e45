namespace LrIad.Engine.Constrain;

/// <summary>UTF-8 of ranges of characters.</summary>
internal static class Utf8
{
    // Last character of each length in bytes.
    private static readonly int[] Lasts = [0x7F, 0x7FF, 0xFFFF, 0x10FFFF];

    /// <summary>A character range as sequences of byte ranges: a text of as many bytes is one of its characters exactly where each byte lies in its range.</summary>
    public static IEnumerable<(byte From, byte To)[]> Sequences(int from, int to)
    {
        for (var length = 1; length <= Lasts.Length; length++)
        {
            var first = length == 1 ? 0 : Lasts[length - 2] + 1;
            if (from <= Lasts[length - 1] && to >= first)
            {
                foreach (var sequence in OfLength(Math.Max(from, first), Math.Min(to, Lasts[length - 1]), length))
                {
                    yield return sequence;
                }
            }
        }
    }

    // Where the leading bytes differ, those that follow must take all their values; what sticks out at either end is split off.
    private static IEnumerable<(byte From, byte To)[]> OfLength(int from, int to, int length)
    {
        for (var bits = 6; bits < 6 * length; bits += 6)
        {
            var low = (1 << bits) - 1;
            if ((from | low) == (to | low))
            {
                continue;
            }

            var cut = (from & low) != 0 ? from | low : (to & low) != low ? (to & ~low) - 1 : -1;
            if (cut >= 0)
            {
                return OfLength(from, cut, length).Concat(OfLength(cut + 1, to, length));
            }
        }

        var (first, last) = (Bytes(from, length), Bytes(to, length));
        return [[.. first.Zip(last)]];
    }

    private static byte[] Bytes(int point, int length)
    {
        var bytes = new byte[length];
        for (var i = length - 1; i > 0; i--, point >>= 6)
        {
            bytes[i] = (byte)(0x80 | (point & 0x3F));
        }

        bytes[0] = (byte)(length == 1 ? point : point | (0xF00 >> length & 0xFF));
        return bytes;
    }
}
