namespace LrIad.Engine.Compute.Cpu;

/// <summary>
/// Workers that live as long as the backend. Tasks are handed out as workers come free, so a result must not depend on who does what; starting a job
/// allocates nothing, which the decode loop relies on.
/// </summary>
internal sealed unsafe class CpuThreads : IDisposable
{
    private const int SpinsBeforeSleep = 2000;

    private readonly Thread[] _threads;
    private readonly object _wake = new();
    private delegate*<void*, int, int, void> _body;
    private void* _state;
    private int _tasks;
    private int _unclaimed;
    private int _finished;
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
        _failure = null;
        _finished = 0;

        // From here on workers may claim tasks. One that wakes late finds none left and touches nothing: the job need not wait for it.
        Volatile.Write(ref _unclaimed, tasks);
        StartGeneration();
        Drain(0);
        var spin = default(SpinWait);
        while (Volatile.Read(ref _finished) < tasks)
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
        StartGeneration();
        foreach (var thread in _threads)
        {
            thread.Join();
        }
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

        lock (_wake)
        {
            // Announce the sleep before the last look: either we see the new generation, or its starter sees us and wakes everybody.
            Interlocked.Increment(ref _sleeping);
            int generation;
            while ((generation = Volatile.Read(ref _generation)) == seen)
            {
                Monitor.Wait(_wake);
            }

            Interlocked.Decrement(ref _sleeping);
            return generation;
        }
    }

    private void StartGeneration()
    {
        Interlocked.Increment(ref _generation);
        if (Volatile.Read(ref _sleeping) > 0)
        {
            lock (_wake)
            {
                Monitor.PulseAll(_wake);
            }
        }
    }

    // A claim holds the job: body, state and number of tasks stay until its task is counted as finished.
    private void Drain(int worker)
    {
        int left;
        while (Volatile.Read(ref _unclaimed) > 0 && (left = Interlocked.Decrement(ref _unclaimed)) >= 0)
        {
            var finished = 1;
            try
            {
                _body(_state, _tasks - 1 - left, worker);
            }
            catch (Exception failure)
            {
                Interlocked.CompareExchange(ref _failure, failure, null);
                finished += Math.Max(0, Interlocked.Exchange(ref _unclaimed, 0));
            }

            Interlocked.Add(ref _finished, finished);
        }
    }
}
