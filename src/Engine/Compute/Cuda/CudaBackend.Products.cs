using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Products of many rows, by cuBLASLt; those of few are parts of programs.
public sealed unsafe partial class CudaBackend
{
    /// <summary>y = x·Wᵀ + b (+ residual), all bfloat16 but for <paramref name="float32"/> results.</summary>
    private void Multiply(Linear linear, nint x, int rows, nint y, long stride, nint residual = 0, bool float32 = false)
    {
        _ = Stream;
        _blas.Multiply(new Product(rows, linear.Outputs, linear.Inputs, stride, !linear.Bias.IsEmpty, residual != 0, float32), x, linear.Weight.Address, Address(linear.Bias), residual, y);
    }
}
