namespace LrIad.Engine.Compute.Cpu;

/// <summary>
/// Workers that live as long as the backend. Tasks are handed out as workers come free, so a result must not depend on who does what; starting a job
/// allocates nothing, which the decode loop relies on.
/// </summary>
internal sealed unsafe class CpuThreads : IDisposable
{
    private const int SpinsBeforeSleep = 2000;

    private readonly Thread[] _threads;
    private readonly SemaphoreSlim _wake = new(0);
    private delegate*<void*, int, int, void> _body;
    private void* _state;
    private int _tasks;
    private int _next;
    private int _busy;
    private int _generation;
    private int _sleeping;
    private Exception? _failure;
    private volatile bool _stop;

    public CpuThreads(int count)
    {
        Count = count;
        _threads = new Thread[count - 1];
        for (var i = 0; i < _threads.Length; i++)
        {
            var worker = i + 1;
            _threads[i] = new Thread(() => Work(worker)) { IsBackground = true, Name = $"lriad-cpu-{worker}" };
            _threads[i].Start();
        }
    }

    /// <summary>Workers, the calling thread included.</summary>
    public int Count { get; }

    /// <summary>Runs all tasks and returns when the last is done. One job at a time; a job's own tasks must not start another.</summary>
    /// <param name="tasks">Tasks are numbered 0 to this − 1.</param>
    /// <param name="body">Called with the state, the task's number and the worker's index (for scratch memory).</param>
    /// <param name="state">What the tasks work on; it may lie on the caller's stack.</param>
    public void Run(int tasks, delegate*<void*, int, int, void> body, void* state)
    {
        if (tasks == 0)
        {
            return;
        }

        if (tasks == 1 || _threads.Length == 0)
        {
            for (var task = 0; task < tasks; task++)
            {
                body(state, task, 0);
            }

            return;
        }

        _body = body;
        _state = state;
        _tasks = tasks;
        _next = 0;
        _failure = null;
        Volatile.Write(ref _busy, _threads.Length);
        Interlocked.Increment(ref _generation);
        var sleeping = Interlocked.Exchange(ref _sleeping, 0);
        if (sleeping > 0)
        {
            _wake.Release(sleeping);
        }

        Drain(0);
        var spin = default(SpinWait);
        while (Volatile.Read(ref _busy) > 0)
        {
            spin.SpinOnce(sleep1Threshold: -1);
        }

        if (_failure is { } failure)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
        }
    }

    public void Dispose()
    {
        _stop = true;
        Interlocked.Increment(ref _generation);
        _wake.Release(_threads.Length);
        foreach (var thread in _threads)
        {
            thread.Join();
        }

        _wake.Dispose();
    }

    private void Work(int worker)
    {
        var seen = 0;
        while (true)
        {
            seen = WaitForNext(seen);
            if (_stop)
            {
                return;
            }

            Drain(worker);
            Interlocked.Decrement(ref _busy);
        }
    }

    private int WaitForNext(int seen)
    {
        for (var i = 0; i < SpinsBeforeSleep; i++)
        {
            var generation = Volatile.Read(ref _generation);
            if (generation != seen)
            {
                return generation;
            }

            Thread.SpinWait(20);
        }

        while (true)
        {
            // Announce the sleep before the last look, so that a job started in between wakes us.
            Interlocked.Increment(ref _sleeping);
            var generation = Volatile.Read(ref _generation);
            if (generation != seen)
            {
                // Either we take the announcement back, or the starter already took it and a token waits for whoever sleeps next.
                int sleeping;
                while ((sleeping = Volatile.Read(ref _sleeping)) > 0)
                {
                    if (Interlocked.CompareExchange(ref _sleeping, sleeping - 1, sleeping) == sleeping)
                    {
                        break;
                    }
                }

                return generation;
            }

            _wake.Wait();
            generation = Volatile.Read(ref _generation);
            if (generation != seen)
            {
                return generation;
            }
        }
    }

    private void Drain(int worker)
    {
        try
        {
            int task;
            while ((task = Interlocked.Increment(ref _next) - 1) < _tasks)
            {
                _body(_state, task, worker);
            }
        }
        catch (Exception failure)
        {
            Interlocked.CompareExchange(ref _failure, failure, null);
            Interlocked.Exchange(ref _next, _tasks);
        }
    }
}
