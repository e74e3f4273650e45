using System.Diagnostics;
using TorchSharp;

namespace LrIad.Engine.Tests.Backends;

/// <summary>How fast libtorch multiplies float32 matrices here and now: the yardstick for the CPU backend's products.</summary>
internal static class TorchRate
{
    /// <summary>GFLOP/s of x · wᵀ, the fastest of several runs.</summary>
    /// <param name="rows">Rows of x.</param>
    /// <param name="inputs">Columns of x and w.</param>
    /// <param name="outputs">Rows of w.</param>
    /// <param name="threads">Threads libtorch may use.</param>
    /// <param name="seconds">How long to measure.</param>
    public static double GigaFlops(int rows, int inputs, int outputs, int threads = 2, double seconds = 0.3)
    {
        var before = torch.get_num_threads();
        torch.set_num_threads(threads);
        try
        {
            using var scope = torch.NewDisposeScope();
            using var noGrad = torch.no_grad();
            var (x, w) = (torch.randn(rows, inputs), torch.randn(outputs, inputs));
            torch.mm(x, w.t()).Dispose();
            var (best, clock) = (double.MaxValue, Stopwatch.StartNew());
            while (clock.Elapsed.TotalSeconds < seconds)
            {
                var start = Stopwatch.GetTimestamp();
                torch.mm(x, w.t()).Dispose();
                best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
            }

            return 2.0 * rows * inputs * outputs / best / 1e9;
        }
        finally
        {
            torch.set_num_threads(before);
        }
    }
}
