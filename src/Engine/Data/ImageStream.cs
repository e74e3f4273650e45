namespace LrIad.Engine.Data;

/// <summary>A file with its patches, or with what is wrong with it.</summary>
/// <param name="File">The file.</param>
/// <param name="Image">Its patches; null where the file cannot be used.</param>
/// <param name="Problem">Why not; null where it can.</param>
internal sealed record ReadImage(string File, ImagePatches? Image, InputException? Problem);

/// <summary>Reads images on other threads before they are asked for, so that decoding goes on while the model works.</summary>
internal static class ImageStream
{
    /// <summary>Images read at a time: a core is left to the thread that drives the model, which must not wait for its turn between two launches.</summary>
    internal static readonly int Readers = Math.Max(1, Environment.ProcessorCount - 1);

    /// <summary>The images of files, in their order. Whoever stops early waits for those being read, no more.</summary>
    /// <param name="files">The files.</param>
    /// <param name="processor">Makes their patches.</param>
    /// <param name="ahead">Images read or being read beyond the one handed out: what bounds the memory.</param>
    /// <param name="cancellation">Ends the wait for an image.</param>
    /// <exception cref="OperationCanceledException">While it is enumerated.</exception>
    public static IEnumerable<ReadImage> Read(IEnumerable<string> files, ImageProcessor processor, int ahead, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(files);
        ArgumentNullException.ThrowIfNull(processor);
        ArgumentOutOfRangeException.ThrowIfLessThan(ahead, 1);
        return Stream(files, file => ReadOne(file, processor), ahead, cancellation);
    }

    /// <summary>What <see cref="Read"/> does, whatever is made of a file.</summary>
    internal static IEnumerable<ReadImage> Stream(IEnumerable<string> files, Func<string, ReadImage> read, int ahead, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var scheduler = new ConcurrentExclusiveSchedulerPair(TaskScheduler.Default, Readers).ConcurrentScheduler;
        var pending = new Queue<Task<ReadImage>>();
        ReadImage Take()
        {
            // It leaves the queue once it is there: one that is still being read when the wait is cancelled is among those waited for below.
            pending.Peek().WaitAsync(cancellation).GetAwaiter().GetResult();
            return pending.Dequeue().Result;
        }

        try
        {
            foreach (var file in files)
            {
                pending.Enqueue(Task.Factory.StartNew(() => read(file), stop.Token, TaskCreationOptions.None, scheduler));
                if (pending.Count > ahead)
                {
                    yield return Take();
                }
            }

            while (pending.Count > 0)
            {
                yield return Take();
            }
        }
        finally
        {
            // What has not begun never does; what has is waited for, so that no file stays open behind the caller's back.
            stop.Cancel();
            Task.WhenAll((IEnumerable<Task>)pending).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing).GetAwaiter().GetResult();
        }
    }

    private static ReadImage ReadOne(string file, ImageProcessor processor)
    {
        try
        {
            return new ReadImage(file, processor.Process(file), null);
        }
        catch (InputException problem)
        {
            return new ReadImage(file, null, problem);
        }
    }
}
