using LrIad.Engine.Compute.Cpu;

namespace LrIad.Engine.Tests.Backends;

internal sealed unsafe class CpuThreadsTests
{
    [TestCase(1)]
    [TestCase(2)]
    [TestCase(3)]
    [TestCase(7)]
    public void Every_task_runs_once_and_no_wake_up_is_lost(int count)
    {
        // Short jobs one after another, with pauses around the time at which workers go to sleep.
        var jobs = Task.Run(() =>
        {
            var ran = stackalloc int[11];
            using var threads = new CpuThreads(count);
            for (var job = 0; job < 3000; job++)
            {
                new Span<int>(ran, 11).Clear();
                threads.Run(1 + (job % 11), &Count, ran);
                for (var task = 0; task < 11; task++)
                {
                    if (ran[task] != (task < 1 + (job % 11) ? 1 : 0))
                    {
                        return false;
                    }
                }

                if (job % 3 == 0)
                {
                    Thread.SpinWait(job * 5);
                }
            }

            return true;
        });
        Assert.That(jobs.Wait(TimeSpan.FromSeconds(60)), "the jobs hang");
        Assert.That(jobs.Result, "a task did not run, or ran twice");
    }

    [Test]
    public void A_failure_reaches_the_caller_and_the_next_job_runs()
    {
        using var threads = new CpuThreads(3);
        var ran = stackalloc int[11];
        for (var round = 0; round < 20; round++)
        {
            Assert.That(() => Fail(threads), Throws.InvalidOperationException.With.Message.EqualTo("task 4"));
            new Span<int>(ran, 11).Clear();
            threads.Run(11, &Count, ran);
            Assert.That(new Span<int>(ran, 11).ToArray(), Has.All.EqualTo(1));
        }

        static void Fail(CpuThreads threads) => threads.Run(9, &FailAtFour, null);
    }

    private static void Count(void* state, int task, int worker) => Interlocked.Increment(ref ((int*)state)[task]);

    private static void FailAtFour(void* state, int task, int worker)
    {
        if (task == 4)
        {
            throw new InvalidOperationException("task 4");
        }
    }
}
