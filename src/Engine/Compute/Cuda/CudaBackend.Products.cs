using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Products of many rows, by cuBLASLt; those of few are parts of programs.
public sealed unsafe partial class CudaBackend
{
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
}
