using System.Text;
using System.Text.Json;

namespace LrIad.Engine.Text;

/// <summary>
/// Qwen2's byte-level BPE tokenizer, from a Hugging Face tokenizer.json: NFC, the pre-tokenizer's words, then the merges of smallest rank first. Equal to Hugging Face on every string.
/// </summary>
public sealed class Tokenizer
{
    private const int CachedWordLength = 64;
    private const int CachedWords = 100_000;

    private static readonly char[] ByteToChar = MakeByteToChar();

    private readonly Dictionary<string, int> _vocabulary;
    private readonly Dictionary<(int Left, int Right), (int Rank, int Merged)> _merges = [];
    private readonly Dictionary<string, int> _special = [];
    private readonly string[] _tokens;
    private readonly int[] _byteTokens = new int[256];
    private readonly Dictionary<char, byte> _charToByte = [];
    private readonly System.Collections.Concurrent.ConcurrentDictionary<string, int[]> _words = [];

    private Tokenizer(string file, JsonElement root)
    {
        var model = root.GetProperty("model");
        _vocabulary = model.GetProperty("vocab").EnumerateObject().ToDictionary(pair => pair.Name, pair => pair.Value.GetInt32());
        foreach (var added in root.GetProperty("added_tokens").EnumerateArray())
        {
            _special[added.GetProperty("content").GetString()!] = added.GetProperty("id").GetInt32();
        }

        _tokens = new string[1 + Math.Max(_vocabulary.Values.Max(), _special.Count == 0 ? 0 : _special.Values.Max())];
        foreach (var (token, id) in _vocabulary.Concat(_special))
        {
            _tokens[id] = token;
        }

        for (var b = 0; b < 256; b++)
        {
            _charToByte[ByteToChar[b]] = (byte)b;
            _byteTokens[b] = Id(file, ByteToChar[b].ToString());
        }

        var rank = 0;
        foreach (var merge in model.GetProperty("merges").EnumerateArray())
        {
            var (left, right) = merge.ValueKind == JsonValueKind.Array ? (merge[0].GetString()!, merge[1].GetString()!) : Halves(merge.GetString()!);
            _merges.TryAdd((Id(file, left), Id(file, right)), (rank++, Id(file, left + right)));
        }
    }

    /// <summary>Largest token id + 1.</summary>
    public int VocabularySize => _tokens.Length;

