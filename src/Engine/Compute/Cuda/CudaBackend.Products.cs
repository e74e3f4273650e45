using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Products of many rows go to cuBLASLt; those of few, which are nothing but reading the weights, to our own kernel.
public sealed unsafe partial class CudaBackend
{
    private const int SkinnyDepth = 64;
    private const int SkinnyCounters = 1 << 14;

    private readonly Dictionary<(nint Address, int Rows, int Columns, int BoxRows), TensorMap> _maps = [];

    /// <summary>Where a product's result goes.</summary>
    private readonly record struct Output(Linear Linear, nint Y, long Stride, nint Residual = 0);

    /// <summary>y = x·Wᵀ + b (+ residual), all bfloat16 but for <paramref name="float32"/> results.</summary>
    private void Multiply(Linear linear, nint x, int rows, nint y, long stride, nint residual = 0, bool float32 = false) =>
        Multiply(x, rows, [new Output(linear, y, stride, residual)], float32);

    /// <summary>Up to three products of the same rows.</summary>
    private void Multiply(nint x, int rows, ReadOnlySpan<Output> outputs, bool float32 = false)
    {
        if (TryMultiplySkinny(x, rows, outputs, float32))
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
        var kernel = Array.Find(_kernels.Skinny, kernel => kernel.Rows >= rows);
        if (kernel is null || inputs % SkinnyDepth != 0)
        {
            return false;
        }

        var args = new SkinnyArgs { SegmentCount = outputs.Length, Rows = rows, Inputs = inputs, Float32 = float32 ? 1 : 0, XMap = Map(x, rows, inputs, kernel.Rows) };
        for (var i = 0; i < outputs.Length; i++)
        {
            var (linear, y, stride, residual) = outputs[i];
            args.WeightMaps[i] = Map(linear.Weight.Address, linear.Outputs, inputs, kernel.Tile);
            args.Segments[i] = new SkinnySegment(Address(linear.Bias), residual, y, stride, linear.Outputs, args.Tiles);
            args.Tiles += (linear.Outputs + kernel.Tile - 1) / kernel.Tile;
        }

        if (args.Tiles > SkinnyCounters)
        {
            return false;
        }

        // Every block has something to do; the runs depend on the shape alone.
        var blocks = Math.Min(kernel.Blocks * _context.Multiprocessors, args.Tiles * (inputs / SkinnyDepth));
        args.Partials = Borrow(Scratch.SkinnyPartials, (long)blocks * 2 * kernel.Rows * kernel.Tile * sizeof(float));

        // Zero when made; every launch leaves them zero.
        args.Counters = Borrow(Scratch.SkinnyCounters, SkinnyCounters * sizeof(int));
        kernel.Kernel.Launch(_stream, args, blocks, 1, kernel.Threads);
        return true;
    }

    private TensorMap Map(nint address, int rows, int columns, int boxRows)
    {
        if (!_maps.TryGetValue((address, rows, columns, boxRows), out var map))
        {
            map = TensorMap.Tiles(address, rows, columns, boxRows);
            _maps.Add((address, rows, columns, boxRows), map);
        }

        return map;
    }
}
