using System.Runtime.CompilerServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

/// <summary>A kernel for programs of few rows; see native/kernels/step.cuh.</summary>
/// <param name="Kernel">The kernel, a block a multiprocessor.</param>
/// <param name="Rows">Rows that it is made for.</param>
internal sealed record StepKernel(CudaKernel Kernel, int Rows)
{
    public const int Threads = 384;

    /// <summary>Inputs of a piece of weights, and its boxes.</summary>
    public const int Depth = 64;

    /// <inheritdoc cref="Depth"/>
    public const int Boxes = 4;

    /// <summary>Outputs of a box: of products whose sums others add up, and of some that finish their results.</summary>
    public const int BoxRows = 64;

    /// <inheritdoc cref="BoxRows"/>
    public const int MostBoxRows = 72;

    /// <summary>Columns that norms leave the sums of.</summary>
    public const int Columns = 256;

    // Stages of weights and of activations; of each two barriers, and what the former hold, with a tile of the attention; the last operation known to be open, with a barrier, two operations, factors of rows, and room
    // to start on a multiple of 1,024.
    public static int SharedBytes(int rows, int stages, int activations) =>
        (stages * ((Boxes * MostBoxRows * Depth * sizeof(ushort)) + 16 + 16 + 48)) + (activations * ((rows * Depth * sizeof(ushort)) + 16)) + 16 + (2 * Unsafe.SizeOf<StepOp>()) + (rows * sizeof(float)) + 1024;
}

/// <summary>Attention for long stretches of rows; see native/kernels/attend_wide.cuh.</summary>
/// <param name="Kernel">The kernel, a block a multiprocessor.</param>
internal sealed record AttendWideKernel(CudaKernel Kernel)
{
    public const int Threads = 384;

    /// <summary>Packed query rows of a tile.</summary>
    public const int Rows = 128;

    // Queries, two stages of keys and values, 128 rows each, values as 128 columns; barriers; room to start on a multiple of 1,024.
    public static int SharedBytes(int headDim) => (128 * ((3 * headDim) + (2 * 128)) * sizeof(ushort)) + 80 + 1024;
}

/// <summary>Attention of many rows that are decoded; see native/kernels/attend_part.cuh.</summary>
/// <param name="Kernel">The kernel, a block a multiprocessor.</param>
internal sealed record AttendPartKernel(CudaKernel Kernel)
{
    public const int Threads = 320;

    // Queries, keys and values for each of two warpgroups, 64 and twice 128 rows; barriers; room to start on a multiple of 1,024.
    public const int SharedBytes = (2 * ((64 + 128 + 128) * 256)) + 64 + 1024;
}

/// <summary>The backward of attention for Hopper; see native/kernels/attend_backward_wide.cuh. Blocks of <see cref="AttendWideKernel.Threads"/> threads, one a multiprocessor.</summary>
/// <param name="Stats">What the others need to know of the rows.</param>
/// <param name="Rows">dq, by tiles of rows.</param>
/// <param name="Keys">dk and dv, by tiles of keys.</param>
internal sealed record BackwardWideKernels(CudaKernel Stats, CudaKernel Rows, CudaKernel Keys)
{
    /// <summary>Packed query rows that a tile of keys takes at a time.</summary>
    public const int StepRows = 64;

    // Queries and dO, two stages of keys and values, 128 rows each; or keys and values, four stages of 64 rows of queries, dO and stats; barriers, room to start on a multiple of 1,024.
    public const int RowsBytes = ((2 + 4) * 128 * 256) + 80 + 1024;
    public const int KeysBytes = (2 * 128 * 256) + (4 * 64 * ((2 * 256) + 8)) + 80 + 1024;
}

/// <summary>Large products; see native/kernels/product.cuh.</summary>
/// <param name="Kernel">The kernel, a block a multiprocessor, two a cluster.</param>
internal sealed record ProductKernel(CudaKernel Kernel)
{
    public const int Threads = 384;

    /// <summary>Rows of a tile.</summary>
    public const int Rows = 128;

    /// <summary>Outputs of a tile, or gates and what they are for.</summary>
    public const int Columns = 192;

    /// <summary>Inputs of a piece of a tile.</summary>
    public const int Depth = 64;

    /// <summary>Rows of W that are put in another order together.</summary>
    public const int Together = 32;

    // Five stages of x and W with two barriers each; two more; room to start on a multiple of 1,024.
    public const int SharedBytes = (5 * (((Rows + Columns) * Depth * sizeof(ushort)) + 16)) + 16 + 1024;
}

/// <summary>The kernels, loaded from the fatbin beside the program.</summary>
internal sealed class Kernels : IDisposable
{
    private static readonly string Path = System.IO.Path.Combine(AppContext.BaseDirectory, "lriad.fatbin");

    // Rows, and stages of weights and of activations.
    private static readonly (int Rows, int Stages, int Activations)[] StepShapes = [(8, 6, 8), (64, 5, 4)];

