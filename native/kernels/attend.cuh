// Attention over runs of cached keys: scores, soft-max and values in one pass (Dao et al., FlashAttention-2, 2023), a tile of query rows at a time.
// The rows of a tile are packed as (row, query head of one key-value head): all that read the same keys are multiplied with them together.
#pragma once
#include "common.cuh"

constexpr int kAttendRows = 64, kAttendThreads = 128, kBlockSlots = 64;

namespace {

// Shared memory of one block: queries, and two stages of keys and of values. Rows are one 16-byte chunk longer than they need to be, which makes their
// number of chunks odd: eight rows of a matrix then lie in eight different banks.
template <int D> struct AttendShared {
    static constexpr int kChunks = D / 8, kStride = (kChunks + 1) * 16, kTile = kBlockSlots * kStride;
    static_assert(kChunks % 2 == 0 && D % 16 == 0);
    static constexpr int kBytes = 5 * kTile;
};

// Walks over the keys of a tile's runs, some at a time.
template <int Keys> struct KeyWalk {
    const AttendRun* run;
    int left, first;

    __device__ __forceinline__ bool done() const { return left == 0; }
    __device__ __forceinline__ void next() {
        first += Keys;
        if (first >= run->keys) { run++; left--; first = 0; }
    }
    // How many keys, from here on, two rows of the tile see.
    __device__ __forceinline__ int2 seen(int row0, int row1) const {
        const int there = run->keys - first, limit = run->limit - first;
        return {min(there, limit + run->step * row0), min(there, limit + run->step * row1)};
    }
};

// The soft-max over some more keys for the two packed rows that a thread holds parts of, of which they see the first see0 and see1: scores become weights, and what has been
// added up so far fades by what the maximum has grown.
template <int Keys, int Columns> __device__ __forceinline__ void softMaxBlock(
    float (&s)[Keys / 8][4], int see0, int see1, int lane, float scale, float& max0, float& max1, float& sum0, float& sum1, float (&o)[Columns / 8][4]) {
    if (!__all_sync(~0u, min(see0, see1) >= Keys)) {
#pragma unroll
        for (int n = 0; n < Keys / 8; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int key = n * 8 + lane % 4 * 2 + j;
                if (key >= see0) s[n][j] = -INFINITY;
                if (key >= see1) s[n][j + 2] = -INFINITY;
            }
    }
    float new0 = max0, new1 = max1;
#pragma unroll
    for (int n = 0; n < Keys / 8; n++) {
        new0 = fmaxf(new0, fmaxf(s[n][0], s[n][1]));
        new1 = fmaxf(new1, fmaxf(s[n][2], s[n][3]));
    }
#pragma unroll
    for (int offset = 1; offset < 4; offset *= 2) {
        new0 = fmaxf(new0, __shfl_xor_sync(~0u, new0, offset));
        new1 = fmaxf(new1, __shfl_xor_sync(~0u, new1, offset));
    }
    // Scores are scaled on their way into the exponent. A row that has seen no key yet keeps zeros: 2^(-inf − 0).
    const float shift0 = new0 == -INFINITY ? 0 : new0 * scale, shift1 = new1 == -INFINITY ? 0 : new1 * scale;
    const float fade0 = power2(max0 * scale - shift0), fade1 = power2(max1 * scale - shift1);
    max0 = new0;
    max1 = new1;
    sum0 *= fade0;
    sum1 *= fade1;
#pragma unroll
    for (int n = 0; n < Columns / 8; n++) { o[n][0] *= fade0; o[n][1] *= fade0; o[n][2] *= fade1; o[n][3] *= fade1; }
#pragma unroll
    for (int n = 0; n < Keys / 8; n++) {
        s[n][0] = power2(s[n][0] * scale - shift0);
        s[n][1] = power2(s[n][1] * scale - shift0);
        s[n][2] = power2(s[n][2] * scale - shift1);
        s[n][3] = power2(s[n][3] * scale - shift1);
        sum0 += s[n][0] + s[n][1];
        sum1 += s[n][2] + s[n][3];
    }
}

// Results of the two packed rows r0 and r0 + 8, whole or, for a tile that has seen only a range of keys, as a part to be merged.
template <int D> __device__ __forceinline__ void storeRows(
    const AttendArgs& a, const AttendTile& tile, int head, int r0, int row0, int row1, int packed, int lane, float max0, float max1, float sum0, float sum1, const float (&o)[D / 8][4]) {
    const int queries = a.heads * a.perHead;
#pragma unroll
    for (int offset = 1; offset < 4; offset *= 2) {
        sum0 += __shfl_xor_sync(~0u, sum0, offset);
        sum1 += __shfl_xor_sync(~0u, sum1, offset);
    }
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int p = r0 + side * 8, row = side ? row1 : row0;
        if (p >= packed) continue;
        const float sum = side ? sum1 : sum0, max = side ? max1 : max0, inverse = sum > 0 ? 1 / sum : 0;
        const float logSum = sum > 0 ? max * a.scale + logf(sum) : -INFINITY;
        const int query = head * a.perHead + (p - row * a.perHead);
        const bool whole = tile.slot < 0;
        const int64_t at = static_cast<int64_t>(whole ? tile.row + row : tile.slot + row) * queries + query;
        if (lane % 4 == 0) (whole ? a.logSumExp : a.partialLogSumExp)[at] = logSum;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const float x = o[n][side * 2] * inverse, y = o[n][side * 2 + 1] * inverse;
            const int64_t to = at * D + n * 8 + lane % 4 * 2;
            if (whole) *reinterpret_cast<uint32_t*>(a.o + to) = pack(x, y);
            else *reinterpret_cast<float2*>(a.partialO + to) = make_float2(x, y);
        }
    }
}

