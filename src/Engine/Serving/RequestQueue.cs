namespace LrIad.Engine.Serving;

/// <summary>
/// Requests that wait. Clients take turns, whatever each has queued up; a few requests are made ready ahead of their turn (images read, text cut into tokens), and are started in
/// the order in which they were taken. Safe to use from any thread.
/// </summary>
/// <param name="capacity">Requests that may wait.</param>
/// <param name="ahead">Requests made ready at a time.</param>
/// <param name="prepare">Makes a request ready, and tells the engine.</param>
internal sealed class RequestQueue(int capacity, int ahead, Action<Job> prepare)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, LinkedList<Job>> _byClient = [];
    private readonly LinkedList<string> _turns = [];
    private readonly List<Job> _ahead = [];
    private int _queued;
    private bool _closed;

    public int Waiting
    {
        get
        {
            lock (_lock)
            {
                return _queued + _ahead.Count;
            }
        }
    }

    /// <summary>Lets a request wait; false where too many do.</summary>
    public bool TryAdd(Job job)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_closed, typeof(InferenceEngine));
            if (_queued + _ahead.Count >= capacity)
            {
                return false;
            }

            if (!_byClient.TryGetValue(job.Client, out var queue))
            {
                _byClient[job.Client] = queue = [];
                _turns.AddLast(job.Client);
            }

            queue.AddLast(job);
            _queued++;
            Take();
            return true;
        }
    }

    /// <summary>Takes a request out that nobody has begun to make ready; false where it is further on.</summary>
    public bool TryRemove(Job job)
    {
        lock (_lock)
        {
            if (!_byClient.TryGetValue(job.Client, out var queue) || !queue.Remove(job))
            {
                return false;
            }

            _queued--;
            if (queue.Count == 0)
            {
                _byClient.Remove(job.Client);
                _turns.Remove(job.Client);
            }

            return true;
        }
    }

    /// <summary>Copies the requests that are ready into a list, in their order.</summary>
    public void CopyReady(List<Job> ready)
    {
        ready.Clear();
        lock (_lock)
        {
            foreach (var job in _ahead)
            {
                if (job.Ready)
                {
                    ready.Add(job);
                }
            }
        }
    }

    /// <summary>Lets a ready request go on, or drops it; the next one is made ready in its place.</summary>
    public void Remove(Job job)
    {
        lock (_lock)
        {
            _ahead.Remove(job);
            Take();
        }
    }

    /// <summary>Takes no more requests; returns those that wait. They still come to their turn, to be dropped.</summary>
    public IReadOnlyList<Job> Close()
    {
        lock (_lock)
        {
            _closed = true;
            return [.. _ahead, .. _byClient.Values.SelectMany(queue => queue)];
        }
    }

    private void Take()
    {
        while (_ahead.Count < ahead && _turns.First is { Value: var client })
        {
            var queue = _byClient[client];
            var job = queue.First!.Value;
            queue.RemoveFirst();
            _queued--;
            _turns.RemoveFirst();
            if (queue.Count > 0)
            {
                _turns.AddLast(client);
            }
            else
            {
                _byClient.Remove(client);
            }

            _ahead.Add(job);
            prepare(job);
        }
    }
}
