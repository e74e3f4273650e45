using LrIad.Engine.Serving;

namespace LrIad.Server.Requests;

/// <summary>Many requests of one caller, side by side: as many at a time as the engine draws, so that it is busy and others get their turns.</summary>
internal static class Many
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(200);

    /// <summary>How many are asked for at a time: never so many that they fill the queue by themselves.</summary>
    public static int AtATime(EngineLimits limits) => Math.Max(1, Math.Min(limits.Sequences, limits.Waiting / 2));

    /// <summary>Runs all of them; the first error ends them.</summary>
    /// <returns>What they came to, in their order.</returns>
    public static async Task<T[]> RunAsync<T>(IInferenceEngine engine, int count, Func<int, CancellationToken, Task<T>> run, CancellationToken cancellation)
    {
        var results = new T[count];
        var parallel = new ParallelOptions { MaxDegreeOfParallelism = AtATime(engine.Limits), CancellationToken = cancellation };
        await Parallel.ForAsync(0, count, parallel, async (i, stop) => results[i] = await PatientlyAsync(() => run(i, stop), stop));
        return results;
    }

    /// <summary>Runs one; where others have filled the queue, it tries again.</summary>
    public static async Task<T> PatientlyAsync<T>(Func<Task<T>> run, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                return await run();
            }
            catch (EngineBusyException)
            {
                await Task.Delay(Pause, cancellation);
            }
        }
    }
}
