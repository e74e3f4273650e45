// The backward of attention on Hopper: the passes of attend_backward.cuh with tiles of 128 packed rows or 128 keys, 64 for each of two warpgroups, which the copy engine feeds
// as it does forward (attend_wide.cuh). Scores and dp of some rows and keys stay in registers, where they become the left operand of what is added to dq, or dk and dv:
// the keys' pass has them transposed, keys by rows. While one warpgroup turns scores into weights the other one multiplies.
#pragma once
#include "attend_backward.cuh"
#include "attend_wide.cuh"

constexpr int kStepRows = 64, kStepStages = 4;

namespace {

// Shared memory of the rows' pass: queries, dO, two stages of keys and values. Barriers: rows there, rows used; of each stage keys there, keys used, values there, values used.
// That of the keys' pass: keys, values, four stages of queries, dO and what is known of them. Barriers: keys there, keys used; of each stage rows there, rows used.
struct BackwardRowsShape {
    static constexpr int kHalf = 128 * 128, kTile = 2 * kHalf, kStages = 2 * kTile, kBarriers = kStages + kWideStages * 2 * kTile, kBytes = kBarriers + 80 + 1024;
};
struct BackwardKeysShape {
    static constexpr int kHalf = kStepRows * 128, kTile = 2 * kHalf, kKeys = 128 * 256, kStages = 2 * kKeys, kStats = kStages + kStepStages * 2 * kTile;
    static constexpr int kBarriers = kStats + kStepStages * kStepRows * 8, kBytes = kBarriers + 80 + 1024;
};

#if __CUDA_ARCH__ >= 900
// c[64 × 128] or [64 × 64] = a · bᵀ over 128 columns, the second 64 of which lie further on by `nextA` and `nextB`.
__device__ __forceinline__ void matmulRows128(float (&c)[64], uint32_t a, uint32_t b, int nextA, int nextB) {
#pragma unroll
    for (int i = 0; i < 8; i++) matmul128(c, operand(a + i / 4 * nextA + i % 4 * 32, 1024, 0, kSwizzle128), operand(b + i / 4 * nextB + i % 4 * 32, 1024, 0, kSwizzle128), i > 0);
}
__device__ __forceinline__ void matmulRows64(float (&c)[32], uint32_t a, uint32_t b, int nextA, int nextB) {
#pragma unroll
    for (int i = 0; i < 8; i++) matmul64(c, operand(a + i / 4 * nextA + i % 4 * 32, 1024, 0, kSwizzle128), operand(b + i / 4 * nextB + i % 4 * 32, 1024, 0, kSwizzle128), i > 0);
}

// A tile of keys and a tile of values, 64 rows each.
__device__ __forceinline__ void copyPage(const BackwardWideArgs& w, uint32_t to, int next, int block, int values, int head, uint32_t barrier, uint64_t policy) {
    const int row = ((block * 2 + values) * w.args.heads + head) * kBlockSlots;
    copyTile(to, &w.kv, 0, row, barrier, policy);
    copyTile(to + next, &w.kv, 64, row, barrier, policy);
}

__device__ __forceinline__ void fetchBackwardRows(const BackwardWideArgs& w, uint32_t base, WideBarriers barriers) {
    using Shape = BackwardRowsShape;
    const AttendBackwardArgs& a = w.args;
    const uint64_t once = evictFirst(), often = evictLast();
    WideRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < w.units; round++) {
        const AttendTile tile = a.tiles[unit / a.heads];
        const int head = unit % a.heads;
        barrierWait(barriers.queries(1), round % 2 ^ 1);
        barrierExpect(barriers.queries(0), 2 * w.boxRows * a.perHead * 256);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            copyQueries(base + half * Shape::kHalf, &w.q, half * 64, head, tile.row, barriers.queries(0), once);
            copyQueries(base + Shape::kTile + half * Shape::kHalf, &w.dO, half * 64, head, tile.row, barriers.queries(0), once);
        }
        for (KeyWalk<kWideKeys> walk{a.runs + tile.firstRun, tile.runs, 0}; !walk.done(); walk.next(), ring.next()) {
            const int* blocks = a.blocks + walk.run->firstBlock + walk.first / kBlockSlots;
            const int block0 = blocks[0], block1 = walk.first + kBlockSlots < walk.run->keys ? blocks[1] : block0;
#pragma unroll
            for (int values = 0; values < 2; values++) {
                const uint32_t to = base + Shape::kStages + (ring.stage * 2 + values) * Shape::kTile, barrier = values ? barriers.values(ring.stage, 0) : barriers.keys(ring.stage, 0);
                barrierWait(barrier + 8, ring.phase ^ 1);
                barrierExpect(barrier, Shape::kTile);
                copyPage(w, to, Shape::kHalf, block0, values, head, barrier, often);
                copyPage(w, to + kBlockSlots * 128, Shape::kHalf, block1, values, head, barrier, often);
            }
        }
    }
}

