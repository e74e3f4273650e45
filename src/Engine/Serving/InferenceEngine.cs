using System.Runtime.CompilerServices;
using LrIad.Engine.Compute;
using LrIad.Engine.Model;
using LrIad.Engine.Text;
using static LrIad.Engine.Serving.EngineCounters;

namespace LrIad.Engine.Serving;

/// <summary>A model with its adapters in memory, answering requests from any thread; one thread of its own works on the device.</summary>
public sealed partial class InferenceEngine : IInferenceEngine
{
    private readonly Backend _backend;
    private readonly QwenModel _model;
    private readonly Tokenizer _tokenizer;
    private readonly PromptReader _prompts;
    private readonly Adapters _adapters;
    private readonly ImageStore _images;
    private readonly ConstraintStore _constraints;
    private readonly RequestQueue _queue;
    private readonly EngineCounters _counters = new();
    private readonly EngineLoop _loop;
    private IDisposable[] _owned = [];
    private int _disposed;

    /// <summary>Around a model that is there already and stays its owner's. It begins to work with <see cref="Begin"/>.</summary>
    internal InferenceEngine(EngineOptions options, QwenModel model, Tokenizer tokenizer, Backend backend)
    {
        (_model, _backend, _tokenizer, Limits) = (model, backend, tokenizer, options.Limits);
        Template = PromptTemplate.Load(options.PromptTemplate);
        Model = new ModelCard
        {
            Name = options.Name ?? Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(options.Model))),
            Device = backend.Name,
            Vocabulary = model.Geometry.Text.Vocabulary,
            EndTokens = model.EndTokens,
            Loaded = DateTimeOffset.UtcNow,
        };
        _prompts = new PromptReader(_tokenizer, model.Geometry);
        _adapters = new Adapters(adapter => _loop!.Post(adapter.Weights.Dispose));
        _images = new ImageStore(model.Preprocessor, Limits);

        _constraints = new ConstraintStore(_tokenizer, model.EndTokens);

        // Enough are made ready ahead to keep all cores busy, and no more, so that clients can still take turns.
        _queue = new RequestQueue(Limits.Waiting, Math.Clamp(Limits.Sequences, 1, 2 * Environment.ProcessorCount), job => _ = Task.Run(() => PrepareAsync(job)));
        _loop = new EngineLoop(model, backend, _tokenizer, Limits, _queue, _images, _counters, Free);
    }

    /// <inheritdoc/>
    public ModelCard Model { get; }

    /// <inheritdoc/>
    public EngineLimits Limits { get; }

    /// <inheritdoc/>
    public IReadOnlyCollection<string> Adapters => _adapters.Names;

    /// <summary>The question that inspections ask.</summary>
    public PromptTemplate Template { get; }

    /// <inheritdoc/>
    public EngineStatistics Statistics => new()
    {
        Running = _loop.Running,
        Waiting = _queue.Waiting,
        CacheBlocks = _loop.Cache.Blocks,
        FreeCacheBlocks = _loop.Cache.FreeBlocks,
        PromptTokens = _counters[Count.PromptTokens],
        SharedPromptTokens = _counters[Count.SharedPromptTokens],
        GeneratedTokens = _counters[Count.GeneratedTokens],
        ImagesEncoded = _images.Encoded,
        ImagesKept = _images.Kept,
        ImageCacheBytes = _images.Bytes,
        Finished = _counters[Count.Finished],
        Cancelled = _counters[Count.Cancelled],
        TimedOut = _counters[Count.TimedOut],
        Refused = _counters[Count.Refused],
    };

    /// <summary>Loads a model and its adapters, takes all memory that requests will need, and begins to work.</summary>
    /// <exception cref="InputException">A folder, the device or the prompt template is not as it must be.</exception>
    /// <exception cref="OutOfMemoryException">The device has not enough memory for these limits.</exception>
    public static InferenceEngine Load(EngineOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        RequestCheck.Check(options.Limits);
        var backend = options.Backend ?? Backends.Open(options.Device);
        QwenModel? model = null;
        InferenceEngine? engine = null;
        try
        {
            model = QwenModel.Load(options.Model, backend);
            engine = new InferenceEngine(options, model, Tokenizer.Load(model.TokenizerFile), backend);
            foreach (var (name, folder) in options.Adapters)
            {
                engine.AddAdapter(name, Path.GetFullPath(folder), engine.ReadAdapter(name, folder));
            }

            engine._owned = [model, backend];
            return engine.Begin();
        }
        catch
        {
            engine?.FreeMemory();
            model?.Dispose();
            backend.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public async Task LoadAdapterAsync(string name, string folder, CancellationToken cancellation = default)
    {
        folder = Path.GetFullPath(folder);
        if (_adapters.Has(name, folder))
        {
            return;
        }

        var file = await Task.Run(() => ReadAdapter(name, folder), cancellation).ConfigureAwait(false);
        var added = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _loop.Post(() =>
        {
            try
            {
                AddAdapter(name, folder, file);
                added.SetResult();
            }
            catch (Exception e)
            {
                added.SetException(e);
            }
        });
        await added.Task.WaitAsync(cancellation).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public Task<bool> UnloadAdapterAsync(string name, CancellationToken cancellation = default) => Task.FromResult(_adapters.Remove(name));

    /// <inheritdoc/>
    public async IAsyncEnumerable<GenerationUpdate> StreamAsync(GenerationRequest request, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        RequestCheck.Check(request, Limits);
        var job = new GenerationJob(request, _adapters.Acquire(request.Adapter), Limits);
        using var visit = new Visit(this, job, request.Time, cancellation);
        while (await visit.Until(job.Updates.WaitToReadAsync(visit.Token).AsTask()).ConfigureAwait(false))
        {
            while (job.Updates.TryRead(out var update))
            {
                yield return update;
            }
        }
    }

    /// <inheritdoc/>
    public async Task<ScoredCompletion> ScoreAsync(ScoreRequest request, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        RequestCheck.Check(request, Limits, Model.Vocabulary);
        var job = new ScoreJob(request, _adapters.Acquire(request.Adapter), Limits);
        using var visit = new Visit(this, job, null, cancellation);
        return await visit.Until(job.Result.WaitAsync(visit.Token)).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public IReadOnlyList<int> Tokenize(string text, bool parseSpecial = false) => parseSpecial ? _tokenizer.EncodeWithSpecial(text) : _tokenizer.Encode(text);

    /// <inheritdoc/>
    public string Detokenize(IReadOnlyList<int> ids, bool keepSpecial = false) => _tokenizer.Decode(ids, skipSpecial: !keepSpecial);

    /// <summary>Ends all requests and frees the model and its device.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
        {
            return;
        }

        await Task.Run(_loop.Stop).ConfigureAwait(false);
        FreeMemory();
        Array.ForEach(_owned, owned => owned.Dispose());
    }

    /// <summary>Lets its thread begin.</summary>
    internal InferenceEngine Begin()
    {
        _loop.Begin();
        return this;
    }

    private void FreeMemory()
    {
        _adapters.Clear();
        _loop.Dispose();
    }

    private Adapter ReadAdapter(string name, string folder)
    {
        if (string.IsNullOrWhiteSpace(name) || name == Model.Name)
        {
            throw new InputException($"'{name}' cannot be the name of an adapter: it is {(name == Model.Name ? "the model's" : "empty")}.");
        }

        return AdapterFile.Load(folder, _model.Geometry);
    }

    private void AddAdapter(string name, string folder, Adapter file)
    {
        if (_adapters.Has(name, folder))
        {
            return;
        }

        var weights = new AdapterWeights(_backend, AdapterWeights.ShapeFor(_model.Geometry, file.Rank));
        weights.Upload(file.Effective());
        _adapters.TryAdd(name, new LoadedAdapter(folder, weights, file.MaxPixels));
    }
}
