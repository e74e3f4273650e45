using System.Runtime.InteropServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// Mirrors of native/kernels/abi.h, which says what the fields mean. Addresses are device addresses.
internal record struct EmbedArgs(nint Ids, nint Table, nint Features, nint X, int Columns, int Reserved = 0);

internal record struct ConvertArgs(nint From, nint To, long Count);

[StructLayout(LayoutKind.Sequential)]
internal record struct PixelsArgs(nint Levels, nint Values, nint Pixels, int Patches, int Area, int Frames, int Reserved = 0);

internal record struct NormArgs(nint X, nint Weight, nint Bias, nint Y, nint Gather, int Count, int Columns, int LayerNorm, int GatherStride, float Epsilon, int Reserved = 0);

internal record struct NormBackwardArgs(nint X, nint Weight, nint Dy, nint Residual, nint Dx, nint Rounded, nint Gather, int Count, int Columns, int GatherStride, float Epsilon);

internal record struct GatedSiluBackwardArgs(nint GateUp, nint Dh, nint DGateUp, int Rows, int Columns);

internal record struct QkvBackwardArgs(nint Dq, nint DKv, nint DQkv, nint Rows, nint Axis, nint Frequency, int Heads, int PerHead, int HeadDim, int Reserved = 0);

internal record struct HeadBackwardArgs(nint Logits, nint Targets, nint LogSumExp, nint DLogProb, nint DLogits, int Vocabulary, int Reserved = 0);

internal record struct DropoutArgs(nint Rows, nint Mask, uint KeyLow, uint KeyHigh, uint Counter, uint Step, uint Threshold, int Words);

internal record struct LowRankSide(nint Factor, nint Mask, int Offset, int Columns, int RowStride, int ColumnStride);

internal record struct LowRankArgs(LowRankSide Query, LowRankSide Value, nint X, nint Rows, nint Out, int Count, int Stride, int Rank, float Scale);

internal record struct FactorSide(nint Gradient, nint Mask, long FirstPartial, int Offset, int Columns, int RowStride, int ColumnStride);

internal record struct FactorGradientArgs(FactorSide Query, FactorSide Value, nint X, nint S, nint Partials, int Count, int Stride, int Rank, int SplitRows, int Splits, float Scale);

internal record struct LowRankBackwardArgs(nint Dx, nint S, nint QueryA, nint ValueA, nint QueryMask, nint ValueMask, int Count, int Columns, int Rank, float Scale);

internal record struct QkvArgs(
    nint Qkv, nint Q, nint Kv, nint Rows, nint Axis, nint Frequency, nint LowRank, nint QueryB, nint ValueB, int Heads, int PerHead, int HeadDim, int Rank);

internal record struct QkvAdapterArgs(QkvArgs Qkv, int Count, int Strip);

internal record struct AttendTile(int Row, int Rows, int FirstRun, int Runs, int Slot);

internal record struct AttendRun(int FirstBlock, int Keys, int Limit, int Step);

internal record struct AttendMerge(int Row, int FirstPart, int Parts);

internal record struct AttendArgs(
    nint Q, nint Kv, nint Blocks, nint Tiles, nint Runs, nint O, nint LogSumExp, nint PartialO, nint PartialLogSumExp, int Heads, int PerHead, float Scale, int Reserved = 0);

internal record struct AttendMergeArgs(nint Merges, nint Parts, nint PartialO, nint PartialLogSumExp, nint O, nint LogSumExp, int Heads, int HeadDim);

internal record struct KeyTile(int Block, int SecondBlock, int Slot, int SecondSlot, int FirstRun, int Runs);

internal record struct RowRun(int Row, int Rows, int Keys, int Limit, int Step);

internal record struct KeyMerge(int Block, int FirstSlot, int Slots);

internal record struct AttendBackwardArgs(
    nint Q, nint Kv, nint DO, nint LogSumExp, nint Blocks, nint Tiles, nint Runs, nint KeyTiles, nint RowRuns, nint Stats, nint Dq, nint DKv, nint Partials,
    int Rows, int Heads, int PerHead, float Scale);

internal record struct KeyMergeArgs(nint Merges, nint Partials, nint DKv, long BlockFloats);

internal record struct GatedSiluArgs(nint GateUp, nint H, int Rows, int Columns);

internal record struct GeluArgs(nint X, nint H, long Count, int Quick, int Reserved = 0);

