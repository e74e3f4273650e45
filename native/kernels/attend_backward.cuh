// The backward of attention with heads of 128 columns, in two passes over the scores and without atomics, so that equal inputs give equal bits. First the rows: a tile of
// packed query rows goes through its keys as it does forward, for dq. Then the keys: a page of them goes through the rows that see it, for dk and dv; pages that many rows
// see are several tiles, whose sums are added up in order. With scores s and p = e^(s - logSumExp): dp = dO · v, ds = p (dp - Σ p dp), dv = Σ p dO, dq = Σ ds k, dk = Σ ds q.
// Σ p dp is dO · o in theory; summed up from the same p and dp as are used afterwards, in a pass of its own, it cancels exactly where a row sees almost one key alone, which
// an o that has been rounded does not.
#pragma once
#include "attend.cuh"

constexpr int kKeyStep = 32;

namespace {

using BackwardTile = AttendShared<128>;
constexpr int kBackwardSteps = 128 / 16;

// Shared memory of a block: keys and values of two stages; or keys and values once, and of two stages 32 packed rows of queries, as many of dO, and what is known of them.
constexpr int kBackwardRowsBytes = 4 * BackwardTile::kTile, kRowTile = kKeyStep * BackwardTile::kStride, kRowStats = kKeyStep * sizeof(float2);
constexpr int kBackwardKeysBytes = 2 * BackwardTile::kTile + 2 * (2 * kRowTile + kRowStats);

__device__ __forceinline__ void loadRows(uint32_t (&a)[4], uint32_t tile, int k, int lane) {
    loadMatrix4(a, tile + lane % 16 * BackwardTile::kStride + (k * 2 + lane / 16) * 16);
}

// What is known of packed rows r and r + 8, Σ p dp gathered from the four threads that hold their keys; `left` rows from r on are there.
__device__ __forceinline__ void storeStats(float2* at, float2 stats0, float2 stats1, int left, int lane) {
#pragma unroll
    for (int offset = 1; offset < 4; offset *= 2) {
        stats0.y += __shfl_xor_sync(~0u, stats0.y, offset);
        stats1.y += __shfl_xor_sync(~0u, stats1.y, offset);
    }
    if (lane % 4 == 0 && left > 0) at[0] = stats0;
    if (lane % 4 == 0 && left > 8) at[8] = stats1;
}

// s[16 × 8N] += a · bᵀ, sixteen columns, of sixteen rows of one tile and 8N of the other.
template <int N> __device__ __forceinline__ void multiplyRows(float (&s)[N][4], const uint32_t (&a)[4], uint32_t b, int k, int lane) {
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        uint32_t x[4];
        loadMatrix4(x, b + (n * 8 + lane % 8 + lane / 16 * 8) * BackwardTile::kStride + (k * 2 + lane / 8 % 2) * 16);
        multiplyAdd(s[n], a, x[0], x[1]);
        multiplyAdd(s[n + 1], a, x[2], x[3]);
    }
}
template <int N> __device__ __forceinline__ void multiplyTiles(float (&s)[N][4], const uint32_t (&a)[kBackwardSteps][4], uint32_t b, int lane) {
#pragma unroll
    for (int k = 0; k < kBackwardSteps; k++) multiplyRows(s, a[k], b, k, lane);
}
template <int N> __device__ __forceinline__ void multiplyTiles(float (&s)[N][4], uint32_t tile, uint32_t b, int lane) {
#pragma unroll
    for (int k = 0; k < kBackwardSteps; k++) {
        uint32_t a[4];
        loadRows(a, tile, k, lane);
        multiplyRows(s, a, b, k, lane);
    }
}

// sum[16 × 128] += w · b: weights of 8N rows, as they come out of a multiplication, and these rows.
template <int N> __device__ __forceinline__ void addWeighted(float (&sum)[16][4], const float (&w)[N][4], uint32_t b, int lane) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        const uint32_t a[4] = {pack(w[2 * k][0], w[2 * k][1]), pack(w[2 * k][2], w[2 * k][3]), pack(w[2 * k + 1][0], w[2 * k + 1][1]), pack(w[2 * k + 1][2], w[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < 16; n += 2) {
            uint32_t x[4];
            loadMatrix4Transposed(x, b + (k * 16 + lane % 16) * BackwardTile::kStride + (n + lane / 16) * 16);
            multiplyAdd(sum[n], a, x[0], x[1]);
            multiplyAdd(sum[n + 1], a, x[2], x[3]);
        }
    }
}

