namespace LrIad.Engine.Data;

/// <summary>A sample with its patches, or with what is wrong with its file.</summary>
/// <param name="Sample">The sample.</param>
/// <param name="Image">Its patches; null where the file cannot be used.</param>
/// <param name="Problem">Why not; null where it can.</param>
public sealed record ReadSample(Sample Sample, ImagePatches? Image, InputException? Problem);

/// <summary>Reads images on other threads before they are asked for, so that decoding goes on while the model works.</summary>
public static class ImageStream
{
    /// <summary>
    /// The samples in their order, at most <paramref name="ahead"/> of them read or being read and not yet taken. Whoever stops early waits for those being read, no more.
    /// </summary>
    /// <exception cref="OperationCanceledException">While it is enumerated.</exception>
    public static IEnumerable<ReadSample> Read(IReadOnlyList<Sample> samples, ImageProcessor processor, int ahead, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(samples);
        ArgumentNullException.ThrowIfNull(processor);
        ArgumentOutOfRangeException.ThrowIfLessThan(ahead, 1);
        return Stream(samples, sample => ReadOne(sample, processor), ahead, cancellation);
    }

    /// <summary>What <see cref="Read"/> does, whatever is made of a sample.</summary>
    internal static IEnumerable<ReadSample> Stream(IReadOnlyList<Sample> samples, Func<Sample, ReadSample> read, int ahead, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var pending = new Queue<Task<ReadSample>>();
        try
        {
            for (var next = 0; next < samples.Count || pending.Count > 0;)
            {
                while (next < samples.Count && pending.Count < ahead)
                {
                    var sample = samples[next++];
                    pending.Enqueue(Task.Run(() => read(sample), stop.Token));
                }

                pending.Peek().WaitAsync(cancellation).GetAwaiter().GetResult();
                yield return pending.Dequeue().Result;
            }
        }
        finally
        {
            // What has not begun never does; what has is waited for, so that no file stays open behind the caller's back.
            stop.Cancel();
            Task.WhenAll(pending).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default).Wait(CancellationToken.None);
        }
    }

    private static ReadSample ReadOne(Sample sample, ImageProcessor processor)
    {
        try
        {
            return new ReadSample(sample, processor.Process(sample.ImagePath), null);
        }
        catch (InputException problem)
        {
            return new ReadSample(sample, null, problem);
        }
    }
}
