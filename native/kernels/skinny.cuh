// Products of a few rows with a large weight matrix: y = x · Wᵀ (+ bias) (+ residual). The weights are streamed from memory once, and everything else hides
// behind that stream.
//
// All pieces (the rows of a tile × 64 columns) of all weight matrices of a launch are put in one line, which is cut into equal runs, one a block: every block
// streams the same number of bytes, whatever the shape. An output tile that lies in several blocks' runs is left as float32 partial sums, which the last of
// them to arrive adds up in the order of the blocks. Runs depend on the shape alone, so a row's result does not depend on its neighbours.
//
// One warp keeps the copy engine busy, several stages ahead; the others multiply. Weights are the left operand (16 rows at a time), activations the right one.
#pragma once
#include "common.cuh"
#include "copy.cuh"

constexpr int kSkinnyDepth = 64;

namespace {

// Eight 16-byte chunks a row; the copy engine puts chunk c of row r at place c ^ (r mod 8), so that matrix loads do not meet in a bank.
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

template <int N, int Warps, int Stages> struct SkinnyShape {
    static constexpr int kThreads = (Warps + 1) * 32, kTile = Warps * 32, kWeights = kTile * 128, kStage = kWeights + N * 128;
    // Results on their way out, a padded row a row of x.
    static constexpr int kOutStride = kTile + 4, kOut = Stages * kStage, kBarriers = kOut + N * kOutStride * 4, kBytes = kBarriers + Stages * 16 + 1024;
    static_assert(kBytes <= 227 * 1024);
};

// The first of the line's pieces that a block gets.
__device__ __forceinline__ int runStart(int64_t block, int pieces, int blocks) { return static_cast<int>(block * pieces / blocks); }

template <int N, int Warps, int Stages> __device__ __forceinline__ void skinny(const SkinnyArgs& a) {
#if __CUDA_ARCH__ >= 900
    using Shape = SkinnyShape<N, Warps, Stages>;
    constexpr int kTile = Shape::kTile, kConsumers = Warps * 32, kTogether = 8;
    extern __shared__ __align__(1024) char raw[];
    __shared__ bool last;
    // The copy engine's swizzle counts rows from multiples of 1,024 bytes.
    char* shared = raw + (1024 - (sharedAddress(raw) & 1023)) % 1024;
    const uint32_t base = sharedAddress(shared), full = base + Shape::kBarriers, empty = full + Stages * 8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, blocks = gridDim.x;
    const int depth = a.inputs / kSkinnyDepth, pieces = a.tiles * depth;
    const int begin = runStart(blockIdx.x, pieces, blocks), end = runStart(blockIdx.x + 1, pieces, blocks);
    auto segmentOf = [&](int tile) { return (a.segmentCount > 1 && tile >= a.segments[1].firstTile) + (a.segmentCount > 2 && tile >= a.segments[2].firstTile); };

    letNextStart();
    if (threadIdx.x == 0) {
        for (int s = 0; s < Stages; s++) {
            barrierInit(full + s * 8, 1);
            barrierInit(empty + s * 8, Warps);
        }
        barrierInitFence();
    }
    __syncthreads();

    if (warp == Warps) {
        if (lane != 0) return;
        const uint64_t once = evictFirst(), often = evictLast();
        auto fetchWeights = [&](int piece, int stage) {
            const int tile = piece / depth, segment = segmentOf(tile);
            barrierExpect(full + stage * 8, Shape::kStage);
            copyTile(base + stage * Shape::kStage, &a.weightMaps[segment], (piece - tile * depth) * kSkinnyDepth, (tile - a.segments[segment].firstTile) * kTile, full + stage * 8, once);
        };
        auto fetchX = [&](int piece, int stage) {
            copyTile(base + stage * Shape::kStage + Shape::kWeights, &a.xMap, piece % depth * kSkinnyDepth, 0, full + stage * 8, often);
        };
        // Weights change for nobody: as many as there is room for come before the kernels in front have finished.
        const int ahead = min(Stages, end - begin);
        for (int s = 0; s < ahead; s++) fetchWeights(begin + s, s);
        waitForEarlier();
        for (int s = 0; s < ahead; s++) fetchX(begin + s, s);
        for (int piece = begin + ahead, stage = 0, phase = 0; piece < end; piece++) {
            barrierWait(empty + stage * 8, phase);
            fetchWeights(piece, stage);
            fetchX(piece, stage);
            if (++stage == Stages) { stage = 0; phase ^= 1; }
        }
        return;
    }
    waitForEarlier();

    float* out = reinterpret_cast<float*>(shared + Shape::kOut);
    int stage = 0, phase = 0;
    for (int piece = begin; piece < end;) {
        const int tile = piece / depth, tileBegin = tile * depth, tileEnd = tileBegin + depth, from = piece, to = min(end, tileEnd);
        float sums[2][N / 8][4] = {};
        for (; piece < to; piece++) {
            barrierWait(full + stage * 8, phase);
            const uint32_t weights = base + stage * Shape::kStage, x = weights + Shape::kWeights;
#pragma unroll
            for (int k = 0; k < kSkinnyDepth / 16; k++) {
                uint32_t w[2][4];
#pragma unroll
                for (int m = 0; m < 2; m++) loadMatrix4(w[m], weights + swizzled(warp * 32 + m * 16 + lane % 16, k * 2 + lane / 16));
                if constexpr (N == 8) {
                    uint32_t b[4];
                    // Only the first two matrices are used; the lanes of the others point to valid rows.
                    loadMatrix4(b, x + swizzled(lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
                    for (int m = 0; m < 2; m++) multiplyAdd(sums[m][0], w[m], b[0], b[1]);
                } else {
#pragma unroll
                    for (int n = 0; n < N / 8; n += 2) {
                        uint32_t b[4];
                        loadMatrix4(b, x + swizzled(n * 8 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
#pragma unroll
                        for (int m = 0; m < 2; m++) {
                            multiplyAdd(sums[m][n], w[m], b[0], b[1]);
                            multiplyAdd(sums[m][n + 1], w[m], b[2], b[3]);
                        }
                    }
                }
            }
            __syncwarp();
            if (lane == 0) barrierArrive(empty + stage * 8);
            if (++stage == Stages) { stage = 0; phase ^= 1; }
        }

        // The way out: through shared memory, so that neighbouring threads hold neighbouring outputs. The next tile is on its way meanwhile.
        const SkinnySegment& segment = a.segments[segmentOf(tile)];
        namedBarrier<1, kConsumers>();
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[(n * 8 + lane % 4 * 2 + i % 2) * Shape::kOutStride + warp * 32 + m * 16 + lane / 4 + i / 2 * 8] = sums[m][n][i];
        namedBarrier<1, kConsumers>();

        bool mine = from == tileBegin && to == tileEnd;
        if (!mine) {
            // A block has at most two tiles that are not its own: the one it begins in and the one it ends in.
            float* partial = a.partials + (static_cast<int64_t>(blockIdx.x) * 2 + (from == begin ? 0 : 1)) * N * kTile;
            for (int i = threadIdx.x; i < N * kTile / 4; i += kConsumers)
                reinterpret_cast<float4*>(partial)[i] = *reinterpret_cast<const float4*>(out + i / (kTile / 4) * Shape::kOutStride + i % (kTile / 4) * 4);
            __threadfence();
            namedBarrier<1, kConsumers>();
            int firstBlock = static_cast<int>(static_cast<int64_t>(tileBegin) * blocks / pieces), lastBlock = static_cast<int>(static_cast<int64_t>(tileEnd - 1) * blocks / pieces);
            while (firstBlock + 1 < blocks && runStart(firstBlock + 1, pieces, blocks) <= tileBegin) firstBlock++;
            while (lastBlock + 1 < blocks && runStart(lastBlock + 1, pieces, blocks) <= tileEnd - 1) lastBlock++;
            if (threadIdx.x == 0) {
                last = atomicAdd(a.counters + tile, 1) == lastBlock - firstBlock;
                if (last) a.counters[tile] = 0;
            }
            namedBarrier<1, kConsumers>();
            mine = last;
            if (mine) {
                __threadfence();
                // Of the others it is the tile they begin in; the first may end in it. Loads go out together, sums are taken in order.
                const float* parts = a.partials + static_cast<int64_t>(firstBlock) * 2 * N * kTile;
                const int firstSlot = runStart(firstBlock, pieces, blocks) < tileBegin ? 1 : 0, count = lastBlock - firstBlock + 1;
                for (int i = threadIdx.x; i < N * kTile / 4; i += kConsumers) {
                    float4 sum = {};
                    for (int part = 0; part < count; part += kTogether) {
                        float4 some[kTogether];
#pragma unroll
                        for (int p = 0; p < kTogether; p++)
                            if (part + p < count) some[p] = __ldcg(reinterpret_cast<const float4*>(parts + static_cast<int64_t>((part + p) * 2 + (part + p == 0 ? firstSlot : 0)) * N * kTile) + i);
#pragma unroll
                        for (int p = 0; p < kTogether; p++)
                            if (part + p < count) { sum.x += some[p].x; sum.y += some[p].y; sum.z += some[p].z; sum.w += some[p].w; }
                    }
                    *reinterpret_cast<float4*>(out + i / (kTile / 4) * Shape::kOutStride + i % (kTile / 4) * 4) = sum;
                }
                namedBarrier<1, kConsumers>();
            }
        }
        if (mine) {
            const int first = (tile - segment.firstTile) * kTile;
            for (int i = threadIdx.x; i < N * kTile / 2; i += kConsumers) {
                const int row = i / (kTile / 2), column = i % (kTile / 2) * 2, output = first + column;
                if (row >= a.rows || output >= segment.outputs) continue;
                float2 value = *reinterpret_cast<const float2*>(out + row * Shape::kOutStride + column);
                if (segment.bias) {
                    const float2 bias = unpack(*reinterpret_cast<const uint32_t*>(segment.bias + output));
                    value.x += bias.x;
                    value.y += bias.y;
                }
                if (segment.residual) {
                    const float2 residual = unpack(*reinterpret_cast<const uint32_t*>(segment.residual + row * segment.stride + output));
                    value.x += residual.x;
                    value.y += residual.y;
                }
                if (a.float32) *reinterpret_cast<float2*>(static_cast<float*>(segment.y) + row * segment.stride + output) = value;
                else *reinterpret_cast<uint32_t*>(static_cast<bf16*>(segment.y) + row * segment.stride + output) = pack(value.x, value.y);
            }
        }
    }
#endif
}

}  // namespace

#define SKINNY(N, Warps, Stages, Blocks)                                                                                    \
    extern "C" __global__ void __launch_bounds__(SkinnyShape<N, Warps, Stages>::kThreads, Blocks)                           \
        lriad_skinny_##N(const __grid_constant__ SkinnyArgs a) { skinny<N, Warps, Stages>(a); }
SKINNY(8, 2, 6, 3)
SKINNY(16, 2, 6, 3)
SKINNY(32, 2, 5, 3)
#undef SKINNY