    private static readonly int[] Sizes =
    [
        Unsafe.SizeOf<EmbedArgs>(), Unsafe.SizeOf<ConvertArgs>(), Unsafe.SizeOf<PixelsArgs>(), Unsafe.SizeOf<NormArgs>(), Unsafe.SizeOf<QkvArgs>(), Unsafe.SizeOf<QkvAdapterArgs>(), Unsafe.SizeOf<AttendTile>(), Unsafe.SizeOf<AttendRun>(),
        Unsafe.SizeOf<AttendMerge>(), Unsafe.SizeOf<AttendArgs>(), Unsafe.SizeOf<AttendMergeArgs>(),
        Unsafe.SizeOf<KeyTile>(), Unsafe.SizeOf<RowRun>(), Unsafe.SizeOf<KeyMerge>(), Unsafe.SizeOf<AttendBackwardArgs>(), Unsafe.SizeOf<KeyMergeArgs>(), Unsafe.SizeOf<GatedSiluArgs>(), Unsafe.SizeOf<GeluArgs>(),
        Unsafe.SizeOf<HeadPart>(), Unsafe.SizeOf<HeadArgs>(), Unsafe.SizeOf<ReadArgs>(), Unsafe.SizeOf<WideArgs>(), Unsafe.SizeOf<ProductArgs>(), Unsafe.SizeOf<ProductOp>(), Unsafe.SizeOf<ResidualOp>(), Unsafe.SizeOf<RotateOp>(),
        Unsafe.SizeOf<StepTile>(), Unsafe.SizeOf<AttendOp>(), Unsafe.SizeOf<MergeOp>(), Unsafe.SizeOf<EmbedOp>(), Unsafe.SizeOf<StepOp>(), Unsafe.SizeOf<StepArgs>(),
        Unsafe.SizeOf<NormBackwardArgs>(), Unsafe.SizeOf<GatedSiluBackwardArgs>(), Unsafe.SizeOf<QkvBackwardArgs>(), Unsafe.SizeOf<HeadBackwardArgs>(), Unsafe.SizeOf<DropoutArgs>(),
        Unsafe.SizeOf<LowRankArgs>(), Unsafe.SizeOf<FactorGradientArgs>(), Unsafe.SizeOf<LowRankBackwardArgs>(), Unsafe.SizeOf<BackwardWideArgs>(), Unsafe.SizeOf<PartArgs>(),
        AttendWideKernel.SharedBytes(128), AttendWideKernel.SharedBytes(80), ProductKernel.SharedBytes, .. StepShapes.Select(shape => StepKernel.SharedBytes(shape.Rows, shape.Stages, shape.Activations)),
        AttendPartKernel.SharedBytes, BackwardRowsBytes, BackwardKeysBytes, BackwardWideKernels.RowsBytes, BackwardWideKernels.KeysBytes,
    ];

    // Rows of 128 columns and 16 bytes: keys and values of two stages, 64 rows each; or keys and values once, and two stages of 32 rows of queries and dO with their stats.
    private const int BackwardRowsBytes = 4 * 64 * 272;
    private const int BackwardKeysBytes = (2 * 64 * 272) + (2 * 32 * ((2 * 272) + 8));

    // Machine code for Hopper runs there alone: older and later GPUs get what was made for Ampere, where these kernels are empty and none waits for the one in front.
    private const int Hopper = 90;

    /// <summary>The oldest GPUs that there is code for.</summary>
    public const int Ampere = 80;

    private readonly CudaModule _module;

