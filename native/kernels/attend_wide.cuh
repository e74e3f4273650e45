// Attention for long stretches of rows on Hopper (Shah et al., FlashAttention-3, 2024): 128 packed rows a tile, 64 for each of two warpgroups, and 128 keys at a time. One
// thread keeps the copy engine busy with the queries, keys and values of tile after tile; while a warpgroup works on the soft-max of some keys, the scores of the next and
// the values of the last are being multiplied.
#pragma once
#include "attend.cuh"
#include "copy.cuh"
#include "wgmma.cuh"

constexpr int kWideRows = 128, kWideKeys = 128, kWideStages = 2, kWideConsumers = 256, kWideThreads = kWideConsumers + 128;

namespace {

// 128 rows of D columns for the matrix units: 64 columns as rows of 128 bytes, 128-byte swizzle; then the other 64 in the same way, or the other 16 as rows of 32 bytes,
// 32-byte swizzle. The other 16 columns of values lie as 64 would, so that all 80 are one multiplication.
template <int D> struct WideShape {
    static_assert(D == 128 || D == 80);
    static constexpr int kFirst = 128 * 128, kTile = 128 * D * 2, kValues = 2 * kFirst, kStages = kTile, kStage = kTile + kValues;
    static constexpr int kBarriers = kStages + kWideStages * kStage, kBytes = kBarriers + 80 + 1024;
};

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void copyQueries(uint32_t to, const TensorMap* map, int column, int head, int row, uint32_t barrier, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, %4, %5}], [%6], %7;"
                 ::"r"(to), "l"(map), "r"(column), "r"(0), "r"(head), "r"(row), "r"(barrier), "l"(policy) : "memory");
}

// Heaviest tiles first, dealt to the blocks to and fro.
__device__ __forceinline__ int wideUnit(int round) { return round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }

// Scores of keys that a thread's two rows do not see, of 128 keys: they see the first see0 and see1.
__device__ __forceinline__ void hide(float (&s)[64], int see0, int see1, int lane) {
#pragma unroll
    for (int n = 0; n < 16; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int key = n * 8 + lane % 4 * 2 + j;
            if (key >= see0) s[n * 4 + j] = -INFINITY;
            if (key >= see1) s[n * 4 + j + 2] = -INFINITY;
        }
}

// Stages, and which of their uses it is.
template <int Stages> struct StageRing {
    int stage = 0, phase = 0;
    __device__ __forceinline__ void next() {
        if (++stage == Stages) { stage = 0; phase ^= 1; }
    }
};
using WideRing = StageRing<kWideStages>;

// Barriers: queries there, queries used; then for each stage keys there, keys used, values there, values used.
struct WideBarriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t queries(int used) const { return base + used * 8; }
    __device__ __forceinline__ uint32_t keys(int stage, int used) const { return base + 16 + stage * 32 + used * 8; }
    __device__ __forceinline__ uint32_t values(int stage, int used) const { return base + 32 + stage * 32 + used * 8; }
};

template <int D> __device__ __forceinline__ void fetchWide(const WideArgs& a, uint32_t base, WideBarriers barriers) {
    using Shape = WideShape<D>;
    const uint64_t once = evictFirst(), often = evictLast();
    const int units = a.tileCount * a.heads;
    WideRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < units; round++) {
        const AttendTile tile = a.tiles[unit / a.heads];
        const int head = unit % a.heads;
        barrierWait(barriers.queries(1), round % 2 ^ 1);
        barrierExpect(barriers.queries(0), a.tileRows * a.perHead * D * 2);
        copyQueries(base, &a.q, 0, head, tile.row, barriers.queries(0), once);
        copyQueries(base + Shape::kFirst, &a.qRest, 64, head, tile.row, barriers.queries(0), once);
        for (KeyWalk<kWideKeys> walk{a.runs + tile.firstRun, tile.runs, 0}; !walk.done(); walk.next(), ring.next()) {
            const int* blocks = a.blocks + walk.run->firstBlock + walk.first / kBlockSlots;
            int block[2] = {blocks[0], 0};
            // In place of keys that are not there any: what is multiplied by nothing must be a number.
            block[1] = walk.first + kBlockSlots < walk.run->keys ? blocks[1] : block[0];
#pragma unroll
            for (int values = 0; values < 2; values++) {
                const uint32_t to = base + Shape::kStages + ring.stage * Shape::kStage + values * Shape::kTile, barrier = values ? barriers.values(ring.stage, 0) : barriers.keys(ring.stage, 0);
                barrierWait(barrier + 8, ring.phase ^ 1);
                barrierExpect(barrier, values ? Shape::kValues : Shape::kTile);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = ((block[half] * 2 + values) * a.heads + head) * kBlockSlots;
                    copyTile(to + half * kBlockSlots * 128, &a.kv, 0, row, barrier, often);
                    // What lies beyond column 80 comes as zeros.
                    if (values) copyTile(to + Shape::kFirst + half * kBlockSlots * 128, &a.kv, 64, row, barrier, often);
                    else copyTile(to + Shape::kFirst + half * kBlockSlots * (D - 64) * 2, &a.kvRest, 64, row, barrier, often);
                }
            }
        }
    }
}

