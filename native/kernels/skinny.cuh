// Products of a few rows with a large weight matrix: y = x · Wᵀ (+ bias) (+ residual). The weights are streamed from memory once, and everything else hides
// behind that stream.
//
// All 128 × 64 pieces of all weight matrices of a launch are put in one line, which is cut into equal runs, one a block: every block streams the same number of
// bytes, whatever the shape. An output tile that lies in several blocks' runs is left as float32 partial sums, which the last of them to arrive adds up in the
// order of the blocks. Runs depend on the shape alone, so a row's result does not depend on its neighbours.
#pragma once
#include "common.cuh"

constexpr int kSkinnyThreads = 128, kSkinnyTile = 128, kSkinnyDepth = 64;

namespace {

// Eight 16-byte chunks a row; chunk c of row r lies at place c ^ (r mod 8), so that neither copies nor matrix loads meet in a bank.
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

template <int N> struct SkinnyShared {
    // As many stages as let two blocks live on a multiprocessor, beside the results on their way out.
    static constexpr int kStages = N == 8 ? 6 : N == 16 ? 5 : N == 32 ? 4 : 3, kWeights = kSkinnyTile * 128, kStage = kWeights + N * 128;
    static constexpr int kOutStride = kSkinnyTile + 4, kOut = kStages * kStage, kBytes = kOut + N * kOutStride * 4;
    static_assert(kBytes <= 112 * 1024);
};

// The first of the line's pieces that a block gets.
__device__ __forceinline__ int runStart(int64_t block, int pieces, int blocks) { return static_cast<int>(block * pieces / blocks); }

template <int N> __device__ __forceinline__ void skinny(const SkinnyArgs& a) {
    using Shared = SkinnyShared<N>;
    extern __shared__ __align__(1024) char shared[];
    __shared__ bool last;
    const uint32_t base = sharedAddress(shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, blocks = gridDim.x;
    const int depth = a.inputs / kSkinnyDepth, pieces = a.tiles * depth;
    const int begin = runStart(blockIdx.x, pieces, blocks), end = runStart(blockIdx.x + 1, pieces, blocks);

    auto segmentOf = [&](int tile) -> const SkinnySegment& {
        return a.segments[(a.segmentCount > 1 && tile >= a.segments[1].firstTile) + (a.segmentCount > 2 && tile >= a.segments[2].firstTile)];
    };
    auto fetch = [&](int piece, int stage) {
        if (piece < end) {
            const int tile = piece / depth, k = (piece - tile * depth) * kSkinnyDepth;
            const SkinnySegment& segment = segmentOf(tile);
            const int first = (tile - segment.firstTile) * kSkinnyTile;
            const uint32_t to = base + stage * Shared::kStage;
            const bf16* weight = segment.weight + static_cast<int64_t>(first) * a.inputs + k;
#pragma unroll
            for (int i = 0; i < kSkinnyTile * 8 / kSkinnyThreads; i++) {
                const int c = i * kSkinnyThreads + threadIdx.x, row = c / 8, chunk = c % 8;
                const bool there = first + row < segment.outputs;
                copyAsync(to + swizzled(row, chunk), there ? weight + static_cast<int64_t>(row) * a.inputs + chunk * 8 : segment.weight, there);
            }
#pragma unroll
            for (int i = 0; i < (N * 8 + kSkinnyThreads - 1) / kSkinnyThreads; i++) {
                const int c = i * kSkinnyThreads + threadIdx.x, row = c / 8, chunk = c % 8;
                if (N * 8 % kSkinnyThreads != 0 && c >= N * 8) break;
                const bool there = row < a.rows;
                copyAsync(to + Shared::kWeights + swizzled(row, chunk), there ? a.x + static_cast<int64_t>(row) * a.inputs + k + chunk * 8 : a.x, there);
            }
        }
        copyCommit();
    };

#pragma unroll
    for (int stage = 0; stage < Shared::kStages - 1; stage++) fetch(begin + stage, stage);

    int stage = 0;
    for (int piece = begin; piece < end;) {
        const int tile = piece / depth, tileBegin = tile * depth, tileEnd = tileBegin + depth, from = piece, to = min(end, tileEnd);
        float sums[2][N / 8][4] = {};
        for (; piece < to; piece++) {
            copyWait<Shared::kStages - 2>();
            __syncthreads();
            fetch(piece + Shared::kStages - 1, (stage + Shared::kStages - 1) % Shared::kStages);
            const uint32_t weights = base + stage * Shared::kStage, x = weights + Shared::kWeights;
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
            stage = (stage + 1) % Shared::kStages;
        }

        // The way out: through shared memory, so that neighbouring threads hold neighbouring outputs. The next tile is on its way meanwhile.
        const SkinnySegment& segment = segmentOf(tile);
        float* out = reinterpret_cast<float*>(shared + Shared::kOut);
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < N / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[(n * 8 + lane % 4 * 2 + i % 2) * Shared::kOutStride + warp * 32 + m * 16 + lane / 4 + i / 2 * 8] = sums[m][n][i];
        __syncthreads();

        const bool whole = from == tileBegin && to == tileEnd;
        bool mine = whole;
        if (!whole) {
            // A block has at most two tiles that are not its own: the one it begins in and the one it ends in.
            float* partial = a.partials + (static_cast<int64_t>(blockIdx.x) * 2 + (from == begin ? 0 : 1)) * N * kSkinnyTile;
            for (int i = threadIdx.x; i < N * kSkinnyTile / 4; i += kSkinnyThreads)
                reinterpret_cast<float4*>(partial)[i] = *reinterpret_cast<const float4*>(out + i / (kSkinnyTile / 4) * Shared::kOutStride + i % (kSkinnyTile / 4) * 4);
            __threadfence();
            __syncthreads();
            int firstBlock = static_cast<int>(static_cast<int64_t>(tileBegin) * blocks / pieces), lastBlock = static_cast<int>(static_cast<int64_t>(tileEnd - 1) * blocks / pieces);
            while (firstBlock + 1 < blocks && runStart(firstBlock + 1, pieces, blocks) <= tileBegin) firstBlock++;
            while (lastBlock + 1 < blocks && runStart(lastBlock + 1, pieces, blocks) <= tileEnd - 1) lastBlock++;
            if (threadIdx.x == 0) {
                last = atomicAdd(a.counters + tile, 1) == lastBlock - firstBlock;
                if (last) a.counters[tile] = 0;
            }
            __syncthreads();
            mine = last;
            if (mine) {
                __threadfence();
                for (int i = threadIdx.x; i < N * kSkinnyTile / 4; i += kSkinnyThreads) {
                    float4 sum = {};
                    for (int block = firstBlock; block <= lastBlock; block++) {
                        const bool begins = runStart(block, pieces, blocks) >= tileBegin;
                        const float4 part = __ldcg(reinterpret_cast<const float4*>(a.partials + (static_cast<int64_t>(block) * 2 + (begins ? 0 : 1)) * N * kSkinnyTile) + i);
                        sum.x += part.x; sum.y += part.y; sum.z += part.z; sum.w += part.w;
                    }
                    *reinterpret_cast<float4*>(out + i / (kSkinnyTile / 4) * Shared::kOutStride + i % (kSkinnyTile / 4) * 4) = sum;
                }
                __syncthreads();
            }
        }
        if (mine) {
            const int first = (tile - segment.firstTile) * kSkinnyTile;
            for (int i = threadIdx.x; i < N * kSkinnyTile / 2; i += kSkinnyThreads) {
                const int row = i / (kSkinnyTile / 2), column = i % (kSkinnyTile / 2) * 2, output = first + column;
                if (row >= a.rows || output >= segment.outputs) continue;
                float2 value = *reinterpret_cast<const float2*>(out + row * Shared::kOutStride + column);
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
        __syncthreads();
    }
}

}  // namespace

#define SKINNY(N) \
    extern "C" __global__ void __launch_bounds__(kSkinnyThreads, 2) lriad_skinny_##N(const __grid_constant__ SkinnyArgs a) { skinny<N>(a); }
SKINNY(8)
SKINNY(16)
SKINNY(32)
SKINNY(64)
#undef SKINNY
