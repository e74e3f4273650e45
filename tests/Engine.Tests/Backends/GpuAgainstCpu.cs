using LrIad.Engine.Compute.Cuda;

namespace LrIad.Engine.Tests.Backends;

/// <summary>A GPU and a CPU for each test; where there is no GPU the tests are passed over, and say so.</summary>
internal abstract class GpuAgainstCpu
{
    protected Device Gpu { get; private set; } = null!;

    protected Device Cpu { get; private set; } = null!;

    [OneTimeSetUp]
    public void Open()
    {
        if (CudaBackend.Unavailable() is { } reason)
        {
            Assert.Ignore(reason);
        }
    }

    [SetUp]
    public void SetUp() => (Gpu, Cpu) = (new Device(new CudaBackend()), new Device());

    [TearDown]
    public void TearDown()
    {
        Gpu?.Dispose();
        Cpu?.Dispose();
    }
}