template <int D> __device__ __forceinline__ void multiplyWide(const WideArgs& a, uint32_t base, WideBarriers barriers) {
    using Shape = WideShape<D>;
    const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, units = a.tileCount * a.heads, queries = a.heads * a.perHead;
    const int r0 = group * 64 + warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    const float scale = a.scale * kLog2E;
    auto release = [&](uint32_t barrier) {
        if (lane == 0) barrierArrive(barrier);
    };
    WideRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < units; round++) {
        const AttendTile tile = a.tiles[unit / a.heads];
        KeyWalk<kWideKeys> walk{a.runs + tile.firstRun, tile.runs, 0};
        float o[D / 2] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0, fade0 = 1, fade1 = 1;
        float s[64];
        uint32_t p[8][4];

        auto beginScores = [&]() {
            barrierWait(barriers.keys(ring.stage, 0), ring.phase);
            const uint32_t q = base + group * 64 * 128, k = base + Shape::kStages + ring.stage * Shape::kStage;
            matmulFence();
#pragma unroll
            for (int i = 0; i < 4; i++) matmul128(s, operand(q + i * 32, 1024, 0, kSwizzle128), operand(k + i * 32, 1024, 0, kSwizzle128), i > 0);
            if constexpr (D == 128) {
#pragma unroll
                for (int i = 0; i < 4; i++) matmul128(s, operand(q + Shape::kFirst + i * 32, 1024, 0, kSwizzle128), operand(k + Shape::kFirst + i * 32, 1024, 0, kSwizzle128), 1);
            } else {
                matmul128(s, operand(base + Shape::kFirst + group * 64 * 32, 256, 0, kSwizzle32), operand(k + Shape::kFirst, 256, 0, kSwizzle32), 1);
            }
            matmulCommit();
        };
        auto beginValues = [&](const WideRing& at) {
            barrierWait(barriers.values(at.stage, 0), at.phase);
            const uint32_t v = base + Shape::kStages + at.stage * Shape::kStage + Shape::kTile;
            matmulFence();
#pragma unroll
            for (int k = 0; k < kWideKeys / 16; k++) {
                const uint64_t values = operand(v + k * 16 * 128, 1024, Shape::kFirst, kSwizzle128);
                if constexpr (D == 128) matmulTransposed128(o, p[k], values);
                else matmulTransposed80(o, p[k], values);
            }
            matmulCommit();
        };
        // How many of the next keys the thread's rows see: asked for while nobody waits for the answer.
        int2 seen;
        auto look = [&]() {
            seen = walk.seen(row0, row1);
            walk.next();
        };
        // From scores to weights of the values, in place; what has been added up so far is to fade by the two factors.
        auto softMax = [&]() {
            const auto [see0, see1] = seen;
            if (!__all_sync(~0u, min(see0, see1) >= kWideKeys)) hide(s, see0, see1, lane);
            float new0 = max0, new1 = max1;
#pragma unroll
            for (int n = 0; n < 16; n++) {
                new0 = fmaxf(new0, fmaxf(s[n * 4], s[n * 4 + 1]));
                new1 = fmaxf(new1, fmaxf(s[n * 4 + 2], s[n * 4 + 3]));
            }
#pragma unroll
            for (int offset = 1; offset < 4; offset *= 2) {
                new0 = fmaxf(new0, __shfl_xor_sync(~0u, new0, offset));
                new1 = fmaxf(new1, __shfl_xor_sync(~0u, new1, offset));
            }
            const float shift0 = new0 == -INFINITY ? 0 : new0 * scale, shift1 = new1 == -INFINITY ? 0 : new1 * scale;
            fade0 = power2(max0 * scale - shift0);
            fade1 = power2(max1 * scale - shift1);
            max0 = new0;
            max1 = new1;
            sum0 *= fade0;
            sum1 *= fade1;
#pragma unroll
            for (int n = 0; n < 16; n++) {
                s[n * 4] = power2(s[n * 4] * scale - shift0);
                s[n * 4 + 1] = power2(s[n * 4 + 1] * scale - shift0);
                s[n * 4 + 2] = power2(s[n * 4 + 2] * scale - shift1);
                s[n * 4 + 3] = power2(s[n * 4 + 3] * scale - shift1);
                sum0 += s[n * 4] + s[n * 4 + 1];
                sum1 += s[n * 4 + 2] + s[n * 4 + 3];
            }
        };
        // Operands of a multiplication may not change while it is under way: only when the last one is over do the weights become the next one's.
        auto takeWeights = [&]() {
#pragma unroll
            for (int n = 0; n < 16; n++) {
                p[n / 2][n % 2 * 2] = pack(s[n * 4], s[n * 4 + 1]);
                p[n / 2][n % 2 * 2 + 1] = pack(s[n * 4 + 2], s[n * 4 + 3]);
            }
        };

        look();
        barrierWait(barriers.queries(0), round % 2);
        beginScores();
        matmulWait<0>();
        release(barriers.keys(ring.stage, 1));
        softMax();
        takeWeights();
        while (!walk.done()) {
            const WideRing last = ring;
            ring.next();
            look();
            beginScores();
            beginValues(last);
            matmulWait<1>();
            release(barriers.keys(ring.stage, 1));
            softMax();
            matmulWait<0>();
            release(barriers.values(last.stage, 1));
#pragma unroll
            for (int n = 0; n < D / 8; n++) { o[n * 4] *= fade0; o[n * 4 + 1] *= fade0; o[n * 4 + 2] *= fade1; o[n * 4 + 3] *= fade1; }
            takeWeights();
        }
        release(barriers.queries(1));
        beginValues(ring);
        matmulWait<0>();
        release(barriers.values(ring.stage, 1));
        ring.next();

#pragma unroll
        for (int offset = 1; offset < 4; offset *= 2) {
            sum0 += __shfl_xor_sync(~0u, sum0, offset);
            sum1 += __shfl_xor_sync(~0u, sum1, offset);
        }
        const int head = unit % a.heads, packed = tile.rows * a.perHead;
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int r = r0 + side * 8, row = side ? row1 : row0;
            if (r >= packed) continue;
            const float sum = side ? sum1 : sum0, max = side ? max1 : max0, inverse = 1 / sum;
            const int64_t at = static_cast<int64_t>(tile.row + row) * queries + head * a.perHead + (r - row * a.perHead);
            if (lane % 4 == 0) a.logSumExp[at] = max * a.scale + logf(sum);
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<uint32_t*>(a.o + at * D + n * 8 + lane % 4 * 2) = pack(o[n * 4 + side * 2] * inverse, o[n * 4 + side * 2 + 1] * inverse);
        }
    }
}

template <int D> __device__ __forceinline__ void attendWide(const WideArgs& a) {
    extern __shared__ __align__(1024) char raw[];
    const uint32_t base = (sharedAddress(raw) + 1023) & ~1023u;
    const WideBarriers barriers{base + WideShape<D>::kBarriers};
    letNextStart();
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2 + 4 * kWideStages; i++) barrierInit(barriers.base + i * 8, i % 2 ? kWideConsumers / 32 : 1);
        barrierInitFence();
    }
    __syncthreads();
    waitForEarlier();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) fetchWide<D>(a, base, barriers);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        multiplyWide<D>(a, base, barriers);
    }
}
#endif

}  // namespace

extern "C" __global__ void __launch_bounds__(kWideThreads, 1) lriad_attend_wide_128(const __grid_constant__ WideArgs a) {
#if __CUDA_ARCH__ >= 900
    attendWide<128>(a);
#endif
}
extern "C" __global__ void __launch_bounds__(kWideThreads, 1) lriad_attend_wide_80(const __grid_constant__ WideArgs a) {
#if __CUDA_ARCH__ >= 900
    attendWide<80>(a);
#endif
}