template <int D> __device__ __forceinline__ void attend(const AttendArgs& a) {
    using Shared = AttendShared<D>;
    constexpr int kChunks = Shared::kChunks, kStride = Shared::kStride, kTile = Shared::kTile, kSteps = D / 16;
    extern __shared__ __align__(1024) char shared[];
    letNextStart();
    waitForEarlier();
    const AttendTile tile = a.tiles[blockIdx.x];
    const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int packed = tile.rows * a.perHead, queries = a.heads * a.perHead;
    const uint32_t base = sharedAddress(shared), keys = base + kTile, values = base + 3 * kTile;

    for (int c = threadIdx.x; c < kAttendRows * kChunks; c += kAttendThreads) {
        const int p = c / kChunks, chunk = c % kChunks, row = p / a.perHead;
        const bf16* from = a.q + (static_cast<int64_t>(tile.row + row) * queries + head * a.perHead + (p - row * a.perHead)) * D + chunk * 8;
        copyAsync(base + p * kStride + chunk * 16, p < packed ? from : a.q, p < packed);
    }

    const int64_t plane = static_cast<int64_t>(a.heads) * kBlockSlots * D;
    auto fetch = [&](const KeyWalk<kBlockSlots>& walk, int stage) {
        const int block = a.blocks[walk.run->firstBlock + walk.first / kBlockSlots], there = walk.run->keys - walk.first;
        const bf16* from = a.kv + block * 2 * plane + static_cast<int64_t>(head) * kBlockSlots * D;
#pragma unroll
        for (int i = 0; i < kBlockSlots * kChunks / kAttendThreads; i++) {
            const int c = i * kAttendThreads + threadIdx.x, key = c / kChunks, chunk = c % kChunks;
            const uint32_t to = stage * kTile + key * kStride + chunk * 16;
            copyAsync(keys + to, from + c * 8, key < there);
            copyAsync(values + to, from + plane + c * 8, key < there);
        }
    };

    KeyWalk<kBlockSlots> walk{a.runs + tile.firstRun, tile.runs, 0}, ahead = walk;
    fetch(ahead, 0);
    copyCommit();
    ahead.next();

    // Each thread holds parts of two packed rows: r and r + 8 of its warp's sixteen.
    const int r0 = warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    const float scale = a.scale * kLog2E;
    uint32_t q[kSteps][4];
    float o[D / 8][4] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
    for (int step = 0; !walk.done(); step ^= 1, walk.next()) {
        if (!ahead.done()) {
            fetch(ahead, step ^ 1);
            ahead.next();
        }
        copyCommit();
        copyWait<1>();
        __syncthreads();
        if (walk.left == tile.runs && walk.first == 0) {
#pragma unroll
            for (int k = 0; k < kSteps; k++) loadMatrix4(q[k], base + (warp * 16 + lane % 16) * kStride + (k * 2 + lane / 16) * 16);
        }

        float s[8][4] = {};
        const uint32_t keyTile = keys + step * kTile, valueTile = values + step * kTile;
#pragma unroll
        for (int k = 0; k < kSteps; k++)
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                uint32_t b[4];
                loadMatrix4(b, keyTile + (n * 8 + lane % 8 + lane / 16 * 8) * kStride + (k * 2 + lane / 8 % 2) * 16);
                multiplyAdd(s[n], q[k], b[0], b[1]);
                multiplyAdd(s[n + 1], q[k], b[2], b[3]);
            }

        const auto [see0, see1] = walk.seen(row0, row1);
        softMaxBlock<kBlockSlots, D>(s, see0, see1, lane, scale, max0, max1, sum0, sum1, o);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t p[4] = {pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]), pack(s[2 * k + 1][0], s[2 * k + 1][1]), pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < D / 8; n += 2) {
                uint32_t b[4];
                loadMatrix4Transposed(b, valueTile + (k * 16 + lane % 16) * kStride + (n + lane / 16) * 16);
                multiplyAdd(o[n], p, b[0], b[1]);
                multiplyAdd(o[n + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();
    }

    storeRows<D>(a, tile, head, r0, row0, row1, packed, lane, max0, max1, sum0, sum1, o);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kAttendThreads) lriad_attend_128(const __grid_constant__ AttendArgs a) { attend<128>(a); }
extern "C" __global__ void __launch_bounds__(kAttendThreads) lriad_attend_80(const __grid_constant__ AttendArgs a) { attend<80>(a); }

namespace {

// The parts of a row, the first 32 of them one a lane.
struct MergeList {
    int row, count, mine;
    const int* parts;

    __device__ __forceinline__ MergeList(const AttendMergeArgs& a, const AttendMerge& merge) : row(merge.row), count(merge.parts), mine(0), parts(a.parts + merge.firstPart) {
        const int lane = threadIdx.x % 32;
        if (lane < count) mine = parts[lane];
    }
};

// A row whose keys several tiles saw: partial results weighted by their share of Σ exp, in the order of the list. A warp a row and some of its heads, of 128 columns at most.
template <int Heads> __device__ __forceinline__ void mergeRow(const AttendMergeArgs& a, const MergeList& list, int head) {
    constexpr int kTogether = 8;
    const int lane = threadIdx.x % 32;
    const bool there = lane * 4 < a.headDim;
    float4 o[Heads] = {};
    float max[Heads], sum[Heads] = {};
#pragma unroll
    for (int h = 0; h < Heads; h++) max[h] = -INFINITY;
    for (int first = 0; first < list.count; first += 32) {
        const int some = min(32, list.count - first), part = first == 0 ? list.mine : lane < some ? list.parts[first + lane] : 0;
        auto at = [&](int part, int h) { return static_cast<int64_t>(part) * a.heads + min(head + h, a.heads - 1); };
        float share[Heads];
#pragma unroll
        for (int h = 0; h < Heads; h++) share[h] = lane < some ? __ldcg(a.partialLogSumExp + at(part, h)) : -INFINITY;
#pragma unroll 1
        for (int from = 0; from < some; from += kTogether) {
            float4 values[Heads][kTogether];
#pragma unroll
            for (int i = 0; i < kTogether; i++) {
                const int other = __shfl_sync(~0u, part, (from + i) % 32);
#pragma unroll
                for (int h = 0; h < Heads; h++)
                    values[h][i] = there && from + i < some ? __ldcg(reinterpret_cast<const float4*>(a.partialO + at(other, h) * a.headDim + lane * 4)) : float4{};
            }
#pragma unroll
            for (int h = 0; h < Heads; h++) {
                if (from == 0) {
                    const float logSum = share[h];
                    float top = logSum;
#pragma unroll
                    for (int offset = 16; offset > 0; offset >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, offset));
                    top = fmaxf(top, max[h]);
                    const float fade = max[h] == -INFINITY ? 0 : expf(max[h] - top);
                    share[h] = top == -INFINITY ? 0 : expf(logSum - top);
                    o[h] = {o[h].x * fade, o[h].y * fade, o[h].z * fade, o[h].w * fade};
                    sum[h] = sum[h] * fade + warpSum(share[h]);
                    max[h] = top;
                }
#pragma unroll
                for (int i = 0; i < kTogether; i++) {
                    const float weight = __shfl_sync(~0u, share[h], (from + i) % 32);
                    if (from + i >= some) continue;
                    const float4 v = values[h][i];
                    o[h] = {o[h].x + weight * v.x, o[h].y + weight * v.y, o[h].z + weight * v.z, o[h].w + weight * v.w};
                }
            }
        }
    }
#pragma unroll
    for (int h = 0; h < Heads; h++) {
        if (head + h >= a.heads) continue;
        const int64_t at = static_cast<int64_t>(list.row) * a.heads + head + h;
        const float inverse = sum[h] > 0 ? 1 / sum[h] : 0;
        if (lane == 0) a.logSumExp[at] = max[h] + logf(sum[h]);
        if (there) *reinterpret_cast<uint2*>(a.o + at * a.headDim + lane * 4) = make_uint2(pack(o[h].x * inverse, o[h].y * inverse), pack(o[h].z * inverse, o[h].w * inverse));
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(128) lriad_attend_merge(const __grid_constant__ AttendMergeArgs a) {
    letNextStart();
    waitForEarlier();
    const int head = blockIdx.y * 4 + threadIdx.x / 32;
    if (head < a.heads) mergeRow<1>(a, MergeList(a, a.merges[blockIdx.x]), head);
}
