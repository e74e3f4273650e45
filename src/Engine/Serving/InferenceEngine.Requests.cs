using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using static LrIad.Engine.Serving.EngineCounters;

namespace LrIad.Engine.Serving;

/// <summary>A request's way from its caller to the loop.</summary>
public sealed partial class InferenceEngine
{
    /// <summary>Reads a request's images and cuts its text into tokens.</summary>
    private async Task PrepareAsync(Job job)
    {
        try
        {
            var images = PromptReader.ImagesOf(job.Prompt);
            foreach (var image in images)
            {
                job.Images.Add(_images.Acquire(image, job.MaxPixels));
            }

            var tokens = new int[images.Count];
            for (var i = 0; i < tokens.Length && !job.Gone; i++)
            {
                tokens[i] = await _images.TokensAsync(job.Images[i], images[i], job.MaxPixels).ConfigureAwait(false);
            }

            job.Ids = job.Gone ? [] : _prompts.Read(job.Prompt, tokens);
            if (job.Ids.Length > Limits.PromptLength)
            {
                throw new InputException($"The prompt has {job.Ids.Length} tokens, {tokens.Sum()} of them for its images; the limit is {Limits.PromptLength}.");
            }

            job.Key = KeyOf(job);
            job.Constraint = job is GenerationJob { Request.Constraint: { } constraint } ? _constraints.Get(constraint) : null;
        }
        catch (Exception e)
        {
            job.Problem = e;
        }

        job.SetReady();
        _loop.Wake();
    }

    private static string KeyOf(Job job)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(MemoryMarshal.AsBytes<int>(job.Ids));
        foreach (var image in job.Images)
        {
            hash.AppendData(Encoding.UTF8.GetBytes(image.Key));
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }

    private void Submit(Job job)
    {
        var added = false;
        try
        {
            added = _queue.TryAdd(job);
        }
        finally
        {
            if (!added)
            {
                Drop(job);
            }
        }

        if (!added)
        {
            _counters.Add(Count.Refused);
            throw new EngineBusyException($"{Limits.Waiting} requests are waiting; no more can. Try again later.");
        }
    }

    /// <summary>The caller has left.</summary>
    private void Abandon(Job job)
    {
        job.Leave();
        if (_queue.TryRemove(job))
        {
            Drop(job);
        }
        else if (_disposed == 0)
        {
            _loop.Wake();
        }
    }

    private void Drop(Job job)
    {
        if (job.Close())
        {
            Free(job);
        }
    }

    private void Free(Job job)
    {
        job.Images.ForEach(_images.Release);
        if (job.Adapter is { } adapter)
        {
            _adapters.Release(adapter);
        }
    }

    /// <summary>A caller's stay: from the request to its end, its time limit, or the moment the caller leaves.</summary>
    private sealed class Visit : IDisposable
    {
        private readonly InferenceEngine _engine;
        private readonly Job _job;
        private readonly TimeSpan? _limit;
        private readonly CancellationToken _cancellation;
        private readonly CancellationTokenSource _end;
        private readonly CancellationTokenRegistration _leaving;

        public Visit(InferenceEngine engine, Job job, TimeSpan? time, CancellationToken cancellation)
        {
            (_engine, _job, _cancellation) = (engine, job, cancellation);
            _limit = time is { } own && !(own > engine.Limits.RequestTime) ? own : engine.Limits.RequestTime;
            _end = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            if (_limit is { } limit && limit.TotalMilliseconds < uint.MaxValue - 1)
            {
                _end.CancelAfter(limit);
            }

            try
            {
                engine.Submit(job);
            }
            catch
            {
                _end.Dispose();
                throw;
            }

            _leaving = _end.Token.Register(() => engine.Abandon(job));
        }

        public CancellationToken Token => _end.Token;

        public async Task<T> Until<T>(Task<T> next)
        {
            try
            {
                return await next.ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (_end.IsCancellationRequested)
            {
                _cancellation.ThrowIfCancellationRequested();
                throw new TimeoutException($"The request was not done within {_limit}.");
            }
        }

        public void Dispose()
        {
            _leaving.Dispose();
            if (!_job.Done)
            {
                _engine._counters.Add(_end.IsCancellationRequested && !_cancellation.IsCancellationRequested ? Count.TimedOut : Count.Cancelled);
                _engine.Abandon(_job);
            }

            _end.Dispose();
        }
    }
}