    /// <summary>Reads a tokenizer.json.</summary>
    /// <exception cref="InputException">It is missing or not a byte-level BPE tokenizer.</exception>
    public static Tokenizer Load(string file)
    {
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(file));
            return new Tokenizer(file, json.RootElement);
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException or ArgumentException or IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read as a byte-level BPE tokenizer.json: {e.Message}", e);
        }
    }

    /// <summary>Token ids of a text; special tokens in it stay text.</summary>
    public int[] Encode(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var ids = new List<int>(text.Length / 3);
        Append(text, ids);
        return [.. ids];
    }

    /// <summary>Token ids of a text in which special tokens stand for themselves.</summary>
    public int[] EncodeWithSpecial(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var ids = new List<int>(text.Length / 3);
        var from = 0;
        for (var at = text.IndexOf('<', StringComparison.Ordinal); at >= 0; at = at + 1 <= text.Length ? text.IndexOf('<', at + 1) : -1)
        {
            var special = LongestSpecial(text.AsSpan(at));
            if (special is null)
            {
                continue;
            }

            Append(text[from..at], ids);
            ids.Add(_special[special]);
            from = at + special.Length;
            at = from - 1;
        }

        Append(text[from..], ids);
        return [.. ids];
    }

    /// <summary>The text of tokens; bytes that are not UTF-8 become U+FFFD.</summary>
    /// <param name="ids">Token ids; those beyond the vocabulary are passed over, as a padded head can produce them.</param>
    /// <param name="skipSpecial">Leave special tokens out.</param>
    public string Decode(IReadOnlyList<int> ids, bool skipSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(ids);
        var text = new StringBuilder();
        var bytes = new List<byte>();
        foreach (var id in ids)
        {
            var token = (uint)id < (uint)_tokens.Length ? _tokens[id] : null;
            if (token is null)
            {
                continue;
            }

            if (_special.ContainsKey(token))
            {
                Flush();
                text.Append(skipSpecial ? "" : token);
                continue;
            }

            foreach (var c in token)
            {
                bytes.Add(_charToByte[c]);
            }
        }

        Flush();
        return text.ToString();

        void Flush()
        {
            text.Append(Encoding.UTF8.GetString([.. bytes]));
            bytes.Clear();
        }
    }

    /// <summary>The id of a special token, or null.</summary>
    public int? TokenId(string special) => _special.TryGetValue(special, out var id) ? id : null;

    private static (string Left, string Right) Halves(string merge)
    {
        var space = merge.IndexOf(' ', StringComparison.Ordinal);
        return (merge[..space], merge[(space + 1)..]);
    }

    // GPT-2's printable stand-ins for bytes.
    private static char[] MakeByteToChar()
    {
        var chars = new char[256];
        var next = 256;
        for (var b = 0; b < 256; b++)
        {
            var printable = b is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);
            chars[b] = (char)(printable ? b : next++);
        }

        return chars;
    }

    private int Id(string file, string token) => _vocabulary.TryGetValue(token, out var id) ? id : throw new InputException($"{file}: the vocabulary lacks '{token}', which its merges or bytes need.");

    private string? LongestSpecial(ReadOnlySpan<char> text)
    {
        string? longest = null;
        foreach (var token in _special.Keys)
        {
            if (text.StartsWith(token, StringComparison.Ordinal) && token.Length > (longest?.Length ?? 0))
            {
                longest = token;
            }
        }

        return longest;
    }

    private void Append(string text, List<int> ids)
    {
        var normal = Nfc.Normalize(text);
        PreTokenizer.Split(normal, range => ids.AddRange(Word(normal[range])));
    }

    private int[] Word(string word)
    {
        if (_words.TryGetValue(word, out var ids))
        {
            return ids;
        }

        ids = Merge([.. Encoding.UTF8.GetBytes(word).Select(b => _byteTokens[b])]);
        if (word.Length <= CachedWordLength && _words.Count < CachedWords)
        {
            _words[word] = ids;
        }

        return ids;
    }

    // The pair of smallest rank is merged, the leftmost of equals first, until none is left. Neighbours are linked, so a long word costs n·log n.
    private int[] Merge(int[] tokens)
    {
        var (previous, next) = (new int[tokens.Length], new int[tokens.Length]);
        var pairs = new PriorityQueue<(int At, int Left, int Right), (int Rank, int At)>();
        for (var i = 0; i < tokens.Length; i++)
        {
            (previous[i], next[i]) = (i - 1, i + 1);
        }

        for (var i = 0; i + 1 < tokens.Length; i++)
        {
            Offer(i);
        }

        while (pairs.TryDequeue(out var pair, out _))
        {
            var right = next[pair.At];
            if (tokens[pair.At] != pair.Left || right >= tokens.Length || tokens[right] != pair.Right)
            {
                continue;
            }

            tokens[pair.At] = _merges[(pair.Left, pair.Right)].Merged;
            tokens[right] = -1;
            next[pair.At] = next[right];
            if (next[right] < tokens.Length)
            {
                previous[next[right]] = pair.At;
            }

            Offer(pair.At);
            if (previous[pair.At] >= 0)
            {
                Offer(previous[pair.At]);
            }
        }

        return [.. tokens.Where(token => token >= 0)];

        void Offer(int at)
        {
            if (next[at] < tokens.Length && _merges.TryGetValue((tokens[at], tokens[next[at]]), out var merge))
            {
                pairs.Enqueue((at, tokens[at], tokens[next[at]]), (merge.Rank, at));
            }
        }
    }
}