// For dq or, before that, for what is to be known of the rows; see backwardRows.
template <bool Stats> __device__ __forceinline__ void multiplyBackwardRows(const BackwardWideArgs& w, uint32_t base, WideBarriers barriers) {
    using Shape = BackwardRowsShape;
    const AttendBackwardArgs& a = w.args;
    const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, queries = a.heads * a.perHead;
    const int r0 = group * 64 + warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    const float scale = a.scale * kLog2E;
    auto release = [&](uint32_t barrier) {
        if (lane == 0) barrierArrive(barrier);
    };
    WideRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < w.units; round++) {
        const AttendTile tile = a.tiles[unit / a.heads];
        const int head = unit % a.heads, packed = tile.rows * a.perHead;
        // Where the two packed rows begin that this thread holds parts of.
        const int64_t at0 = static_cast<int64_t>(tile.row + row0) * queries + head * a.perHead + (r0 - row0 * a.perHead);
        const int64_t at1 = static_cast<int64_t>(tile.row + row1) * queries + head * a.perHead + (r0 + 8 - row1 * a.perHead);
        float2* stats = a.stats + (static_cast<int64_t>(head) * a.rows + tile.row) * a.perHead + r0;
        float2 stats0 = {}, stats1 = {};
        if (Stats) {
            if (r0 < packed) stats0.x = a.logSumExp[at0] * kLog2E;
            if (r0 + 8 < packed) stats1.x = a.logSumExp[at1] * kLog2E;
        } else {
            if (r0 < packed) stats0 = stats[0];
            if (r0 + 8 < packed) stats1 = stats[8];
        }

        float dq[64] = {}, s[64], dp[64];
        uint32_t ds[8][4];
        barrierWait(barriers.queries(0), round % 2);
        KeyWalk<kWideKeys> walk{a.runs + tile.firstRun, tile.runs, 0};
        int last = -1;
        for (; !walk.done(); ring.next()) {
            const uint32_t q = base + group * 64 * 128, k = base + Shape::kStages + ring.stage * 2 * Shape::kTile;
            barrierWait(barriers.keys(ring.stage, 0), ring.phase);
            matmulFence();
            matmulRows128(s, q, k, Shape::kHalf, Shape::kHalf);
            matmulCommit();
            barrierWait(barriers.values(ring.stage, 0), ring.phase);
            // The last keys' ds is used up: there are registers for dp.
            matmulWait<1>();
            if (last >= 0) release(barriers.keys(last, 1));
            last = ring.stage;
            matmulFence();
            matmulRows128(dp, q + Shape::kTile, k + Shape::kTile, Shape::kHalf, Shape::kHalf);
            matmulCommit();

            matmulWait<1>();
            const auto [see0, see1] = walk.seen(row0, row1);
            if (!__all_sync(~0u, min(see0, see1) >= kWideKeys)) hide(s, see0, see1, lane);
            walk.next();
#pragma unroll
            for (int i = 0; i < 64; i++) s[i] = power2(s[i] * scale - (i % 4 < 2 ? stats0.x : stats1.x));
            matmulWait<0>();
            release(barriers.values(ring.stage, 1));
            if constexpr (Stats) {
#pragma unroll
                for (int i = 0; i < 64; i++) (i % 4 < 2 ? stats0 : stats1).y += s[i] * dp[i];
            } else {
#pragma unroll
                for (int n = 0; n < 16; n++) {
                    ds[n / 2][n % 2 * 2] = pack(s[n * 4] * (dp[n * 4] - stats0.y), s[n * 4 + 1] * (dp[n * 4 + 1] - stats0.y));
                    ds[n / 2][n % 2 * 2 + 1] = pack(s[n * 4 + 2] * (dp[n * 4 + 2] - stats1.y), s[n * 4 + 3] * (dp[n * 4 + 3] - stats1.y));
                }
                matmulFence();
#pragma unroll
                for (int i = 0; i < kWideKeys / 16; i++) matmulTransposed128(dq, ds[i], operand(k + i * 16 * 128, 1024, Shape::kHalf, kSwizzle128));
                matmulCommit();
            }
        }
        release(barriers.queries(1));
        matmulWait<0>();
        if (last >= 0) release(barriers.keys(last, 1));

        if constexpr (Stats) {
            storeStats(stats, stats0, stats1, packed - r0, lane);
        } else {
#pragma unroll
            for (int side = 0; side < 2; side++) {
                if (r0 + side * 8 >= packed) continue;
                bf16* to = a.dq + (side ? at1 : at0) * 128 + lane % 4 * 2;
#pragma unroll
                for (int n = 0; n < 16; n++) *reinterpret_cast<uint32_t*>(to + n * 8) = pack(dq[n * 4 + side * 2] * a.scale, dq[n * 4 + side * 2 + 1] * a.scale);
            }
        }
    }
}

