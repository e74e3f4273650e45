using System.Collections.Concurrent;
using LrIad.Engine.Compute;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;
using static LrIad.Engine.Serving.EngineCounters;

namespace LrIad.Engine.Serving;

/// <summary>
/// The thread that owns the model, the cache and the device. Each turn of its loop is a step of the running batch: who has left goes, who waits is taken in as far as there is
/// room, every running completion gets its next token, and the callers are told.
/// </summary>
internal sealed partial class EngineLoop : IDisposable
{
    private readonly EngineLimits _limits;
    private readonly Tokenizer _tokenizer;
    private readonly RequestQueue _queue;
    private readonly ImageStore _images;
    private readonly EngineCounters _counters;
    private readonly Action<Job> _close;
    private readonly PromptEncoder _encoder;
    private readonly RunningBatch _batch;
    private readonly TokenTable _tokens;
    private readonly Thread _thread;
    private readonly AutoResetEvent _wake = new(false);
    private readonly ConcurrentQueue<Action> _posted = [];

    private readonly Dictionary<OpenGroup, GenerationJob> _running = [];
    private readonly HashSet<OpenGroup> _gone = [];
    private readonly List<(OpenGroup Group, Job Job)> _started = [];
    private readonly Dictionary<(string, LoadedAdapter?), SharedPrompt> _prompts = [];
    private readonly List<Job> _ready = [];
    private readonly List<Job> _inHand = [];
    private volatile bool _stopping;
    private volatile int _runningCount;

    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="tokenizer">Its tokenizer.</param>
    /// <param name="limits">How much is held at a time.</param>
    /// <param name="queue">Who waits.</param>
    /// <param name="images">Images by content.</param>
    /// <param name="counters">What has been done.</param>
    /// <param name="close">Frees what a request holds outside of the loop.</param>
    public EngineLoop(
        QwenModel model, Backend backend, Tokenizer tokenizer, EngineLimits limits, RequestQueue queue, ImageStore images, EngineCounters counters, Action<Job> close)
    {
        (_limits, _tokenizer, _queue, _images, _counters, _close) = (limits, tokenizer, queue, images, counters, close);
        _encoder = new PromptEncoder(model, backend, tokenizer, PromptTemplate.Default, limits.PromptLength);
        var size = new GeneratorLimits(limits.Sequences, limits.Sequences, limits.PromptLength, limits.CompletionLength);
        _batch = new RunningBatch(model, backend, AnswerOptions.Find(tokenizer), size, serving: true);
        _tokens = new TokenTable(tokenizer);
        _thread = new Thread(Run) { Name = "inference engine", IsBackground = true };
    }

    public int Running => _runningCount;

    public KvCache Cache => _batch.Cache;

    public void Begin() => _thread.Start();

    /// <summary>Lets the loop look at what has changed.</summary>
    public void Wake() => _wake.Set();

    /// <summary>Has something done on the loop's thread, between two steps.</summary>
    public void Post(Action action)
    {
        _posted.Enqueue(action);
        Wake();
    }

    /// <summary>Ends the loop; whoever runs or waits is told so.</summary>
    public void Stop()
    {
        Post(() =>
        {
            foreach (var job in _queue.Close().Concat(_running.Values))
            {
                job.Fail(new ObjectDisposedException(nameof(InferenceEngine)));
                job.Leave();
            }

            _stopping = true;
        });
        _thread.Join();
    }

    /// <summary>Frees what a loop holds that has ended, or has not begun.</summary>
    public void Dispose()
    {
        RunPosted();
        _encoder.Dispose();
        _batch.Dispose();
        _wake.Dispose();
    }

    private void Run()
    {
        while (!_stopping || _running.Count > 0 || _queue.Waiting > 0)
        {
            try
            {
                if (!Step() && !_stopping)
                {
                    _wake.WaitOne();
                }
            }
            catch (Exception e)
            {
                FailAll(e);
            }
        }
    }

    /// <summary>One step; false where there was nothing to do.</summary>
    private bool Step()
    {
        RunPosted();
        DropGone();
        Admit();
        if (_batch.Active.Count == 0 && !_batch.HasOpened)
        {
            return false;
        }

        _batch.Advance();
        _batch.Start();
        _batch.Collect();
        TellStarted();
        TellDrawn();
        _batch.Leave();
        FinishDone();
        return true;
    }

    private void RunPosted()
    {
        while (_posted.TryDequeue(out var action))
        {
            action();
        }
    }

    private void DropGone()
    {
        // Looked at once: more may leave meanwhile.
        foreach (var (group, job) in _running)
        {
            if (job.Gone)
            {
                _gone.Add(group);
            }
        }

        if (_gone.Count == 0)
        {
            return;
        }

        foreach (var sequence in _batch.Active)
        {
            if (_gone.Contains(sequence.Group))
            {
                sequence.Stop();
            }
        }

        _batch.Leave();
        foreach (var group in _gone)
        {
            _running.Remove(group, out var job);
            Close(job!);
        }

        _gone.Clear();
        _runningCount = _running.Count;
    }

    private void FinishDone()
    {
        foreach (var (group, job) in _running)
        {
            if (group.Open == 0)
            {
                _running.Remove(group);
                if (!job.Done)
                {
                    job.Finish();
                    _counters.Add(Count.Finished);
                }

                Close(job);
            }
        }

        _runningCount = _running.Count;
    }

    /// <summary>Whatever went wrong, it is told to all that were being worked on, and the next requests start afresh.</summary>
    private void FailAll(Exception problem)
    {
        _batch.Clear();
        foreach (var shared in _prompts.Values)
        {
            shared.Open = null;
        }

        foreach (var job in _inHand)
        {
            _queue.Remove(job);
        }

        foreach (var job in _inHand.Concat(_started.Select(started => started.Job)).Concat(_running.Values))
        {
            job.Fail(problem);
            Close(job);
        }

        _inHand.Clear();
        _started.Clear();
        _gone.Clear();
        _running.Clear();
        _runningCount = 0;
    }

    private void Close(Job job)
    {
        if (!job.Close())
        {
            return;
        }

        if (job.Shared is { } shared && --shared.Users == 0)
        {
            _prompts.Remove((job.Key, job.Adapter));
            if (shared.Open is { } prompt)
            {
                _batch.Release(prompt);
            }
        }

        _close(job);
    }
}
