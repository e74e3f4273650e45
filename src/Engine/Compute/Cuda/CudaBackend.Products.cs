using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Products of many rows go to cuBLASLt; those of few, which are nothing but reading the weights, to our own kernel.
public sealed unsafe partial class CudaBackend
{
    private const int SkinnyTile = 128;
    private const int SkinnyDepth = 64;
    private const int SkinnyBlocksPerMultiprocessor = 2;
    private const int SkinnyCounters = 1 << 14;

    /// <summary>Where a product's result goes.</summary>
    private readonly record struct Output(Linear Linear, nint Y, long Stride, nint Residual = 0);

    /// <summary>y = x·Wᵀ + b (+ residual), all bfloat16 but for <paramref name="float32"/> results.</summary>
    private void Multiply(Linear linear, nint x, int rows, nint y, long stride, nint residual = 0, bool float32 = false) =>
        Multiply(x, rows, [new Output(linear, y, stride, residual)], float32);

    /// <summary>Up to three products of the same rows.</summary>
    private void Multiply(nint x, int rows, ReadOnlySpan<Output> outputs, bool float32 = false)
    {
        if (rows <= Kernels.Skinnies[^1] && TryMultiplySkinny(x, rows, outputs, float32))
        {
            return;
        }

        foreach (var (linear, y, stride, residual) in outputs)
        {
            _blas.Multiply(
                new Product(rows, linear.Outputs, linear.Inputs, stride, !linear.Bias.IsEmpty, residual != 0, float32), x, linear.Weight.Address, Address(linear.Bias), residual, y);
        }
    }

    private bool TryMultiplySkinny(nint x, int rows, ReadOnlySpan<Output> outputs, bool float32)
    {
        var inputs = outputs[0].Linear.Inputs;
        Span<SkinnySegment> segments = [default, default, default];
        var tiles = 0;
        for (var i = 0; i < outputs.Length; i++)
        {
            var (linear, y, stride, residual) = outputs[i];
            segments[i] = new SkinnySegment(linear.Weight.Address, Address(linear.Bias), residual, y, stride, linear.Outputs, tiles);
            tiles += (linear.Outputs + SkinnyTile - 1) / SkinnyTile;
        }

        if (inputs % SkinnyDepth != 0 || tiles > SkinnyCounters)
        {
            return false;
        }

        var kernel = 0;
        while (Kernels.Skinnies[kernel] < rows)
        {
            kernel++;
        }

        // Every block has something to do; the runs depend on the shape alone.
        var blocks = Math.Min(SkinnyBlocksPerMultiprocessor * _context.Multiprocessors, tiles * (inputs / SkinnyDepth));
        var partials = Borrow(Scratch.SkinnyPartials, (long)SkinnyBlocksPerMultiprocessor * _context.Multiprocessors * 2 * Kernels.Skinnies[^1] * SkinnyTile * sizeof(float));

        // Zero when made; every launch leaves them zero.
        var counters = Borrow(Scratch.SkinnyCounters, SkinnyCounters * sizeof(int));
        _kernels.Skinny[kernel].Launch(
            _stream, new SkinnyArgs(segments[0], segments[1], segments[2], x, partials, counters, outputs.Length, rows, inputs, tiles, float32 ? 1 : 0), blocks, 1, 128);
        return true;
    }
}
