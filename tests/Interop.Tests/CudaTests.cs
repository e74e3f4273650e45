namespace LrIad.Interop.Tests;

/// <summary>What holds with a GPU and without.</summary>
internal sealed class CudaTests
{
    [Test]
    public void A_machine_without_CUDA_is_told_so_and_nothing_throws()
    {
        if (CudaContext.Unavailable() is { } reason)
        {
            Assert.That(reason, Does.Contain("CUDA").Or.Contain("cu"));
            return;
        }

        using var context = new CudaContext();
        Assert.That(context.Memory().Free, Is.Positive.And.LessThanOrEqualTo(context.Memory().Total));
    }

    [Test]
    [Category("Cuda")]
    public void Streams_copy_clear_and_measure()
    {
        if (CudaContext.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        using var context = new CudaContext();
        using var start = new CudaEvent();
        using var end = new CudaEvent();
        using var trace = new CudaTrace(context.Stream);
        int[] values = [1, 2, 3, 4], back = [0, 0, 0, 0];
        var memory = context.Allocate(32);
        unsafe
        {
            fixed (int* from = values, to = back)
            {
                start.Record(context.Stream);
                context.Stream.Upload((nint)from, memory, 16);
                context.Stream.Copy(memory, memory + 16, 16);
                context.Stream.Clear(memory + 20, 4);
                context.Stream.Download(memory + 16, (nint)to, 16);
                end.Record(context.Stream);
                context.Stream.Synchronize();
            }
        }

        context.Free(memory);
        Assert.That(back, Is.EqualTo(new[] { 1, 0, 3, 4 }));
        Assert.That(end.Since(start), Is.Positive);
        var spans = trace.Read();
        Assert.That(spans.Select(span => span.Name), Is.EqualTo(new[] { "upload", "copy", "clear", "download" }));
        Assert.That(spans.Select(span => span.Start), Is.Ordered);
    }

    // More than the page-locked buffers hold together, and not a multiple of one.
    [Test]
    [Category("Cuda")]
    public unsafe void Large_uploads_arrive_whole()
    {
        if (CudaContext.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        using var context = new CudaContext();
        byte[] values = new byte[(21 << 20) + 12345], back = new byte[values.Length];
        new Random(1).NextBytes(values);
        var memory = context.Allocate(values.Length);
        fixed (byte* from = values, to = back)
        {
            context.Stream.Upload((nint)from, memory, values.Length);
            context.Stream.Download(memory, (nint)to, values.Length);
            context.Stream.Synchronize();
        }

        context.Free(memory);
        Assert.That(back.AsSpan().SequenceEqual(values), Is.True);
    }

    [Test]
    [Category("Cuda")]
    public void Too_much_memory_is_no_memory_and_the_context_goes_on()
    {
        if (CudaContext.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }

        using var context = new CudaContext();
        Assert.That(context.Allocate(1L << 50), Is.EqualTo((nint)0));
        var memory = context.Allocate(1 << 20);
        Assert.That(memory, Is.Not.EqualTo((nint)0));
        context.Free(memory);
    }
}
