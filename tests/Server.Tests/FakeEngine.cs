using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Text;
using LrIad.Engine;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>
/// An engine without a model: what it answers depends on the request alone, so that a test knows it beforehand. A token is a word with the space before it. An inspection's
/// answer has an end token, as a model's does.
/// </summary>
internal sealed class FakeEngine : IInferenceEngine
{
    public const string Name = "tiny-qwen2-vl";

    private readonly Lock _lock = new();
    private readonly Dictionary<string, string> _adapters = [];
    private readonly ConcurrentDictionary<int, string> _said = [];
    private readonly List<GenerationRequest> _requests = [];
    private readonly List<ScoreRequest> _scores = [];
    private int _running, _cancelled, _finished, _refused, _generated, _prompt;

    /// <summary>What completion n of a request says.</summary>
    public Func<GenerationRequest, int, string> Answer { get; init; } = Echo;

    /// <summary>How long a token takes; negative: it never comes.</summary>
    public TimeSpan TokenTime { get; set; }

    /// <summary>Thrown instead of an answer.</summary>
    public Exception? Failure { get; set; }

    /// <summary>Thrown after so many tokens.</summary>
    public (int Tokens, Exception Error)? LateFailure { get; set; }

    /// <summary>Requests that were let in, in order.</summary>
    public IReadOnlyList<GenerationRequest> Requests
    {
        get
        {
            lock (_lock)
            {
                return [.. _requests];
            }
        }
    }

    /// <summary>Sequences that were scored, in order.</summary>
    public IReadOnlyList<ScoreRequest> Scores
    {
        get
        {
            lock (_lock)
            {
                return [.. _scores];
            }
        }
    }

    public ModelCard Model { get; init; } = new() { Name = Name, Device = "cpu", Vocabulary = 1000, EndTokens = [2], Loaded = DateTimeOffset.UnixEpoch.AddDays(20_000) };

    public EngineLimits Limits { get; init; } = new();

    public IReadOnlyCollection<string> Adapters
    {
        get
        {
            lock (_lock)
            {
                return [.. _adapters.Keys];
            }
        }
    }

    public EngineStatistics Statistics => new()
    {
        Running = _running,
        CacheBlocks = 100,
        FreeCacheBlocks = 100 - _running,
        PromptTokens = _prompt,
        GeneratedTokens = _generated,
        Finished = _finished,
        Cancelled = _cancelled,
        Refused = _refused,
    };

    public static string Echo(GenerationRequest request, int completion) => request.Prompt switch
    {
        Conversation conversation => $"You said {string.Concat(conversation.Messages[^1].Parts.Select(part => part.Text ?? $"[image of {part.Image!.Bytes.Length} bytes]"))}{Suffix(completion)}",
        RawPrompt raw => $"The prompt was {raw.Text} with {raw.Images.Count} images{Suffix(completion)}",
        TokenPrompt tokens => $"The prompt had {tokens.Ids.Count} tokens and {tokens.Images.Count} images{Suffix(completion)}",
        _ => "",
    };

    public Task LoadAdapterAsync(string name, string folder, CancellationToken cancellation = default)
    {
        lock (_lock)
        {
            if (!File.Exists(Path.Combine(folder, "adapter_config.json")))
            {
                throw new InputException($"{folder} has no adapter_config.json.");
            }

            if (_adapters.TryGetValue(name, out var other) && other != folder)
            {
                throw new InputException($"An adapter {name} is loaded already, from {other}.");
            }

            _adapters[name] = folder;
        }

        return Task.CompletedTask;
    }

    public Task<bool> UnloadAdapterAsync(string name, CancellationToken cancellation = default)
    {
        lock (_lock)
        {
            return Task.FromResult(_adapters.Remove(name));
        }
    }

    public async IAsyncEnumerable<GenerationUpdate> StreamAsync(GenerationRequest request, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        await Task.Yield();
        if (Failure is not null)
        {
            _refused += Failure is EngineBusyException ? 1 : 0;
            throw Failure;
        }

        lock (_lock)
        {
            _requests.Add(request);
        }

        Interlocked.Increment(ref _running);
        try
        {
            var promptTokens = PromptTokens(request.Prompt);
            Interlocked.Add(ref _prompt, promptTokens);
            yield return new GenerationUpdate { PromptTokens = promptTokens, SharedPromptTokens = 0, PromptIds = PromptIds(request.Prompt), Probe = request.Probe ? 1.5 : null };
            foreach (var update in Enumerable.Range(0, request.Completions).SelectMany(completion => Complete(request, completion)))
            {
                await Task.Delay(TokenTime < TimeSpan.Zero ? Timeout.InfiniteTimeSpan : TokenTime, cancellation);
                cancellation.ThrowIfCancellationRequested();
                if (LateFailure is { } late && Interlocked.Add(ref _generated, 0) >= late.Tokens)
                {
                    throw late.Error;
                }

                Interlocked.Add(ref _generated, update.Tokens.Count);
                yield return update;
            }

            Interlocked.Increment(ref _finished);
        }
        finally
        {
            if (cancellation.IsCancellationRequested)
            {
                Interlocked.Increment(ref _cancelled);
            }

            Interlocked.Decrement(ref _running);
        }
    }