__device__ __forceinline__ void copyAsync8(uint32_t to, const void* from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(there ? 8 : 0));
}

// A tile of packed query rows and all keys they see, for dq or, before that, for what both passes need to know of a row: log-sum-exp to the base of two, and Σ p dp.
template <bool Stats> __device__ __forceinline__ void backwardRows(const AttendBackwardArgs& a) {
    constexpr int kChunks = BackwardTile::kChunks, kStride = BackwardTile::kStride, kTile = BackwardTile::kTile;
    extern __shared__ __align__(1024) char shared[];
    letNextStart();
    waitForEarlier();
    const AttendTile tile = a.tiles[blockIdx.x];
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int packed = tile.rows * a.perHead, queries = a.heads * a.perHead;
    const uint32_t keys = sharedAddress(shared), values = keys + 2 * kTile;
    auto query = [&](int p) { return static_cast<int64_t>(tile.row + p / a.perHead) * queries + head * a.perHead + p % a.perHead; };

    const int64_t plane = static_cast<int64_t>(a.heads) * kBlockSlots * 128;
    auto fetch = [&](const KeyWalk<kBlockSlots>& walk, int stage) {
        const int block = a.blocks[walk.run->firstBlock + walk.first / kBlockSlots], there = walk.run->keys - walk.first;
        const bf16* from = a.kv + block * 2 * plane + static_cast<int64_t>(head) * kBlockSlots * 128;
#pragma unroll
        for (int i = 0; i < kBlockSlots * kChunks / kAttendThreads; i++) {
            const int c = i * kAttendThreads + threadIdx.x, key = c / kChunks;
            const uint32_t to = stage * kTile + key * kStride + c % kChunks * 16;
            copyAsync(keys + to, from + c * 8, key < there);
            copyAsync(values + to, from + plane + c * 8, key < there);
        }
    };

    // Queries and dO stay in registers; they come by way of the second stage.
    for (int c = threadIdx.x; c < kAttendRows * kChunks; c += kAttendThreads) {
        const int p = c / kChunks;
        const int64_t from = p < packed ? query(p) * 128 + c % kChunks * 8 : 0;
        const uint32_t to = kTile + p * kStride + c % kChunks * 16;
        copyAsync(keys + to, a.q + from, p < packed);
        copyAsync(values + to, a.dO + from, p < packed);
    }
    copyCommit();
    KeyWalk<kBlockSlots> walk{a.runs + tile.firstRun, tile.runs, 0}, ahead = walk;
    fetch(ahead, 0);
    copyCommit();
    ahead.next();

    // Each thread holds parts of two packed rows: r and r + 8 of its warp's sixteen.
    const int r0 = warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    float2* stats = a.stats + (static_cast<int64_t>(head) * a.rows + tile.row) * a.perHead + r0;
    float2 stats0 = {}, stats1 = {};
    if (Stats) {
        if (r0 < packed) stats0.x = a.logSumExp[query(r0)] * kLog2E;
        if (r0 + 8 < packed) stats1.x = a.logSumExp[query(r0 + 8)] * kLog2E;
    } else {
        if (r0 < packed) stats0 = stats[0];
        if (r0 + 8 < packed) stats1 = stats[8];
    }
    uint32_t q[kBackwardSteps][4], dO[kBackwardSteps][4];
    copyWait<1>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kBackwardSteps; k++) {
        loadRows(q[k], keys + kTile + warp * 16 * kStride, k, lane);
        loadRows(dO[k], values + kTile + warp * 16 * kStride, k, lane);
    }
    __syncthreads();

    const float scale = a.scale * kLog2E;
    float dq[16][4] = {};
    for (int stage = 0; !walk.done(); stage ^= 1, walk.next()) {
        if (!ahead.done()) {
            fetch(ahead, stage ^ 1);
            ahead.next();
        }
        copyCommit();
        copyWait<1>();
        __syncthreads();
        float s[8][4] = {}, dp[8][4] = {};
        multiplyTiles(s, q, keys + stage * kTile, lane);
        multiplyTiles(dp, dO, values + stage * kTile, lane);
        const auto [see0, see1] = walk.seen(row0, row1);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float2& row = j < 2 ? stats0 : stats1;
                const bool seen = n * 8 + lane % 4 * 2 + j % 2 < (j < 2 ? see0 : see1);
                const float p = seen ? power2(s[n][j] * scale - row.x) : 0;
                if (Stats) row.y += p * dp[n][j];
                else s[n][j] = p * (dp[n][j] - row.y);
            }
        if (!Stats) addWeighted(dq, s, keys + stage * kTile, lane);
        __syncthreads();
    }

    if constexpr (Stats) {
        storeStats(stats, stats0, stats1, packed - r0, lane);
    } else {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int p = r0 + side * 8;
            if (p >= packed) continue;
            bf16* to = a.dq + query(p) * 128 + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < 16; n++) *reinterpret_cast<uint32_t*>(to + n * 8) = pack(dq[n][side * 2] * a.scale, dq[n][side * 2 + 1] * a.scale);
        }
    }
}

