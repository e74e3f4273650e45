namespace LrIad.Interop;

/// <summary>A product y = x·Wᵀ (+ bias) (+ residual) of bfloat16 matrices, sums in float32. All matrices are row-major.</summary>
/// <param name="Rows">Rows of x and y.</param>
/// <param name="Outputs">Rows of W, columns of y.</param>
/// <param name="Inputs">Columns of x and W.</param>
/// <param name="Stride">Elements from one row of y (on the way back, of x) to the next; the other matrices' rows lie side by side.</param>
/// <param name="Bias">Whether a bias is added.</param>
/// <param name="Residual">Whether a matrix of y's form is added.</param>
/// <param name="Float32">Whether y is float32 instead of bfloat16.</param>
/// <param name="Back">Whether it is y = x·W instead, W being [inputs, outputs]: the way gradients go.</param>
internal readonly record struct Product(int Rows, int Outputs, int Inputs, long Stride, bool Bias, bool Residual, bool Float32, bool Back);

/// <summary>Matrix products by cuBLASLt. What it finds out about a shape is kept.</summary>
internal sealed unsafe class CublasLt : IDisposable
{
    /// <summary>What the vendor advises for this generation.</summary>
    private const long WorkspaceBytes = 32L << 20;

    /// <summary>Rows that fall on 16 bytes need no more to be said about alignment.</summary>
    private const int VectorElements = 8;

    private readonly CudaContext _context;
    private readonly nint _handle;
    private readonly nint _workspace;
    private readonly nint _preference;
    private readonly Dictionary<Product, Plan> _plans = [];

    /// <param name="context">The GPU, and the stream that products go to.</param>
    /// <exception cref="CudaException">The library is not there, or refuses.</exception>
    public CublasLt(CudaContext context)
    {
        ArgumentNullException.ThrowIfNull(context);
        _context = context;
        Check(Blas.cublasLtCreate(out _handle), "cublasLtCreate");

        _workspace = context.Allocate(WorkspaceBytes);
        Check(Blas.cublasLtMatmulPreferenceCreate(out _preference), "cublasLtMatmulPreferenceCreate");
        var bytes = (ulong)WorkspaceBytes;
        Check(Blas.cublasLtMatmulPreferenceSetAttribute(_preference, Blas.MaxWorkspaceBytes, &bytes, sizeof(ulong)), "cublasLtMatmulPreferenceSetAttribute");
        for (var operand = 0; operand < 4; operand++)
        {
            var alignment = 16u;
            Check(Blas.cublasLtMatmulPreferenceSetAttribute(_preference, Blas.MinAlignmentA + operand, &alignment, sizeof(uint)), "cublasLtMatmulPreferenceSetAttribute");
        }
    }

    /// <summary>Why there is no cuBLASLt here, or null if there is.</summary>
    public static string? Unavailable()
    {
        try
        {
            _ = Blas.cublasLtGetVersion();
            return null;
        }
        catch (DllNotFoundException)
        {
            return "cuBLASLt is not installed (libcublasLt.so.13 or .12; it comes with the CUDA toolkit, and with PyTorch: LD_LIBRARY_PATH can name its folder)";
        }
    }

    /// <summary>y = x·Wᵀ + bias + residual.</summary>
    /// <param name="product">The shape.</param>
    /// <param name="x">[rows, inputs].</param>
    /// <param name="weight">[outputs, inputs]; [inputs, outputs] on the way back.</param>
    /// <param name="bias">[outputs] or 0.</param>
    /// <param name="residual">[rows, outputs] with y's stride, or 0; may be y.</param>
    /// <param name="y">[rows, outputs].</param>
    public void Multiply(in Product product, nint x, nint weight, nint bias, nint residual, nint y)
    {
        if (!_plans.TryGetValue(product, out var plan))
        {
            plan = new Plan(this, product);
            _plans.Add(product, plan);
        }

        if (product.Bias)
        {
            Check(Blas.cublasLtMatmulDescSetAttribute(plan.Description, Blas.BiasPointer, &bias, (nuint)sizeof(nint)), "cublasLtMatmulDescSetAttribute");
        }

        float alpha = 1, beta = product.Residual ? 1 : 0;
        var algorithm = plan.Algorithm;
        using var span = _context.Stream.Timed("product");
        Check(
            Blas.cublasLtMatmul(
                _handle, plan.Description, &alpha, weight, plan.Weight, x, plan.X, &beta, product.Residual ? residual : y, plan.Y, y, plan.Y,
                &algorithm, _workspace, (nuint)WorkspaceBytes, _context.Stream.Handle),
            $"cublasLtMatmul({product})");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var plan in _plans.Values)
        {
            plan.Dispose();
        }

