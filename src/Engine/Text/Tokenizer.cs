using System.Text;

namespace LrIad.Engine.Text;

/// <summary>
/// Qwen2's byte-level BPE tokenizer, from a Hugging Face tokenizer.json: NFC, the pre-tokenizer's words, then the merges of smallest rank first. Equal to Hugging Face on every string.
/// </summary>
internal sealed class Tokenizer
{
    private const int CachedWordLength = 64;
    private const int CachedWords = 100_000;

    private static readonly char[] ByteToChar = MakeByteToChar();

    private readonly Dictionary<string, int> _vocabulary;
    private readonly Dictionary<(int Left, int Right), (int Rank, int Merged)> _merges = [];
    private readonly Dictionary<string, int> _added = [];
    private readonly HashSet<int> _special;
    private readonly string?[] _tokens;

    // Added tokens are looked for in the raw text and in the normalised one, each those that belong there.
    private readonly (AddedTokens Raw, AddedTokens Normalized) _all;
    private readonly (AddedTokens Raw, AddedTokens Normalized) _ordinary;
    private readonly int[] _byteTokens = new int[256];
    private readonly Dictionary<char, byte> _charToByte = [];
    private readonly System.Collections.Concurrent.ConcurrentDictionary<string, int[]> _words = [];
    private readonly Lazy<VocabularyTrie> _trie;

    private Tokenizer(string file, TokenizerFile content)
    {
        _vocabulary = content.Model.Vocab;
        foreach (var added in content.AddedTokens)
        {
            _added[added.Content] = added.Id;
        }

        _special = [.. content.AddedTokens.Where(token => token.Special).Select(token => token.Id)];
        _all = (Finder(content, normalized: false, special: true), Finder(content, normalized: true, special: true));
        _ordinary = (Finder(content, normalized: false, special: false), Finder(content, normalized: true, special: false));
        _tokens = new string?[1 + _vocabulary.Concat(_added).Select(token => token.Value).DefaultIfEmpty(-1).Max()];
        foreach (var (token, id) in _vocabulary.Concat(_added))
        {
            _tokens[id] = token;
        }

        for (var b = 0; b < 256; b++)
        {
            _charToByte[ByteToChar[b]] = (byte)b;
            _byteTokens[b] = Id(ByteToChar[b].ToString(), file, $"which stands for byte {b}");
        }

        for (var rank = 0; rank < content.Model.Merges.Length; rank++)
        {
            var (left, right) = content.Model.Merges[rank];
            var place = $"which model.merges[{rank}] needs";
            _merges.TryAdd((Id(left, file, place), Id(right, file, place)), (rank, Id(left + right, file, place)));
        }

        _trie = new Lazy<VocabularyTrie>(() => new VocabularyTrie([.. _tokens.Select(OrdinaryBytes)]));
    }

    /// <summary>Largest token id + 1.</summary>
    public int VocabularySize => _tokens.Length;

    /// <summary>The bytes of all ordinary tokens, made when they are first asked for.</summary>
    internal VocabularyTrie Trie => _trie.Value;

    /// <summary>Reads a tokenizer.json.</summary>
    /// <exception cref="InputException">It is missing, garbled, or another kind of tokenizer than Qwen2's.</exception>
    public static Tokenizer Load(string file) => new(file, TokenizerFile.Read(file));

    /// <summary>One token a byte, for measuring models that have no tokenizer.</summary>
    internal static Tokenizer OfBytes()
    {
        var bytes = Enumerable.Range(0, 256).ToDictionary(b => ByteToChar[b].ToString());
        return new Tokenizer("(bytes)", new TokenizerFile { Normalizer = new("NFC"), PreTokenizer = new("Split"), Model = new("BPE", bytes, []) });
    }

    /// <summary>Token ids of a text; special tokens in it stay text.</summary>
    public int[] Encode(string text) => Encode(text, _ordinary);

    /// <summary>Token ids of a text in which special tokens stand for themselves.</summary>
    public int[] EncodeWithSpecial(string text) => Encode(text, _all);

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

            if (_added.ContainsKey(token) || !token.All(_charToByte.ContainsKey))
            {
                Flush();
                text.Append(skipSpecial && _special.Contains(id) ? "" : token);
                continue;
            }

            bytes.AddRange(token.Select(c => _charToByte[c]));
        }

        Flush();
        return text.ToString();

        void Flush()
        {
            text.Append(Encoding.UTF8.GetString([.. bytes]));
            bytes.Clear();
        }
    }

    /// <summary>A token's bytes, an added one's as text; none for an id that stands for nothing.</summary>
    public byte[] Bytes(int id) => (uint)id >= (uint)_tokens.Length || _tokens[id] is not { } token ? []
        : IsAdded(id) ? Encoding.UTF8.GetBytes(token)
        : [.. token.Select(c => _charToByte[c])];

    /// <summary>Whether a token is text of its own, never a part of a character.</summary>
    public bool IsAdded(int id) => (uint)id < (uint)_tokens.Length && _tokens[id] is { } token && (_added.ContainsKey(token) || !token.All(_charToByte.ContainsKey));

    /// <summary>Whether a token is special: no part of what is said.</summary>
    public bool IsSpecial(int id) => _special.Contains(id);

    /// <summary>The id of an added token, as special ones are, or null.</summary>
    public int? TokenId(string special) => _added.TryGetValue(special, out var id) ? id : null;

    private static AddedTokens Finder(TokenizerFile content, bool normalized, bool special) => new(content.AddedTokens
        .Where(token => token.Normalized == normalized && (special || !token.Special))
        .Select(token => (normalized ? Nfc.Normalize(token.Content) : token.Content, token.Id)));

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

    // None for an added token and for an id that stands for nothing.
    private byte[] OrdinaryBytes(string? token) => token is null || _added.ContainsKey(token) || !token.All(_charToByte.ContainsKey) ? [] : [.. token.Select(c => _charToByte[c])];

    private int Id(string token, string file, string need) => _vocabulary.TryGetValue(token, out var id) ? id : throw new InputException($"{file}: model.vocab lacks \"{token}\", {need}.");

    private int[] Encode(string text, (AddedTokens Raw, AddedTokens Normalized) added)
    {
        ArgumentNullException.ThrowIfNull(text);
        var ids = new List<int>(text.Length / 3);
        foreach (var (raw, rawId) in added.Raw.Split(text))
        {
            if (rawId is { } id)
            {
                ids.Add(id);
                continue;
            }

            foreach (var (normal, normalId) in added.Normalized.Split(Nfc.Normalize(raw)))
            {
                if (normalId is { } other)
                {
                    ids.Add(other);
                }
                else
                {
                    PreTokenizer.Split(normal, range => ids.AddRange(Word(normal[range])));
                }
            }
        }

        return [.. ids];
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