// Walks over the packed rows of a tile's runs, some at a time.
struct RowWalk {
    const RowRun* run;
    int left, first, perHead;

    __device__ __forceinline__ bool done() const { return left == 0; }
    __device__ __forceinline__ int packed() const { return run->rows * perHead; }
    __device__ __forceinline__ void next(int some) {
        first += some;
        if (first >= packed()) { run++; left--; first = 0; }
    }
    // The first packed row, from here on, that sees a key.
    __device__ __forceinline__ int firstSeeing(int key) const {
        const int row = key < run->limit ? 0 : run->step > 0 ? key - run->limit + 1 : run->rows;
        return (key < run->keys ? row * perHead : packed()) - first;
    }
};

__device__ __forceinline__ void backwardKeys(const AttendBackwardArgs& a) {
    constexpr int kChunks = BackwardTile::kChunks, kStride = BackwardTile::kStride, kTile = BackwardTile::kTile;
    extern __shared__ __align__(1024) char shared[];
    letNextStart();
    waitForEarlier();
    const KeyTile tile = a.keyTiles[blockIdx.x];
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, queries = a.heads * a.perHead;
    const uint32_t keys = sharedAddress(shared), values = keys + kTile, stages = values + kTile;
    const char* stats = shared + 2 * kTile + 4 * kRowTile;

    const int64_t plane = static_cast<int64_t>(a.heads) * kBlockSlots * 128;
    const bf16* from = a.kv + tile.block[0] * 2 * plane + static_cast<int64_t>(head) * kBlockSlots * 128;
#pragma unroll
    for (int i = 0; i < kBlockSlots * kChunks / kAttendThreads; i++) {
        const int c = i * kAttendThreads + threadIdx.x;
        const uint32_t to = c / kChunks * kStride + c % kChunks * 16;
        copyAsync(keys + to, from + c * 8, true);
        copyAsync(values + to, from + plane + c * 8, true);
    }
    auto fetch = [&](const RowWalk& walk, int stage) {
        const int there = walk.packed() - walk.first;
#pragma unroll
        for (int i = 0; i < kKeyStep * kChunks / kAttendThreads; i++) {
            const int c = i * kAttendThreads + threadIdx.x, r = c / kChunks, p = walk.first + r, row = p / a.perHead;
            const int64_t at = r < there ? (static_cast<int64_t>(walk.run->row + row) * queries + head * a.perHead + (p - row * a.perHead)) * 128 + c % kChunks * 8 : 0;
            const uint32_t to = stages + stage * 2 * kRowTile + r * kStride + c % kChunks * 16;
            copyAsync(to, a.q + at, r < there);
            copyAsync(to + kRowTile, a.dO + at, r < there);
        }
        const int r = threadIdx.x;
        if (r < kKeyStep) {
            const float2* at = a.stats + (static_cast<int64_t>(head) * a.rows + walk.run->row) * a.perHead + walk.first + r;
            copyAsync8(stages + 4 * kRowTile + stage * kRowStats + r * sizeof(float2), r < there ? at : a.stats, r < there);
        }
    };

    RowWalk walk{a.rowRuns + tile.firstRun, tile.runs, 0, a.perHead}, ahead = walk;
    if (!ahead.done()) {
        fetch(ahead, 0);
        ahead.next(kKeyStep);
    }
    copyCommit();

    const int key0 = warp * 16 + lane / 4;
    const float scale = a.scale * kLog2E;
    float dk[16][4] = {}, dv[16][4] = {};
    for (int stage = 0; !walk.done(); stage ^= 1, walk.next(kKeyStep)) {
        if (!ahead.done()) {
            fetch(ahead, stage ^ 1);
            ahead.next(kKeyStep);
        }
        copyCommit();
        copyWait<1>();
        __syncthreads();
        const uint32_t q = stages + stage * 2 * kRowTile, dO = q + kRowTile;
        const int there = walk.packed() - walk.first, first0 = walk.firstSeeing(key0), first1 = walk.firstSeeing(key0 + 8);
        float s[4][4] = {}, dp[4][4] = {};
        multiplyTiles(s, keys + warp * 16 * kStride, q, lane);
        multiplyTiles(dp, values + warp * 16 * kStride, dO, lane);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const int r = n * 8 + lane % 4 * 2;
            const float4 two = *reinterpret_cast<const float4*>(stats + stage * kRowStats + r * sizeof(float2));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const bool seen = r + j % 2 >= (j < 2 ? first0 : first1) && r + j % 2 < there;
                s[n][j] = seen ? power2(s[n][j] * scale - (j % 2 ? two.z : two.x)) : 0;
                dp[n][j] = seen ? s[n][j] * (dp[n][j] - (j % 2 ? two.w : two.y)) : 0;
            }
        }
        addWeighted(dv, s, dO, lane);
        addWeighted(dk, dp, q, lane);
        __syncthreads();
    }

    const bool whole = tile.slot[0] < 0;
    float* to = (whole ? a.dKv : a.partials) + (whole ? tile.block[0] : tile.slot[0]) * 2 * plane + (static_cast<int64_t>(head) * kBlockSlots + key0) * 128 + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < 16; n++)
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int64_t at = side * 8 * 128 + n * 8;
            *reinterpret_cast<float2*>(to + at) = make_float2(dk[n][side * 2] * a.scale, dk[n][side * 2 + 1] * a.scale);
            *reinterpret_cast<float2*>(to + plane + at) = make_float2(dv[n][side * 2], dv[n][side * 2 + 1]);
        }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kAttendThreads) lriad_attend_backward_stats(const __grid_constant__ AttendBackwardArgs a) { backwardRows<true>(a); }