template <bool Stats> __device__ __forceinline__ void backwardWideRows(const BackwardWideArgs& w) {
    extern __shared__ __align__(1024) char raw[];
    const uint32_t base = (sharedAddress(raw) + 1023) & ~1023u;
    const WideBarriers barriers{base + BackwardRowsShape::kBarriers};
    letNextStart();
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2 + 4 * kWideStages; i++) barrierInit(barriers.base + i * 8, i % 2 ? kWideConsumers / 32 : 1);
        barrierInitFence();
    }
    __syncthreads();
    waitForEarlier();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) fetchBackwardRows(w, base, barriers);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        multiplyBackwardRows<Stats>(w, base, barriers);
    }
}

using StepRing = StageRing<kStepStages>;
struct StepBarriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t keys(int used) const { return base + used * 8; }
    __device__ __forceinline__ uint32_t rows(int stage, int used) const { return base + 16 + stage * 16 + used * 8; }
};

__device__ __forceinline__ void fetchBackwardKeys(const BackwardWideArgs& w, uint32_t base, StepBarriers barriers) {
    using Shape = BackwardKeysShape;
    const AttendBackwardArgs& a = w.args;
    const uint64_t once = evictFirst(), often = evictLast();
    StepRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < w.units; round++) {
        const KeyTile tile = a.keyTiles[unit / a.heads];
        const int head = unit % a.heads;
        barrierWait(barriers.keys(1), round % 2 ^ 1);
        barrierExpect(barriers.keys(0), 2 * Shape::kKeys);
#pragma unroll
        for (int page = 0; page < 2; page++) {
            const int block = page && tile.block[1] >= 0 ? tile.block[1] : tile.block[0];
#pragma unroll
            for (int values = 0; values < 2; values++)
                copyPage(w, base + values * Shape::kKeys + page * kBlockSlots * 128, 128 * 128, block, values, head, barriers.keys(0), once);
        }
        for (RowWalk walk{a.rowRuns + tile.firstRun, tile.runs, 0, a.perHead}; !walk.done(); walk.next(w.boxRows * a.perHead), ring.next()) {
            const uint32_t to = base + Shape::kStages + ring.stage * 2 * Shape::kTile, barrier = barriers.rows(ring.stage, 0);
            const int row = walk.run->row + walk.first / a.perHead;
            barrierWait(barrier + 8, ring.phase ^ 1);
            barrierExpect(barrier, 2 * w.boxRows * a.perHead * 256);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                copyQueries(to + half * Shape::kHalf, &w.q, half * 64, head, row, barrier, often);
                copyQueries(to + Shape::kTile + half * Shape::kHalf, &w.dO, half * 64, head, row, barrier, often);
            }
        }
    }
}

__device__ __forceinline__ void storeShared2(uint32_t address, float2 x) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(x.x), "f"(x.y) : "memory");
}

