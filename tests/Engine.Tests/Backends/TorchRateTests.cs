using TorchSharp;

namespace LrIad.Engine.Tests.Backends;

internal sealed class TorchRateTests
{
    [Test]
    public void Measures_and_leaves_the_thread_count_alone()
    {
        var threads = torch.get_num_threads();
        var rate = TorchRate.GigaFlops(64, 128, 256, seconds: 0.02);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(rate, Is.InRange(0.01, 100_000));
            Assert.That(torch.get_num_threads(), Is.EqualTo(threads));
        }
    }
}
