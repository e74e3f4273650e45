using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace LrIad.Engine.Text;

/// <summary>
/// Unicode normalisation form C (UAX #15). Our own, because .NET's depends on a library that minimal hosts lack, where it silently does nothing.
/// </summary>
internal sealed class Nfc
{
    private const int HangulBase = 0xAC00;
    private const int LeadBase = 0x1100;
    private const int VowelBase = 0x1161;
    private const int TrailBase = 0x11A7;
    private const int Leads = 19;
    private const int Vowels = 21;
    private const int Trails = 28;

    // Nothing below U+0300 decomposes with what follows it or carries a combining class.
    private const char FirstCombining = '\u0300';

    private static readonly Lazy<Nfc> Shared = new(() => new Nfc());

    private readonly Dictionary<int, byte> _classes = [];
    private readonly Dictionary<int, (int First, int Second)> _decompositions = [];
    private readonly Dictionary<(int First, int Second), int> _compositions = [];

    private Nfc()
    {
        using var reader = new StreamReader(typeof(Nfc).Assembly.GetManifestResourceStream("LrIad.Engine.Text.Nfc.txt")!);
        var excluded = new HashSet<int>();
        while (reader.ReadLine() is { } line)
        {
            var fields = line.Split(' ');
            switch (fields[0])
            {
                case "c":
                    _classes[Hex(fields[1])] = byte.Parse(fields[2], CultureInfo.InvariantCulture);
                    break;
                case "d":
                    _decompositions[Hex(fields[1])] = (Hex(fields[2]), fields.Length > 3 ? Hex(fields[3]) : -1);
                    break;
                case "x":
                    excluded.Add(Hex(fields[1]));
                    break;
                default:
                    break;
            }
        }

        foreach (var (composed, pair) in _decompositions)
        {
            if (pair.Second >= 0 && !excluded.Contains(composed))
            {
                _compositions[pair] = composed;
            }
        }
    }

    /// <summary>The normal form of a text; unpaired surrogates become U+FFFD.</summary>
    public static string Normalize(string text) =>
        text.AsSpan().IndexOfAnyInRange(FirstCombining, '\uFFFF') < 0 ? text : Shared.Value.NormalizeSlowly(text);

    private static int Hex(string field) => int.Parse(field, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private string NormalizeSlowly(string text)
    {
        var scalars = new List<int>(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            Decompose(rune.Value, scalars);
        }

        Order(scalars);
        Compose(scalars);
        var result = new StringBuilder(text.Length);
        Span<char> units = stackalloc char[2];
        foreach (var scalar in scalars)
        {
            result.Append(units[..new Rune(scalar).EncodeToUtf16(units)]);
        }

        return result.ToString();
    }

    private void Decompose(int scalar, List<int> into)
    {
        var syllable = scalar - HangulBase;
        if (syllable is >= 0 and < Leads * Vowels * Trails)
        {
            into.Add(LeadBase + (syllable / (Vowels * Trails)));
            into.Add(VowelBase + (syllable / Trails % Vowels));
            if (syllable % Trails != 0)
            {
                into.Add(TrailBase + (syllable % Trails));
            }
        }
        else if (_decompositions.TryGetValue(scalar, out var pair))
        {
            Decompose(pair.First, into);
            if (pair.Second >= 0)
            {
                Decompose(pair.Second, into);
            }
        }
        else
        {
            into.Add(scalar);
        }
    }

    private int Class(int scalar) => _classes.GetValueOrDefault(scalar);

    // Runs of combining marks are sorted by class, stably.
    private void Order(List<int> scalars)
    {
        for (var start = 0; start < scalars.Count; start++)
        {
            var end = start;
            while (end < scalars.Count && Class(scalars[end]) != 0)
            {
                end++;
            }

            if (end - start > 1)
            {
                var ordered = scalars[start..end].OrderBy(Class).ToArray();
                ordered.CopyTo(CollectionsMarshal.AsSpan(scalars)[start..end]);
            }

            start = end;
        }
    }

    private void Compose(List<int> scalars)
    {
        var (starter, kept, lastClass) = (-1, 0, -1);
        for (var i = 0; i < scalars.Count; i++)
        {
            var (scalar, order) = (scalars[i], Class(scalars[i]));

            // A mark reaches its starter when nothing of the same or a higher class (or another starter) stands between.
            if (starter >= 0 && lastClass < order && TryCompose(scalars[starter], scalar, out var composed))
            {
                scalars[starter] = composed;
                continue;
            }

            if (order == 0)
            {
                (starter, lastClass) = (kept, -1);
            }
            else
            {
                lastClass = order;
            }

            scalars[kept++] = scalar;
        }

        scalars.RemoveRange(kept, scalars.Count - kept);
    }

    private bool TryCompose(int first, int second, out int composed)
    {
        var (lead, vowel) = (first - LeadBase, second - VowelBase);
        if (lead is >= 0 and < Leads && vowel is >= 0 and < Vowels)
        {
            composed = HangulBase + (((lead * Vowels) + vowel) * Trails);
            return true;
        }

        var (syllable, trail) = (first - HangulBase, second - TrailBase);
        if (syllable is >= 0 and < Leads * Vowels * Trails && syllable % Trails == 0 && trail is > 0 and < Trails)
        {
            composed = first + trail;
            return true;
        }

        return _compositions.TryGetValue((first, second), out composed);
    }
}