extern "C" __global__ void __launch_bounds__(kAttendThreads) lriad_attend_backward_rows(const __grid_constant__ AttendBackwardArgs a) { backwardRows<false>(a); }
extern "C" __global__ void __launch_bounds__(kAttendThreads) lriad_attend_backward_keys(const __grid_constant__ AttendBackwardArgs a) { backwardKeys(a); }

// Sums of a page that several tiles made, in order; a thread four columns.
extern "C" __global__ void __launch_bounds__(256) lriad_attend_backward_merge(const __grid_constant__ KeyMergeArgs a) {
    letNextStart();
    waitForEarlier();
    const KeyMerge merge = a.merges[blockIdx.x];
    const int64_t at = (static_cast<int64_t>(blockIdx.y) * 256 + threadIdx.x) * 4;
    const float* from = a.partials + merge.firstSlot * a.blockFloats + at;
    float4 sum = *reinterpret_cast<const float4*>(from);
    for (int i = 1; i < merge.slots; i++) {
        const float4 x = *reinterpret_cast<const float4*>(from + i * a.blockFloats);
        sum.x += x.x; sum.y += x.y; sum.z += x.z; sum.w += x.w;
    }
    *reinterpret_cast<float4*>(a.dKv + merge.block * a.blockFloats + at) = sum;
}
