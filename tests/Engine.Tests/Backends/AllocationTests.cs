using LrIad.Engine.Compute;

namespace LrIad.Engine.Tests.Backends;

internal sealed class AllocationTests
{
    [Test]
    public void A_layer_forward_and_back_allocates_nothing_in_the_steady_state()
    {
        using var device = new Device();
        var (qkv, block) = (new QkvCase(40, 96, 1, 3, 32, 8, 0.1f, ElementType.BFloat16, 1), new FeedForwardCase(40, 96, 200, FeedForwardKind.GatedSilu, ElementType.BFloat16, 2));
        var (start, feedForward) = (qkv.On(device), block.On(device));
        var output = new LinearCase(new Random(3), 96, 96, ElementType.BFloat16).On(device);
        var gradient = qkv.Adapter(device, qkv.Factors);
        var (x, saved, ids) = (device.New(40, 96), device.New(40, feedForward.SavedColumns), device.New<int>(40));
        var (dx, dKv) = (device.New(40, 96), device.New(qkv.Blocks, start.Kv.Data.Columns));
        Pass();
        Pass();
        var before = GC.GetAllocatedBytesForCurrentThread();
        Pass();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);

        void Pass()
        {
            device.Backend.Embed(ids, start.X, default, x);
            start.Forward(device);
            device.Backend.ProjectOut(start.Q, output, x, x);
            device.Backend.FeedForward(x, feedForward, x, saved);
            device.Backend.FeedForwardBackward(x, feedForward, saved, dx, dx);
            device.Backend.ProjectOutBackward(dx, output, start.Q);
            start.Backward(device, start.Q, dKv, dx, dx, gradient);
        }
    }
}