// What is known of the rows, by a warp: there is too little of it in a row for the copy engine.
__device__ __forceinline__ void fetchBackwardStats(const BackwardWideArgs& w, uint32_t base, StepBarriers barriers) {
    using Shape = BackwardKeysShape;
    const AttendBackwardArgs& a = w.args;
    const int lane = threadIdx.x % 32, step = w.boxRows * a.perHead;
    StepRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < w.units; round++) {
        const KeyTile tile = a.keyTiles[unit / a.heads];
        const float2* stats = a.stats + static_cast<int64_t>(unit % a.heads) * a.rows * a.perHead;
        for (RowWalk walk{a.rowRuns + tile.firstRun, tile.runs, 0, a.perHead}; !walk.done(); walk.next(step), ring.next()) {
            const float2* from = stats + static_cast<int64_t>(walk.run->row) * a.perHead + walk.first;
            const int there = min(walk.packed() - walk.first, step);
            float2 known[kStepRows / 32];
#pragma unroll
            for (int i = 0; i < kStepRows / 32; i++) known[i] = i * 32 + lane < there ? from[i * 32 + lane] : float2{};
            barrierWait(barriers.rows(ring.stage, 1), ring.phase ^ 1);
#pragma unroll
            for (int i = 0; i < kStepRows / 32; i++) storeShared2(base + Shape::kStats + (ring.stage * kStepRows + i * 32 + lane) * 8, known[i]);
            barrierArrive(barriers.rows(ring.stage, 0));
        }
    }
}

__device__ __forceinline__ float4 loadShared4(uint32_t address) {
    float4 x;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(address));
    return x;
}

__device__ __forceinline__ void multiplyBackwardKeys(const BackwardWideArgs& w, uint32_t base, StepBarriers barriers) {
    using Shape = BackwardKeysShape;
    const AttendBackwardArgs& a = w.args;
    const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, step = w.boxRows * a.perHead;
    const int key0 = group * kBlockSlots + warp * 16 + lane / 4, column = lane % 4 * 2;
    const float scale = a.scale * kLog2E;
    StepRing ring;
    for (int round = 0, unit; (unit = wideUnit(round)) < w.units; round++) {
        const KeyTile* tile = a.keyTiles + unit / a.heads;
        const int head = unit % a.heads;
        float dk[64] = {}, dv[64] = {}, s[32], dp[32];
        uint32_t p[4][4], ds[4][4];
        barrierWait(barriers.keys(0), round % 2);
        int last = -1;
        for (RowWalk walk{a.rowRuns + tile->firstRun, tile->runs, 0, a.perHead}; !walk.done(); ring.next()) {
            const uint32_t k = base + group * kBlockSlots * 128, q = base + Shape::kStages + ring.stage * 2 * Shape::kTile, dO = q + Shape::kTile;
            const uint32_t stats = base + Shape::kStats + (ring.stage * kStepRows + column) * 8;
            barrierWait(barriers.rows(ring.stage, 0), ring.phase);
            matmulFence();
            matmulRows64(s, k, q, 128 * 128, Shape::kHalf);
            matmulCommit();
            // The last rows' p and ds are used up: there are registers for dp.
            matmulWait<1>();
            if (last >= 0) barrierArrive(barriers.rows(last, 1));
            last = ring.stage;
            matmulFence();
            matmulRows64(dp, k + Shape::kKeys, dO, 128 * 128, Shape::kHalf);
            matmulCommit();

            matmulWait<1>();
            const int there = walk.packed() - walk.first - column, first0 = walk.firstSeeing(key0) - column, first1 = walk.firstSeeing(key0 + 8) - column;
            if (!__all_sync(~0u, there + column >= step && max(first0, first1) + column <= 0)) {
#pragma unroll
                for (int n = 0; n < 8; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const int r = n * 8 + j;
                        if (r < first0 || r >= there) s[n * 4 + j] = -INFINITY;
                        if (r < first1 || r >= there) s[n * 4 + j + 2] = -INFINITY;
                    }
            }
            walk.next(step);
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float4 two = loadShared4(stats + n * 64);
                s[n * 4] = power2(s[n * 4] * scale - two.x);
                s[n * 4 + 1] = power2(s[n * 4 + 1] * scale - two.z);
                s[n * 4 + 2] = power2(s[n * 4 + 2] * scale - two.x);
                s[n * 4 + 3] = power2(s[n * 4 + 3] * scale - two.z);
                p[n / 2][n % 2 * 2] = pack(s[n * 4], s[n * 4 + 1]);
                p[n / 2][n % 2 * 2 + 1] = pack(s[n * 4 + 2], s[n * 4 + 3]);
            }
            matmulFence();
#pragma unroll
            for (int i = 0; i < kStepRows / 16; i++) matmulTransposed128(dv, p[i], operand(dO + i * 16 * 128, 1024, Shape::kHalf, kSwizzle128));
            matmulCommit();
            matmulWait<1>();
#pragma unroll
            for (int n = 0; n < 8; n++) {
                const float4 two = loadShared4(stats + n * 64);
                ds[n / 2][n % 2 * 2] = pack(s[n * 4] * (dp[n * 4] - two.y), s[n * 4 + 1] * (dp[n * 4 + 1] - two.w));
                ds[n / 2][n % 2 * 2 + 1] = pack(s[n * 4 + 2] * (dp[n * 4 + 2] - two.y), s[n * 4 + 3] * (dp[n * 4 + 3] - two.w));
            }
            matmulFence();
#pragma unroll
            for (int i = 0; i < kStepRows / 16; i++) matmulTransposed128(dk, ds[i], operand(q + i * 16 * 128, 1024, Shape::kHalf, kSwizzle128));
            matmulCommit();
        }
        if (lane == 0) barrierArrive(barriers.keys(1));
        matmulWait<0>();
        if (last >= 0) barrierArrive(barriers.rows(last, 1));

        const int block = tile->block[group], slot = tile->slot[group];
        if (block < 0) continue;
        const int64_t plane = static_cast<int64_t>(a.heads) * kBlockSlots * 128;
        float* to = (slot < 0 ? a.dKv + block * 2 * plane : a.partials + slot * 2 * plane) + (static_cast<int64_t>(head) * kBlockSlots + key0 % kBlockSlots) * 128 + column;
#pragma unroll
        for (int n = 0; n < 16; n++)
#pragma unroll
            for (int side = 0; side < 2; side++) {
                const int at = side * 8 * 128 + n * 8;
                *reinterpret_cast<float2*>(to + at) = make_float2(dk[n * 4 + side * 2] * a.scale, dk[n * 4 + side * 2 + 1] * a.scale);
                *reinterpret_cast<float2*>(to + plane + at) = make_float2(dv[n * 4 + side * 2], dv[n * 4 + side * 2 + 1]);
            }
    }
}
#endif

}  // namespace

