// All kernels, one fatbin.
#include "abi.h"
#include "embed.cuh"
#include "norm.cuh"
#include "qkv.cuh"
#include "adapter.cuh"
#include "backward.cuh"
#include "attend.cuh"
#include "attend_wide.cuh"
#include "attend_part.cuh"
#include "attend_backward_wide.cuh"
#include "feedforward.cuh"
#include "head.cuh"
#include "head_truncate.cuh"
#include "head_scored.cuh"
#include "read.cuh"
#include "step.cuh"
#include "product.cuh"

// Sizes of the argument structs, in the order that src/Interop expects them.
extern "C" __device__ const int lriad_abi[] = {
    sizeof(EmbedArgs), sizeof(ConvertArgs), sizeof(PixelsArgs), sizeof(NormArgs), sizeof(QkvArgs), sizeof(QkvAdapterArgs), sizeof(AttendTile), sizeof(AttendRun), sizeof(AttendMerge), sizeof(AttendArgs),
    sizeof(AttendMergeArgs), sizeof(KeyTile), sizeof(RowRun), sizeof(KeyMerge), sizeof(AttendBackwardArgs), sizeof(KeyMergeArgs),
    sizeof(GatedSiluArgs), sizeof(GeluArgs), sizeof(HeadPart), sizeof(HeadArgs), sizeof(ReadArgs), sizeof(WideArgs), sizeof(ProductArgs), sizeof(ProductOp), sizeof(ResidualOp), sizeof(RotateOp),
    sizeof(StepTile), sizeof(AttendOp), sizeof(MergeOp), sizeof(EmbedOp), sizeof(StepOp), sizeof(StepArgs),
    sizeof(NormBackwardArgs), sizeof(GatedSiluBackwardArgs), sizeof(QkvBackwardArgs), sizeof(HeadBackwardArgs), sizeof(DropoutArgs), sizeof(LowRankArgs), sizeof(FactorGradientArgs), sizeof(LowRankBackwardArgs), sizeof(BackwardWideArgs), sizeof(PartArgs),
    // And what blocks take of shared memory.
    WideShape<128>::kBytes, WideShape<80>::kBytes,
    kProductBytes,
    StepShape<8>::kBytes, StepShape<64>::kBytes,
    kPartBytes, kBackwardRowsBytes, kBackwardKeysBytes, BackwardRowsShape::kBytes, BackwardKeysShape::kBytes,
};
