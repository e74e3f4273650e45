using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Products of many rows, by cuBLASLt; with a non-linearity behind them by a kernel of our own, where that is faster; those of few are parts of programs.
internal sealed unsafe partial class CudaBackend
{
    /// <summary>Tiles of rows whose inputs stay in the cache while their outputs are computed.</summary>
    private const int ProductBand = 20;

    /// <summary>From how many waves on our own kernel is faster, if its tiles fill them well enough.</summary>
    private const int ProductWaves = 3;

    /// <summary>A non-linearity behind a product takes about as long as so many more inputs would: what our own kernel may waste.</summary>
    private const double ActivationInputs = 400;

    /// <summary>y = x·Wᵀ + b (+ residual), all bfloat16 but for <paramref name="float32"/> results.</summary>
    private void Multiply(Linear linear, nint x, int rows, nint y, long stride, nint residual = 0, bool float32 = false)
    {
        _ = Stream;
        _blas.Multiply(new Product(rows, linear.Outputs, linear.Inputs, stride, !linear.Bias.IsEmpty, residual != 0, float32, Back: false), x, linear.Weight.Address, Address(linear.Bias), residual, y);
    }

    /// <summary>dx = dy·W, all bfloat16.</summary>
    private void MultiplyBack(Linear linear, nint dy, int rows, nint dx) => MultiplyBack(linear, dy, rows, linear.Outputs, dx, add: false);

    /// <summary>dx = Σ dyᵢ·Wᵢ, dy being rows of dy₁ | dy₂ | …</summary>
    private void MultiplyBack(ReadOnlySpan<Linear> products, nint dy, int rows, nint dx)
    {
        if (Joined(products) is { } all)
        {
            MultiplyBack(all, dy, rows, dx);
            return;
        }

        var width = 0;
        foreach (var product in products)
        {
            width += product.Outputs;
        }

        var at = 0;
        foreach (var product in products)
        {
            MultiplyBack(product, dy + (at * sizeof(ushort)), rows, width, dx, add: at > 0);
            at += product.Outputs;
        }
    }

    private void MultiplyBack(Linear linear, nint dy, int rows, long stride, nint dx, bool add)
    {
        _ = Stream;
        _blas.Multiply(new Product(rows, linear.Inputs, linear.Outputs, stride, Bias: false, add, Float32: false, Back: true), dy, linear.Weight.Address, 0, add ? dx : 0, dx);
    }

    /// <summary>
    /// y = activation(x·Wᵀ + b), if our own kernel is the faster one. <see cref="ProductActivation.GatedSilu"/>: the first half of W's rows is the gate, y has half as many columns,
    /// there is no bias, and gate and up themselves go to <paramref name="gateUp"/>, if it is not 0.
    /// </summary>
    private bool TryActivate(Linear linear, nint x, int rows, nint y, ProductActivation activation, nint gateUp = 0)
    {
        var halves = activation == ProductActivation.GatedSilu ? 2 : 1;
        var (outputs, columns, clusters) = (linear.Outputs / halves, ProductKernel.Columns / halves, _context.Multiprocessors / 2);
        if (_kernels.Product is not { } product || (halves == 2 && !linear.Bias.IsEmpty) || linear.Inputs % ProductKernel.Depth != 0 || outputs % ProductKernel.Together != 0)
        {
            return false;
        }

        // The two tiles of a cluster are one below the other, unless that wastes more than side by side.
        var (rowTiles, columnTiles) = (Pieces(rows, ProductKernel.Rows), Pieces(outputs, columns));
        var across = rowTiles * Pieces(columnTiles, 2) < Pieces(rowTiles, 2) * columnTiles;
        (rowTiles, columnTiles) = across ? (rowTiles, Pieces(columnTiles, 2)) : (Pieces(rowTiles, 2), columnTiles);
        var waves = Pieces(rowTiles * columnTiles, clusters);
        var filled = (double)rows * outputs / ((double)waves * clusters * 2 * ProductKernel.Rows * columns);
        if (waves < ProductWaves || filled < linear.Inputs / (linear.Inputs + ActivationInputs))
        {
            return false;
        }

        var args = new ProductArgs
        {
            X = TensorMap.Tiles(x, rows, linear.Inputs, across ? ProductKernel.Rows / 2 : ProductKernel.Rows),
            W = TensorMap.Weights(linear.Weight.Address, linear.Outputs, linear.Inputs, ProductKernel.Columns / 2),
            Bias = Address(linear.Bias),
            Y = y,
            GateUp = gateUp,
            Rows = rows,
            Outputs = outputs,
            Depth = linear.Inputs / ProductKernel.Depth,
            Activation = activation,
            RowTiles = rowTiles,
            ColumnTiles = columnTiles,
            Across = across ? 1 : 0,
            Band = ProductBand,
        };
        product.Kernel.Launch(Stream, args, clusters * 2, 1, ProductKernel.Threads);
        return true;
    }

    private static int Pieces(int count, int size) => (count + size - 1) / size;
}
