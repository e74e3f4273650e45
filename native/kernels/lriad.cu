// All kernels, one fatbin.
#include "abi.h"
#include "embed.cuh"
#include "norm.cuh"
#include "qkv.cuh"
#include "attend.cuh"
#include "attend_wide.cuh"
#include "feedforward.cuh"
#include "head.cuh"
#include "read.cuh"
#include "skinny.cuh"

// Sizes of the argument structs, in the order that src/Interop expects them.
extern "C" __device__ const int lriad_abi[] = {
    sizeof(EmbedArgs), sizeof(ConvertArgs), sizeof(NormArgs), sizeof(QkvArgs), sizeof(AttendTile), sizeof(AttendRun), sizeof(AttendMerge), sizeof(AttendArgs),
    sizeof(AttendMergeArgs), sizeof(GatedSiluArgs), sizeof(GeluArgs), sizeof(HeadPart), sizeof(HeadArgs), sizeof(ReadArgs), sizeof(SkinnySegment), sizeof(SkinnyArgs),
    // And what blocks take of shared memory.
    WideTile<128, 128>::kBytes, WideTile<80, 128>::kBytes,
    SkinnyShape<8, 2, 6>::kBytes, SkinnyShape<16, 2, 6>::kBytes, SkinnyShape<32, 2, 5>::kBytes,
};
