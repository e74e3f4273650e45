using System.Threading.Channels;
using LrIad.Engine.Config;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Serving;

/// <summary>A request on its way through the engine.</summary>
internal abstract class Job(Prompt prompt, string client, LoadedAdapter? adapter, int maxPixels)
{
    private int _closed;
    private volatile bool _gone;
    private volatile bool _ready;

    public Prompt Prompt { get; } = prompt;

    public string Client { get; } = client;

    public LoadedAdapter? Adapter { get; } = adapter;

    /// <summary>What its images are scaled down to.</summary>
    public int MaxPixels { get; } = maxPixels;

    /// <summary>Whether its caller has left: nothing more is done for it.</summary>
    public bool Gone => _gone;

    /// <summary>Whether everything below is there, or <see cref="Problem"/> says why not.</summary>
    public bool Ready => _ready;

    /// <summary>Its images, those that have been taken so far.</summary>
    public List<StoredImage> Images { get; } = [];

    /// <summary>Its prompt's token ids, image tokens in place.</summary>
    public int[] Ids { get; set; } = [];

    /// <summary>What requests with the same prompt, images and adapter have in common.</summary>
    public string Key { get; set; } = "";

    public ITokenConstraint? Constraint { get; set; }

    public Exception? Problem { get; set; }

    /// <summary>The entry of its prompt, once the engine's thread has seen it.</summary>
    public SharedPrompt? Shared { get; set; }

    /// <summary>What to draw and how, made when its turn comes.</summary>
    public (GroupRequest Request, DrawOptions How)? Group { get; set; }

    /// <summary>Tokens of its prompt that it found computed.</summary>
    public int SharedTokens { get; set; }

    /// <summary>Whether it came to its end, or to nothing.</summary>
    public bool Done { get; protected set; }

    public bool HasFeatures => Images.TrueForAll(image => image.Features is not null);

    /// <summary>Completions to draw.</summary>
    public abstract int Completions { get; }

    /// <summary>How; made when it is ready.</summary>
    public abstract DrawOptions How();

    public void SetReady() => _ready = true;

    public void Leave() => _gone = true;

    /// <summary>True once, for whoever frees what it holds.</summary>
    public bool Close() => Interlocked.Exchange(ref _closed, 1) == 0;

    /// <summary>Tells its caller that it came to nothing.</summary>
    public abstract void Fail(Exception problem);
}

/// <summary>A request for completions.</summary>
internal sealed class GenerationJob(GenerationRequest request, LoadedAdapter? adapter, EngineLimits limits) : Job(request.Prompt, request.Client, adapter, adapter?.MaxPixels ?? limits.MaxPixels)
{
    private readonly Channel<GenerationUpdate> _updates = Channel.CreateUnbounded<GenerationUpdate>(new UnboundedChannelOptions { SingleReader = true, SingleWriter = true });
    private readonly ulong _seed = request.Seed ?? (ulong)Random.Shared.NextInt64();

    public GenerationRequest Request { get; } = request;

    public ChannelReader<GenerationUpdate> Updates => _updates.Reader;

    /// <summary>Texts of the completions, once it has been started.</summary>
    public CompletionText[] Texts { get; set; } = [];

    public override int Completions => Request.Completions;

    public override DrawOptions How() => new(
        new SamplingOptions
        {
            Temperature = Request.Temperature,
            TopP = Request.TopP,
            TopK = Request.TopK,
            MaxCompletionLength = Request.MaxTokens ?? limits.CompletionLength,
        },
        _seed,
        Adapter?.Weights.Layers)
    {
        Constraint = Constraint,
        IgnoreEnd = Request.IgnoreEnd,
        TopLogProbs = Request.TopLogProbs,
        Probe = Request.Probe,
    };

    public void Tell(GenerationUpdate update) => _updates.Writer.TryWrite(update);

    public void Finish() => Done = _updates.Writer.TryComplete();

    public override void Fail(Exception problem) => Done = _updates.Writer.TryComplete(problem);
}

/// <summary>A request for the log-probs of a given completion.</summary>
internal sealed class ScoreJob(ScoreRequest request, LoadedAdapter? adapter, EngineLimits limits) : Job(request.Prompt, request.Client, adapter, adapter?.MaxPixels ?? limits.MaxPixels)
{
    private readonly TaskCompletionSource<ScoredCompletion> _result = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public ScoreRequest Request { get; } = request;

    public Task<ScoredCompletion> Result => _result.Task;

    public override int Completions => 0;

    public override DrawOptions How() => new(new SamplingOptions { MaxCompletionLength = Request.Completion.Count }, 0, Adapter?.Weights.Layers);

    public void Finish(ScoredCompletion result) => Done = _result.TrySetResult(result);

    public override void Fail(Exception problem) => Done = _result.TrySetException(problem);
}

/// <summary>A prompt that waiting and running requests have in common.</summary>
internal sealed class SharedPrompt
{
    /// <summary>Its keys and values, from the first of these requests on.</summary>
    public OpenPrompt? Open { get; set; }

    /// <summary>Requests that want it.</summary>
    public int Users { get; set; }
}