extern "C" __global__ void __launch_bounds__(kWideThreads, 1) lriad_attend_backward_wide_stats(const __grid_constant__ BackwardWideArgs w) {
#if __CUDA_ARCH__ >= 900
    backwardWideRows<true>(w);
#endif
}

extern "C" __global__ void __launch_bounds__(kWideThreads, 1) lriad_attend_backward_wide_rows(const __grid_constant__ BackwardWideArgs w) {
#if __CUDA_ARCH__ >= 900
    backwardWideRows<false>(w);
#endif
}

extern "C" __global__ void __launch_bounds__(kWideThreads, 1) lriad_attend_backward_wide_keys(const __grid_constant__ BackwardWideArgs w) {
#if __CUDA_ARCH__ >= 900
    using Shape = BackwardKeysShape;
    extern __shared__ __align__(1024) char raw[];
    const uint32_t base = (sharedAddress(raw) + 1023) & ~1023u;
    const StepBarriers barriers{base + Shape::kBarriers};
    letNextStart();
    if (threadIdx.x == 0) {
        barrierInit(barriers.keys(0), 1);
        barrierInit(barriers.keys(1), kWideConsumers / 32);
        for (int stage = 0; stage < kStepStages; stage++) {
            barrierInit(barriers.rows(stage, 0), 33);
            // Every thread for itself: each has read what is known of the rows, which no copy orders.
            barrierInit(barriers.rows(stage, 1), kWideConsumers);
        }
        barrierInitFence();
    }
    // Rows of the stages that no copy fills are multiplied all the same.
    const int packed = w.boxRows * w.args.perHead, spare = (kStepRows - packed) * 8;
    for (int i = threadIdx.x; i < spare * kStepStages * 4; i += kWideThreads)
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(base + Shape::kStages + i / spare * Shape::kHalf + packed * 128 + i % spare * 16), "r"(0) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    waitForEarlier();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) fetchBackwardKeys(w, base, barriers);
        else if (threadIdx.x / 32 == 1) fetchBackwardStats(w, base, barriers);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        multiplyBackwardKeys(w, base, barriers);
    }
#endif
}
