using System.Text.Json;
using System.Text.Json.Serialization;

namespace LrIad.Engine.Text;

/// <summary>What is read of a Hugging Face tokenizer.json, checked to be Qwen2's kind of tokenizer.</summary>
internal sealed record TokenizerFile
{
    private const int LargestId = 1 << 24;

    private static readonly JsonSerializerOptions Options = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
    };

    public required Step Normalizer { get; init; }

    public required Step PreTokenizer { get; init; }

    public required BytePairModel Model { get; init; }

    public IReadOnlyList<Added> AddedTokens { get; init; } = [];

    /// <summary>Reads and checks the file.</summary>
    public static TokenizerFile Read(string file)
    {
        try
        {
            using var stream = File.OpenRead(file);
            var content = JsonSerializer.Deserialize<TokenizerFile>(stream, Options) ?? throw new InputException($"{file} holds no tokenizer, only null.");
            return content.Problem() is { } problem ? throw new InputException($"{file}: {problem}") : content;
        }
        catch (JsonException e)
        {
            throw new InputException($"{file} is not a readable Hugging Face tokenizer.json: {e.Message}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} (the tokenizer) cannot be read: {e.Message}", e);
        }
    }

    private string? Problem()
    {
        const string Expected = "Only Qwen2's tokenizer is supported.";
        if (Model.Type != "BPE" || Model.ByteFallback || Model.IgnoreMerges || Model.Dropout is > 0 || Model.ContinuingSubwordPrefix is { Length: > 0 } || Model.EndOfWordSuffix is { Length: > 0 })
        {
            return $"model is not plain byte-level BPE (type \"{Model.Type}\", or dropout, byte_fallback, ignore_merges, a prefix or suffix set). {Expected}";
        }

        if (Normalizer.Type != "NFC")
        {
            return $"normalizer is {Normalizer.Type}, not NFC. {Expected}";
        }

        var steps = PreTokenizer.Pretokenizers ?? [PreTokenizer];
        if (steps is not [{ Type: "Split", Behavior: "Isolated", Invert: false } split, { Type: "ByteLevel", AddPrefixSpace: false, UseRegex: false }])
        {
            return $"pre_tokenizer is not Split (isolated) and then ByteLevel without a prefix space or expression of its own. {Expected}";
        }

        if (split.Pattern?.Regex != Text.PreTokenizer.Pattern)
        {
            return $"pre_tokenizer splits by another expression than Qwen2's: {split.Pattern?.Regex}. {Expected}";
        }

        if (AddedTokens.FirstOrDefault(token => token.Lstrip || token.Rstrip || token.SingleWord || token.Content.Length == 0) is { } unsupported)
        {
            return $"added token \"{unsupported.Content}\" is empty or has lstrip, rstrip or single_word, which is not supported.";
        }

        var bad = Model.Vocab.Select(entry => (entry.Key, entry.Value)).Concat(AddedTokens.Select(token => (token.Content, token.Id))).FirstOrDefault(entry => entry.Item2 is < 0 or > LargestId);
        return bad.Item1 is null ? null : $"token \"{bad.Item1}\" has the impossible id {bad.Item2}.";
    }

    public sealed record Step(string Type, Step[]? Pretokenizers = null, SplitPattern? Pattern = null, string? Behavior = null, bool Invert = false, bool AddPrefixSpace = true, bool UseRegex = true);

    public sealed record SplitPattern([property: JsonPropertyName("Regex")] string? Regex = null);

    public sealed record Added(int Id, string Content, bool SingleWord = false, bool Lstrip = false, bool Rstrip = false, bool Normalized = false, bool Special = false);

    public sealed record BytePairModel(
        string Type,
        Dictionary<string, int> Vocab,
        Merge[] Merges,
        double? Dropout = null,
        bool ByteFallback = false,
        bool IgnoreMerges = false,
        string? ContinuingSubwordPrefix = null,
        string? EndOfWordSuffix = null);

    /// <summary>Two tokens that merge: <c>["a", "b"]</c>, or <c>"a b"</c> in older files.</summary>
    [JsonConverter(typeof(MergeConverter))]
    public readonly record struct Merge(string Left, string Right);

    private sealed class MergeConverter : JsonConverter<Merge>
    {
        public override Merge Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
        {
            var pair = reader.TokenType == JsonTokenType.String ? reader.GetString()!.Split(' ') : JsonSerializer.Deserialize<string[]>(ref reader, options);

            // Without a message of its own the exception says where in the file it is.
            return pair is [{ } left, { } right] ? new Merge(left, right) : throw new JsonException();
        }

        public override void Write(Utf8JsonWriter writer, Merge value, JsonSerializerOptions options) => throw new NotSupportedException();
    }
}