internal record struct HeadPart(float Max, float Sum, float Weighted, float Key, int Token);

internal record struct HeadArgs(
    nint Logits, nint Targets, nint Samples, nint Options, nint Parts, nint Floor, nint LastTied, nint Token, nint LogProb, nint Entropy, nint LogSumExp, nint OptionLogProb,
    nint Masks, nint TopToken, nint TopLogProb, int Vocabulary, int Splits, int OptionCount, int TopCount);
internal record struct ReadArgs(nint From, nint Sink, long Count);

internal unsafe struct WideArgs
{
    public TensorMap Q;
    public TensorMap QRest;
    public TensorMap Kv;
    public TensorMap KvRest;
    public nint Blocks;
    public nint Tiles;
    public nint Runs;
    public nint O;
    public nint LogSumExp;
    public int TileCount;
    public int Heads;
    public int PerHead;
    public int TileRows;
    public float Scale;
    public fixed int Reserved[17];
}

internal unsafe struct PartArgs
{
    public TensorMap Q;
    public TensorMap Kv;
    public nint Tiles;
    public nint PartialO;
    public nint PartialLogSumExp;
    public int Count;
    public int Heads;
    public int PerHead;
    public int BoxRows;
    public float Scale;
    public fixed int Reserved[21];
}

internal unsafe struct BackwardWideArgs
{
    public TensorMap Q;
    public TensorMap DO;
    public TensorMap Kv;
    public AttendBackwardArgs Args;
    public int Units;
    public int BoxRows;
    public fixed int Reserved[32];
}

internal enum ProductActivation
{
    QuickGelu,
    GatedSilu,
}

internal unsafe struct ProductArgs
{
    public TensorMap X;
    public TensorMap W;
    public nint Bias;
    public nint Y;
    public nint GateUp;
    public int Rows;
    public int Outputs;
    public int Depth;
    public ProductActivation Activation;
    public int RowTiles;
    public int ColumnTiles;
    public int Across;
    public int Band;
    public fixed int Reserved[18];
}

internal record struct Sums(nint Partials, nint TileSegment, nint Stats, int StatTiles, int StatWidth, float InverseColumns, float Epsilon);

internal enum ProductFinish
{
    Nothing,
    Gated,
    Floats,
}

internal record struct ProductOp(
    nint Weight0, nint Weight1, nint Weight2, nint X, nint FirstPiece, nint FirstSegment, Sums Sums, nint Y, int SecondTile, int ThirdTile, int Depth, int Rows, ProductFinish Finish, int Columns,
    int Whole, int Shared, int Round, int BoxRows);

internal record struct ResidualOp(
    Sums Sums, nint X, nint Weight, nint Result, nint Y, nint Stats, nint Gather, nint Rows, nint QueryA, nint ValueA, int Count, int Columns, int GatherStride, int Rank);

internal record struct RotateOp(
    Sums Sums, nint QueryBias, nint KeyBias, nint ValueBias, nint Q, nint Kv, nint Rows, nint Axis, nint Frequency, nint QueryB, nint ValueB, int Count, int Heads, int PerHead, int Rank);

internal record struct StepTile(int Row, int Rows, int Slot, int Keys, int Limit, int Step, int Block0, int Block1, int Fresh);

internal record struct AttendOp(nint Kv, nint Cache, nint Q, nint Tiles, nint PartialO, nint PartialLogSumExp, int Count, int Heads, int PerHead, float Scale);

internal record struct MergeOp(AttendMergeArgs Args, int Merges, int Reserved = 0);

internal record struct EmbedOp(EmbedArgs Args, int Rows, int Reserved = 0);

internal enum StepKind
{
    Product,
    Residual,
    Rotate,
    Attend,
    Merge,
    Embed,
}

[StructLayout(LayoutKind.Explicit, Size = 144)]
internal struct StepOp
{
    [FieldOffset(0)]
    public StepKind Kind;

    [FieldOffset(4)]
    public int Index;

    [FieldOffset(8)]
    public ProductOp Product;

    [FieldOffset(8)]
    public ResidualOp Residual;

    [FieldOffset(8)]
    public RotateOp Rotate;

    [FieldOffset(8)]
    public AttendOp Attend;

    [FieldOffset(8)]
    public MergeOp Merge;

    [FieldOffset(8)]
    public EmbedOp Embed;
}

internal record struct StepArgs(nint Ops, nint Arrived, int Count, int Reserved = 0);
