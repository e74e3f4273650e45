using System.Runtime.CompilerServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Mirrors of native/kernels/abi.h, which says what the fields mean. Addresses are device addresses.
#pragma warning disable SA1600, CS1591
internal record struct EmbedArgs(nint Ids, nint Table, nint Features, nint X, int Columns, int Reserved = 0);

internal record struct ConvertArgs(nint From, nint To, long Count);

internal record struct NormArgs(
    nint X, nint Weight, nint Bias, nint Y, nint Gather, nint Rows, nint QueryA, nint ValueA, nint LowRank,
    int Columns, int LayerNorm, int GatherStride, int Rank, float Epsilon, int Reserved = 0);

internal record struct QkvArgs(
    nint Q, nint K, nint V, nint Kv, nint Rows, nint Axis, nint Frequency, nint LowRank, nint QueryB, nint ValueB, int Heads, int PerHead, int HeadDim, int Rank);

internal record struct AttendTile(int Row, int Rows, int FirstRun, int Runs, int Slot);

internal record struct AttendRun(int FirstBlock, int Keys, int Limit, int Step);

internal record struct AttendMerge(int Row, int FirstPart, int Parts);

internal record struct AttendArgs(
    nint Q, nint Kv, nint Blocks, nint Tiles, nint Runs, nint O, nint LogSumExp, nint PartialO, nint PartialLogSumExp, int Heads, int PerHead, float Scale, int Reserved = 0);

internal record struct AttendMergeArgs(nint Merges, nint Parts, nint PartialO, nint PartialLogSumExp, nint O, nint LogSumExp, int Heads, int HeadDim);

internal record struct GatedSiluArgs(nint GateUp, nint H, int Rows, int Columns);

internal record struct GeluArgs(nint X, nint H, long Count, int Quick, int Reserved = 0);

internal record struct HeadPart(float Max, float Sum, float Weighted, float Key, int Token);

internal record struct HeadArgs(
    nint Logits, nint Targets, nint Samples, nint Options, nint Parts, nint Floor, nint LastTied, nint Token, nint LogProb, nint Entropy, nint LogSumExp, nint OptionLogProb,
    int Vocabulary, int Splits, int OptionCount, int Reserved = 0);
internal record struct ReadArgs(nint From, nint Sink, long Count);
internal record struct SkinnySegment(nint Weight, nint Bias, nint Residual, nint Y, long Stride, int Outputs, int FirstTile);

internal record struct SkinnyArgs(
    SkinnySegment First, SkinnySegment Second, SkinnySegment Third, nint X, nint Partials, nint Counters, int Segments, int Rows, int Inputs, int Tiles, int Float32, int Reserved = 0);
#pragma warning restore SA1600, CS1591

/// <summary>The kernels, loaded from the fatbin beside the program.</summary>
internal sealed class Kernels : IDisposable
{
    private static readonly string Path = System.IO.Path.Combine(AppContext.BaseDirectory, "lriad.fatbin");

    /// <summary>Rows that the skinny products are made for.</summary>
    public static readonly int[] Skinnies = [8, 16, 32, 64];

    private static readonly int[] Sizes =
    [
        Unsafe.SizeOf<EmbedArgs>(), Unsafe.SizeOf<ConvertArgs>(), Unsafe.SizeOf<NormArgs>(), Unsafe.SizeOf<QkvArgs>(), Unsafe.SizeOf<AttendTile>(), Unsafe.SizeOf<AttendRun>(),
        Unsafe.SizeOf<AttendMerge>(), Unsafe.SizeOf<AttendArgs>(), Unsafe.SizeOf<AttendMergeArgs>(), Unsafe.SizeOf<GatedSiluArgs>(), Unsafe.SizeOf<GeluArgs>(),
        Unsafe.SizeOf<HeadPart>(), Unsafe.SizeOf<HeadArgs>(), Unsafe.SizeOf<ReadArgs>(), Unsafe.SizeOf<SkinnySegment>(), Unsafe.SizeOf<SkinnyArgs>(),
    ];

    private readonly CudaModule _module;

    public Kernels(CudaContext context)
    {
        _module = new CudaModule(System.IO.File.ReadAllBytes(Path));
        CheckAbi(context);
        Embed = _module.Kernel("lriad_embed");
        Convert = _module.Kernel("lriad_convert");
        Norm = _module.Kernel("lriad_norm");
        Qkv = _module.Kernel("lriad_qkv");
        Attend128 = _module.Kernel("lriad_attend_128", AttendSharedBytes(128));
        Attend80 = _module.Kernel("lriad_attend_80", AttendSharedBytes(80));
        AttendMerge = _module.Kernel("lriad_attend_merge");
        GatedSilu = _module.Kernel("lriad_gated_silu");
        Gelu = _module.Kernel("lriad_gelu");
        HeadTruncate = _module.Kernel("lriad_head_truncate");
        HeadParts = _module.Kernel("lriad_head_parts");
        HeadFinish = _module.Kernel("lriad_head_finish");
        Read = _module.Kernel("lriad_read");
        Skinny = [.. Skinnies.Select(rows => _module.Kernel($"lriad_skinny_{rows}", SkinnySharedBytes(rows)))];
    }

    public CudaKernel Embed { get; }

    public CudaKernel Convert { get; }

    public CudaKernel Norm { get; }

    public CudaKernel Qkv { get; }

    public CudaKernel Attend128 { get; }

    public CudaKernel Attend80 { get; }

    public CudaKernel AttendMerge { get; }

    public CudaKernel GatedSilu { get; }

    public CudaKernel Gelu { get; }

    public CudaKernel HeadTruncate { get; }

    public CudaKernel HeadParts { get; }

    public CudaKernel HeadFinish { get; }

    public CudaKernel Read { get; }

    /// <summary>Products for up to as many rows as <see cref="Skinnies"/> says.</summary>
    public CudaKernel[] Skinny { get; }

    /// <summary>Why they cannot be loaded, or null.</summary>
    public static string? Unavailable() => System.IO.File.Exists(Path) ? null : $"this build has no CUDA kernels ({Path} does not exist; ./build.sh kernels compiles them)";

    public void Dispose() => _module.Dispose();

    // Queries, two stages of keys and two of values, 64 rows each, a 16-byte chunk of padding a row.
    private static int AttendSharedBytes(int headDim) => 5 * 64 * (headDim + 8) * sizeof(ushort);

    // Stages of 128 weight rows and the activations, 128 bytes each, and the results on their way out; see skinny.cuh.
    private static int SkinnySharedBytes(int rows) => ((rows switch { 8 => 6, 16 => 5, 32 => 4, _ => 3 }) * (128 + rows) * 128) + (rows * 132 * sizeof(float));

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