    public Kernels(CudaContext context)
    {
        _module = new CudaModule(System.IO.File.ReadAllBytes(Path));
        CheckAbi(context);
        Embed = Kernel("lriad_embed");
        Convert = Kernel("lriad_convert");
        Pixels = Kernel("lriad_pixels");
        Norm = Kernel("lriad_norm");
        Qkv = Kernel("lriad_qkv");
        QkvAdapter = Kernel("lriad_qkv_adapter");
        Attend128 = Kernel("lriad_attend_128", AttendSharedBytes(128));
        Attend80 = Kernel("lriad_attend_80", AttendSharedBytes(80));
        if (context.ComputeCapability == Hopper)
        {
            AttendWide128 = new AttendWideKernel(Kernel("lriad_attend_wide_128", AttendWideKernel.SharedBytes(128)));
            AttendBackwardWide = new BackwardWideKernels(
                Kernel("lriad_attend_backward_wide_stats", BackwardWideKernels.RowsBytes), Kernel("lriad_attend_backward_wide_rows", BackwardWideKernels.RowsBytes),
                Kernel("lriad_attend_backward_wide_keys", BackwardWideKernels.KeysBytes));
            AttendPart = new AttendPartKernel(Kernel("lriad_attend_part", AttendPartKernel.SharedBytes));
            AttendWide80 = new AttendWideKernel(Kernel("lriad_attend_wide_80", AttendWideKernel.SharedBytes(80)));
            Product = new ProductKernel(Kernel("lriad_product", ProductKernel.SharedBytes));
        }

        AttendMerge = Kernel("lriad_attend_merge");
        AttendBackwardStats = Kernel("lriad_attend_backward_stats", BackwardRowsBytes);
        AttendBackwardRows = Kernel("lriad_attend_backward_rows", BackwardRowsBytes);
        AttendBackwardKeys = Kernel("lriad_attend_backward_keys", BackwardKeysBytes);
        AttendBackwardMerge = Kernel("lriad_attend_backward_merge");
        GatedSilu = Kernel("lriad_gated_silu");
        Gelu = Kernel("lriad_gelu");
        HeadTruncate = Kernel("lriad_head_truncate");
        HeadTruncateMasked = Kernel("lriad_head_truncate_masked");
        HeadParts = Kernel("lriad_head_parts");
        HeadScored = Kernel("lriad_head_scored");
        HeadTop = Kernel("lriad_head_top");
        HeadFinish = Kernel("lriad_head_finish");
        NormBackward = Kernel("lriad_norm_backward");
        GatedSiluBackward = Kernel("lriad_gated_silu_backward");
        QkvBackward = Kernel("lriad_qkv_backward");
        HeadBackward = Kernel("lriad_head_backward");
        Dropout = Kernel("lriad_dropout");
        LowRank = Kernel("lriad_low_rank");
        FactorGradient = Kernel("lriad_factor_gradient");
        FactorFinish = Kernel("lriad_factor_finish");
        LowRankBackward = Kernel("lriad_low_rank_backward");
        Read = _module.Kernel("lriad_read");
        Steps = context.ComputeCapability == Hopper ? [.. StepShapes.Select(shape => new StepKernel(Kernel($"lriad_step_{shape.Rows}", StepKernel.SharedBytes(shape.Rows, shape.Stages, shape.Activations)), shape.Rows))] : [];

        // Elsewhere a kernel starts when the one in front has finished.
        CudaKernel Kernel(string name, int sharedBytes = 0) => _module.Kernel(name, sharedBytes, startsEarly: context.ComputeCapability == Hopper);
    }

    public CudaKernel Embed { get; }

    public CudaKernel Convert { get; }

    public CudaKernel Pixels { get; }

    public CudaKernel Norm { get; }

    public CudaKernel Qkv { get; }

    public CudaKernel QkvAdapter { get; }

    public CudaKernel Attend128 { get; }

    public CudaKernel Attend80 { get; }

    /// <summary>For long stretches of rows; null on other GPUs than Hopper.</summary>
    public AttendWideKernel? AttendWide128 { get; }

    /// <inheritdoc cref="AttendWide128"/>
    public AttendWideKernel? AttendWide80 { get; }

    /// <summary>For many rows that are decoded, heads of 128 columns; null on other GPUs than Hopper.</summary>
    public AttendPartKernel? AttendPart { get; }

    /// <summary>For large products; null on other GPUs than Hopper.</summary>
    public ProductKernel? Product { get; }

    public CudaKernel AttendMerge { get; }

    /// <summary>Null on other GPUs than Hopper.</summary>
    public BackwardWideKernels? AttendBackwardWide { get; }

    public CudaKernel AttendBackwardStats { get; }

    public CudaKernel AttendBackwardRows { get; }

    public CudaKernel AttendBackwardKeys { get; }

    public CudaKernel AttendBackwardMerge { get; }

    public CudaKernel GatedSilu { get; }

    public CudaKernel Gelu { get; }

    public CudaKernel HeadTruncate { get; }

    public CudaKernel HeadTruncateMasked { get; }

    public CudaKernel HeadParts { get; }

    public CudaKernel HeadScored { get; }

    public CudaKernel HeadTop { get; }

    public CudaKernel HeadFinish { get; }

    public CudaKernel NormBackward { get; }

    public CudaKernel GatedSiluBackward { get; }

    public CudaKernel QkvBackward { get; }

    public CudaKernel HeadBackward { get; }

    public CudaKernel Dropout { get; }

    public CudaKernel LowRank { get; }

    public CudaKernel FactorGradient { get; }

    public CudaKernel FactorFinish { get; }

    public CudaKernel LowRankBackward { get; }

    public CudaKernel Read { get; }

    /// <summary>Programs of few rows, from the fewest up; none on other GPUs than Hopper.</summary>
    public StepKernel[] Steps { get; }

    /// <summary>Why they cannot be loaded, or null.</summary>
    public static string? Unavailable() => System.IO.File.Exists(Path) ? null : $"this build has no CUDA kernels ({Path} does not exist; ./build.sh kernels compiles them)";

    public void Dispose() => _module.Dispose();

    // Queries, two stages of keys and two of values, 64 rows each, a 16-byte chunk of padding a row.
    private static int AttendSharedBytes(int headDim) => 5 * 64 * (headDim + 8) * sizeof(ushort);

    private unsafe void CheckAbi(CudaContext context)
    {
        var (address, bytes) = _module.Global("lriad_abi");
        var sizes = new int[bytes / sizeof(int)];
        fixed (int* host = sizes)
        {
            context.Stream.Download(address, (nint)host, bytes);
            context.Stream.Synchronize();
        }

        if (!sizes.AsSpan().SequenceEqual(Sizes))
        {
            throw new InputException($"{Path} was made for another version of this program: ./build.sh build makes both anew.");
        }
    }
}
