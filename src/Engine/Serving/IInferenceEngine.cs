namespace LrIad.Engine.Serving;

/// <summary>
/// A model that answers many requests at once: each joins the running batch when there is room and leaves it when it is done or its caller is gone. What a request draws depends
/// on itself alone, never on its neighbours (on the CPU bit for bit). Safe to use from any thread.
/// </summary>
public interface IInferenceEngine : IAsyncDisposable
{
    /// <summary>What is loaded.</summary>
    ModelCard Model { get; }

    /// <summary>What requests may ask for.</summary>
    EngineLimits Limits { get; }

    /// <summary>Names of the adapters that requests can switch on.</summary>
    IReadOnlyCollection<string> Adapters { get; }

    /// <summary>Makes an adapter folder (PEFT's) known by a name. Running requests are not disturbed.</summary>
    /// <exception cref="InputException">The folder is not an adapter of this model, or the name is taken by another folder.</exception>
    Task LoadAdapterAsync(string name, string folder, CancellationToken cancellation = default);

    /// <summary>Forgets an adapter; requests that use it go on to their end with it.</summary>
    /// <returns>False where there was none of that name.</returns>
    Task<bool> UnloadAdapterAsync(string name, CancellationToken cancellation = default);

    /// <summary>Draws a request's completions and tells of every token as it comes, of all completions in turn.</summary>
    /// <exception cref="InputException">The request is not one that can be answered (too long, an image that cannot be read, an unknown adapter).</exception>
    /// <exception cref="EngineBusyException">The queue is full.</exception>
    /// <exception cref="TimeoutException">The request's time was up.</exception>
    /// <exception cref="OperationCanceledException">The caller left. Its cache blocks are free at the next token.</exception>
    IAsyncEnumerable<GenerationUpdate> StreamAsync(GenerationRequest request, CancellationToken cancellation = default);

    /// <summary>The log-prob of every token of a given sequence under the model.</summary>
    /// <exception cref="InputException">The request is not one that can be answered.</exception>
    /// <exception cref="EngineBusyException">The queue is full.</exception>
    Task<ScoredCompletion> ScoreAsync(ScoreRequest request, CancellationToken cancellation = default);

    /// <summary>Token ids of a text; special tokens in it stay text unless <paramref name="parseSpecial"/> is set.</summary>
    IReadOnlyList<int> Tokenize(string text, bool parseSpecial = false);

    /// <summary>The text of token ids, special tokens left out unless <paramref name="keepSpecial"/> is set.</summary>
    string Detokenize(IReadOnlyList<int> ids, bool keepSpecial = false);

    /// <summary>How busy it is, and what it has done so far.</summary>
    EngineStatistics Statistics { get; }
}

/// <summary>The queue is full: try again later.</summary>
public sealed class EngineBusyException : Exception
{
    /// <param name="message">How many are waiting.</param>
    public EngineBusyException(string message)
        : base(message)
    {
    }
}

/// <summary>What is loaded.</summary>
public sealed record ModelCard
{
    /// <summary>What requests call it: by default the model folder's name.</summary>
    public required string Name { get; init; }

    /// <summary>cpu or cuda.</summary>
    public required string Device { get; init; }

    /// <summary>Tokens of the vocabulary.</summary>
    public required int Vocabulary { get; init; }

    /// <summary>Ids that end a completion.</summary>
    public required IReadOnlyList<int> EndTokens { get; init; }

    /// <summary>When it was loaded.</summary>
    public required DateTimeOffset Loaded { get; init; }
}

/// <summary>What requests may ask for, and how much the engine holds at a time. All memory is taken when the engine is made.</summary>
public sealed record EngineLimits
{
    /// <summary>Completions drawn side by side, of all requests together.</summary>
    public int Sequences { get; init; } = 64;

    /// <summary>Longest prompt in tokens, images included.</summary>
    public int PromptLength { get; init; } = 2048;

    /// <summary>Longest completion in tokens.</summary>
    public int CompletionLength { get; init; } = 1024;

    /// <summary>Completions of one request (<c>n</c>).</summary>
    public int CompletionsPerRequest { get; init; } = 64;

    /// <summary>Requests that wait for their turn; one more is refused.</summary>
    public int Waiting { get; init; } = 256;

    /// <summary>Images of one request.</summary>
    public int ImagesPerRequest { get; init; } = 8;

    /// <summary>Largest image in pixels, by what its file declares.</summary>
    public long ImagePixels { get; init; } = 64_000_000;

    /// <summary>Images are scaled down to this many pixels; an adapter's own limit, where it has one, comes before this.</summary>
    public int MaxPixels { get; init; } = 401_408;

    /// <summary>Bytes of features of images that are kept, by the images' content.</summary>
    public long ImageCacheBytes { get; init; } = 256L << 20;

    /// <summary>Likeliest tokens told at each place (<c>top_logprobs</c>).</summary>
    public int TopLogProbs { get; init; } = 20;

    /// <summary>Stop texts of one request.</summary>
    public int StopTexts { get; init; } = 16;

    /// <summary>How long a request may take from its arrival on; null: as long as it likes.</summary>
    public TimeSpan? RequestTime { get; init; } = TimeSpan.FromMinutes(10);
}

/// <summary>How busy an engine is, and what it has done so far.</summary>
public sealed record EngineStatistics
{
    /// <summary>Requests being answered.</summary>
    public int Running { get; init; }

    /// <summary>Requests that wait.</summary>
    public int Waiting { get; init; }

    /// <summary>Blocks of the key-value cache, in all.</summary>
    public int CacheBlocks { get; init; }

    /// <summary>Blocks that no request uses.</summary>
    public int FreeCacheBlocks { get; init; }

    /// <summary>Prompt tokens computed, shared prompts counted once.</summary>
    public long PromptTokens { get; init; }

    /// <summary>Prompt tokens that a request found computed already.</summary>
    public long SharedPromptTokens { get; init; }

    /// <summary>Tokens drawn.</summary>
    public long GeneratedTokens { get; init; }

    /// <summary>Images encoded.</summary>
    public long ImagesEncoded { get; init; }

    /// <summary>Images whose features were kept from earlier.</summary>
    public long ImagesKept { get; init; }

    /// <summary>Bytes of features that are kept.</summary>
    public long ImageCacheBytes { get; init; }

    /// <summary>Requests that came to their end.</summary>
    public long Finished { get; init; }

    /// <summary>Requests whose callers left.</summary>
    public long Cancelled { get; init; }

    /// <summary>Requests whose time was up.</summary>
    public long TimedOut { get; init; }

    /// <summary>Requests refused because too many were waiting.</summary>
    public long Refused { get; init; }
}