    public Task<ScoredCompletion> ScoreAsync(ScoreRequest request, CancellationToken cancellation = default)
    {
        lock (_lock)
        {
            _scores.Add(request);
        }

        return Failure is not null ? Task.FromException<ScoredCompletion>(Failure)
            : Task.FromResult(new ScoredCompletion(PromptTokens(request.Prompt), [.. request.Completion.Select((id, i) => Draw($" {id}", i, request.TopLogProbs))]));
    }

    public IReadOnlyList<int> Tokenize(string text, bool parseSpecial = false) => [.. Words(text).Select(Id)];

    public string Detokenize(IReadOnlyList<int> ids, bool keepSpecial = false) => string.Concat(ids.Select(id => _said.GetValueOrDefault(id, $" {id}")));

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static string Suffix(int completion) => completion == 0 ? "" : $" ({completion})";

    private IEnumerable<GenerationUpdate> Complete(GenerationRequest request, int completion, string answer)
    {
        var (words, limit) = (Words(answer).ToArray(), request.MaxTokens ?? int.MaxValue);
        var said = new StringBuilder();
        for (var i = 0; i < words.Length && i < limit; i++)
        {
            var before = said.Length;
            said.Append(words[i]);
            _said[Id(words[i])] = words[i];
            var stop = request.Stop.Select(text => (Text: text, At: said.ToString().IndexOf(text, StringComparison.Ordinal))).Where(found => found.At >= 0).OrderBy(found => found.At).FirstOrDefault();
            var isLast = stop.Text is not null || i + 1 == words.Length || i + 1 == limit;
            yield return new GenerationUpdate
            {
                Completion = completion,
                Text = stop.Text is null ? words[i] : said.ToString()[Math.Min(before, stop.At)..stop.At],
                Tokens = request.Probe && i + 1 == words.Length ? [Draw(words[i], i, request.TopLogProbs), Draw("", i + 1, 0)] : [Draw(words[i], i, request.TopLogProbs)],
                Finish = !isLast ? null : stop.Text is not null || i + 1 == words.Length ? FinishReason.Stop : FinishReason.Length,
                StopText = stop.Text,
            };
        }
    }

    private static DrawnToken Draw(string word, int place, int top) => new(Token(word, place), [.. Enumerable.Range(0, top).Select(rank => Token(rank == 0 ? word : $" other{rank}", place + rank))]);

    private static TokenLogProb Token(string word, int place) => new(Id(word), word, Encoding.UTF8.GetBytes(word), -0.125f * (place + 1));

    // FNV: the same in every process.
    private static int Id(string word) => (int)(word.Aggregate(2166136261u, (hash, character) => (hash ^ character) * 16777619u) % 990) + 10;

    private static IEnumerable<string> Words(string text)
    {
        var start = 0;
        for (var i = 1; i <= text.Length; i++)
        {
            if (i == text.Length || text[i] == ' ')
            {
                yield return text[start..i];
                start = i;
            }
        }
    }

    // An image is two of token 7.
    private static IReadOnlyList<int> PromptIds(Prompt prompt) => prompt switch
    {
        Conversation conversation => [.. conversation.Messages.SelectMany(message => message.Parts).SelectMany(part => part.Text is { } text ? Words(text).Select(Id) : [7, 7])],
        RawPrompt raw => [.. raw.Images.SelectMany(_ => new[] { 7, 7 }), .. Words(raw.Text).Select(Id)],
        TokenPrompt tokens => tokens.Ids,
        _ => [],
    };

    private static int PromptTokens(Prompt prompt) => prompt switch
    {
        Conversation conversation => conversation.Messages.Sum(message => message.Parts.Sum(part => part.Text is { } text ? Words(text).Count() : 16)),
        RawPrompt raw => Words(raw.Text).Count() + (16 * raw.Images.Count),
        TokenPrompt tokens => tokens.Ids.Count,
        _ => 0,
    };

    private IEnumerable<GenerationUpdate> Complete(GenerationRequest request, int completion) => Complete(request, completion, Answer(request, completion));
}