        _plans.Clear();
        _ = Blas.cublasLtMatmulPreferenceDestroy(_preference);
        _context.Free(_workspace);
        _ = Blas.cublasLtDestroy(_handle);
    }

    private static void Check(int status, string call)
    {
        if (status != 0)
        {
            throw new CudaException(call, $"cuBLAS status {status}");
        }
    }

    // cuBLAS sees matrices column by column: yᵀ = W·xᵀ, where our row-major W is the transpose of what it sees.
    private sealed class Plan : IDisposable
    {
        public Plan(CublasLt owner, Product product)
        {
            if (product.Inputs % VectorElements != 0 || product.Outputs % VectorElements != 0)
            {
                throw new CudaException($"the product {product}", $"inputs and outputs must be multiples of {VectorElements}");
            }

            Check(Blas.cublasLtMatmulDescCreate(out var description, Blas.Compute32, Blas.Real32), "cublasLtMatmulDescCreate");
            Description = description;
            var transposed = product.Back ? 0 : 1;
            Check(Blas.cublasLtMatmulDescSetAttribute(description, Blas.TransposeA, &transposed, sizeof(int)), "cublasLtMatmulDescSetAttribute");
            if (product.Bias)
            {
                int epilogue = Blas.EpilogueBias, type = Blas.RealBFloat16;
                Check(Blas.cublasLtMatmulDescSetAttribute(description, Blas.Epilogue, &epilogue, sizeof(int)), "cublasLtMatmulDescSetAttribute");
                Check(Blas.cublasLtMatmulDescSetAttribute(description, Blas.BiasType, &type, sizeof(int)), "cublasLtMatmulDescSetAttribute");
            }

            Weight = product.Back ? Layout(Blas.RealBFloat16, product.Outputs, product.Inputs, product.Outputs) : Layout(Blas.RealBFloat16, product.Inputs, product.Outputs, product.Inputs);
            X = Layout(Blas.RealBFloat16, product.Inputs, product.Rows, product.Back ? product.Stride : product.Inputs);
            Y = Layout(product.Float32 ? Blas.Real32 : Blas.RealBFloat16, product.Outputs, product.Rows, product.Back ? product.Outputs : product.Stride);
            Blas.Heuristic best;
            var status = Blas.cublasLtMatmulAlgoGetHeuristic(owner._handle, description, Weight, X, Y, Y, owner._preference, 1, &best, out var found);
            if (status != 0 || found == 0)
            {
                throw new CudaException($"cublasLtMatmulAlgoGetHeuristic({product})", status != 0 ? $"cuBLAS status {status}" : "no algorithm for this shape");
            }

            Algorithm = best.Algorithm;
        }

        public nint Description { get; }

        public nint Weight { get; }

        public nint X { get; }

        public nint Y { get; }

        public Blas.Algorithm Algorithm { get; }

        public void Dispose()
        {
            _ = Blas.cublasLtMatrixLayoutDestroy(Weight);
            _ = Blas.cublasLtMatrixLayoutDestroy(X);
            _ = Blas.cublasLtMatrixLayoutDestroy(Y);
            _ = Blas.cublasLtMatmulDescDestroy(Description);
        }

        private static nint Layout(int type, int rows, int columns, long stride)
        {
            Check(Blas.cublasLtMatrixLayoutCreate(out var layout, type, (ulong)rows, (ulong)columns, stride), "cublasLtMatrixLayoutCreate");
            return layout;
        }
    }
}
