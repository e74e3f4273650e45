using LrIad.Engine;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;
using LrIad.Server.Requests;

namespace LrIad.Server.Inspect;

/// <summary>The images of a folder, inspected one after another in the background, as many at a time as the engine draws.</summary>
internal sealed class InspectJob : IAsyncDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _lock = new();
    private readonly List<InspectAnswer> _results = [];
    private readonly List<SkippedImage> _skipped = [];
    private readonly InspectCall _call;
    private readonly JobFolder _folder;
    private string _status = "running";
    private string? _error;
    private Task _run = Task.CompletedTask;

    /// <param name="call">How its images are inspected.</param>
    /// <param name="folder">Where they are.</param>
    public InspectJob(InspectCall call, JobFolder folder)
    {
        Id = Guid.NewGuid().ToString("N");

        // A client of its own: whoever inspects a single image meanwhile takes turns with it.
        (_call, _folder) = (call with { Request = call.Request with { Client = $"job {Id}" } }, folder);
    }

    public string Id { get; }

    public DateTimeOffset Created { get; } = DateTimeOffset.UtcNow;

    public bool IsRunning
    {
        get
        {
            lock (_lock)
            {
                return _status == "running";
            }
        }
    }

    /// <summary>Verdicts that it keeps.</summary>
    public int Results
    {
        get
        {
            lock (_lock)
            {
                return _results.Count;
            }
        }
    }

    /// <summary>Begins it.</summary>
    /// <param name="engine">What inspects.</param>
    /// <param name="question">What they are asked; null: the paper's question.</param>
    /// <param name="log">Takes an error of the server's own.</param>
    public void Start(IInferenceEngine engine, PromptTemplate? question, Action<Exception> log) => _run = Task.Run(() => RunAsync(engine, question, log));

    /// <summary>Ends it; what it has come to stays.</summary>
    public async Task CancelAsync()
    {
        await _stop.CancelAsync();
        await _run;
    }

    /// <summary>What it has come to.</summary>
    /// <param name="from">The first verdict wanted.</param>
    /// <param name="most">How many of them at most.</param>
    public JobStatus Status(int from, int most)
    {
        lock (_lock)
        {
            var results = _results.Skip(from).Take(most).ToArray();
            return new JobStatus(Id, _status, _error, _folder.Name, _call.Request.Object, Created, _folder.Images.Count, _results.Count, [.. _skipped], results, Math.Min(from, _results.Count) + results.Length);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await CancelAsync();
        _stop.Dispose();
    }

    private async Task RunAsync(IInferenceEngine engine, PromptTemplate? question, Action<Exception> log)
    {
        var (status, error) = ("done", (string?)null);
        try
        {
            var parallel = new ParallelOptions { MaxDegreeOfParallelism = Many.AtATime(engine.Limits), CancellationToken = _stop.Token };
            await Parallel.ForEachAsync(_folder.Images, parallel, async (image, stop) => await InspectAsync(engine, question, image, stop));
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            status = "cancelled";
        }
        catch (Exception e)
        {
            (status, error) = ("failed", RequestException.Internal().Message);
            log(e);
        }

        lock (_lock)
        {
            (_status, _error) = (status, error);
        }
    }

    // A bad image is told of, and the others go on.
    private async Task InspectAsync(IInferenceEngine engine, PromptTemplate? question, string image, CancellationToken cancellation)
    {
        try
        {
            var call = _call with { Request = _call.Request with { Image = _folder.Read(image) } };
            var answer = await Many.PatientlyAsync(() => InspectImage.JudgeAsync(engine, call, question, cancellation), cancellation);
            lock (_lock)
            {
                _results.Add(answer);
            }
        }
        catch (Exception e) when (e is InputException or RequestException or TimeoutException)
        {
            lock (_lock)
            {
                _skipped.Add(new SkippedImage(_folder.Path(image), e.Message));
            }
        }
    }
}
