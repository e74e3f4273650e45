// Attention of many rows that are decoded, on Hopper: a unit is some rows of one head, packed as 64, over 128 keys at most. Each of two warpgroups has room for one unit and a
// thread that fetches the next one piece by piece, as soon as what lies there has been used. Results are parts, to be merged.
#pragma once
#include "attend_wide.cuh"

constexpr int kPartConsumers = 256, kPartThreads = kPartConsumers + 64;
// What a warpgroup has in shared memory: 64 queries, 128 keys, 128 values, and four barriers: keys there, keys used, values there, values used.
constexpr int kPartSlab = 128 * 128, kPartQueries = 64 * 256, kPartKeys = 2 * kPartSlab, kPartRoom = kPartQueries + 2 * kPartKeys, kPartBarriers = 2 * kPartRoom, kPartBytes = kPartBarriers + 64 + 1024;

namespace {

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ int partUnit(int group, int turn) { return (turn * 2 + group) * gridDim.x + blockIdx.x; }

__device__ __forceinline__ void fetchParts(const PartArgs& a, uint32_t room, uint32_t barriers, int group) {
    const uint64_t once = evictFirst();
    for (int turn = 0, unit; (unit = partUnit(group, turn)) < a.count * a.heads; turn++) {
        const StepTile tile = a.tiles[unit / a.heads];
        const int head = unit % a.heads, halves = tile.keys > kBlockSlots ? 2 : 1;
#pragma unroll
        for (int values = 0; values < 2; values++) {
            const uint32_t to = room + kPartQueries + values * kPartKeys, there = barriers + values * 16;
            barrierWait(there + 8, turn % 2 ^ 1);
            barrierExpect(there, halves * kPartSlab + (values ? 0 : a.boxRows * a.perHead * 256));
            if (values == 0)
                for (int slab = 0; slab < 2; slab++) copyQueries(room + slab * 64 * 128, &a.q, slab * 64, head, tile.row, there, once);
            for (int half = 0; half < halves; half++)
                for (int slab = 0; slab < 2; slab++)
                    copyTile(to + slab * kPartSlab + half * kBlockSlots * 128, &a.kv, slab * 64, ((tile.blocks[half] * 2 + values) * a.heads + head) * kBlockSlots, there, once);
        }
    }
}

__device__ __forceinline__ void multiplyParts(const PartArgs& a, uint32_t room, uint32_t barriers, int group) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, queries = a.heads * a.perHead;
    const int r0 = warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    const float scale = a.scale * kLog2E;
    const uint32_t keys = room + kPartQueries, values = keys + kPartKeys;
    for (int turn = 0, unit; (unit = partUnit(group, turn)) < a.count * a.heads; turn++) {
        const StepTile tile = a.tiles[unit / a.heads];
        const int head = unit % a.heads, packed = tile.rows * a.perHead;
        const int see0 = min(tile.keys, tile.limit + tile.step * row0), see1 = min(tile.keys, tile.limit + tile.step * row1);
        float s[64], o[64] = {};
        barrierWait(barriers, turn % 2);
        matmulFence();
#pragma unroll
        for (int k = 0; k < 8; k++)
            matmul128(s, operand(room + k / 4 * 64 * 128 + k % 4 * 32, 1024, 0, kSwizzle128), operand(keys + k / 4 * kPartSlab + k % 4 * 32, 1024, 0, kSwizzle128), k > 0);
        matmulCommit();
        matmulWait<0>();
        if (lane == 0) barrierArrive(barriers + 8);

        hide(s, see0, see1, lane);
        float max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
#pragma unroll
        for (int i = 0; i < 64; i += 4) {
            max0 = fmaxf(fmaxf(max0, s[i]), s[i + 1]);
            max1 = fmaxf(fmaxf(max1, s[i + 2]), s[i + 3]);
        }
#pragma unroll
        for (int offset = 1; offset < 4; offset *= 2) {
            max0 = fmaxf(max0, __shfl_xor_sync(~0u, max0, offset));
            max1 = fmaxf(max1, __shfl_xor_sync(~0u, max1, offset));
        }
        const float shift0 = max0 == -INFINITY ? 0 : max0 * scale, shift1 = max1 == -INFINITY ? 0 : max1 * scale;
        uint32_t p[8][4];
#pragma unroll
        for (int n = 0; n < 16; n++) {
            const float a0 = power2(s[n * 4] * scale - shift0), a1 = power2(s[n * 4 + 1] * scale - shift0), b0 = power2(s[n * 4 + 2] * scale - shift1), b1 = power2(s[n * 4 + 3] * scale - shift1);
            sum0 += a0 + a1;
            sum1 += b0 + b1;
            p[n / 2][n % 2 * 2] = pack(a0, a1);
            p[n / 2][n % 2 * 2 + 1] = pack(b0, b1);
        }
        barrierWait(barriers + 16, turn % 2);
        matmulFence();
#pragma unroll
        for (int k = 0; k < 8; k++) matmulTransposed128(o, p[k], operand(values + k * 16 * 128, 1024, kPartSlab, kSwizzle128));
        matmulCommit();
#pragma unroll
        for (int offset = 1; offset < 4; offset *= 2) {
            sum0 += __shfl_xor_sync(~0u, sum0, offset);
            sum1 += __shfl_xor_sync(~0u, sum1, offset);
        }
        matmulWait<0>();
        if (lane == 0) barrierArrive(barriers + 24);
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int r = r0 + side * 8, row = side ? row1 : row0;
            if (r >= packed) continue;
            const float sum = side ? sum1 : sum0, max = side ? max1 : max0, inverse = sum > 0 ? 1 / sum : 0;
            const int64_t at = static_cast<int64_t>(tile.slot + row) * queries + head * a.perHead + (r - row * a.perHead);
            if (lane % 4 == 0) a.partialLogSumExp[at] = sum > 0 ? max * a.scale + logf(sum) : -INFINITY;
#pragma unroll
            for (int n = 0; n < 16; n++)
                *reinterpret_cast<float2*>(a.partialO + at * 128 + n * 8 + lane % 4 * 2) = make_float2(o[n * 4 + side * 2] * inverse, o[n * 4 + side * 2 + 1] * inverse);
        }
    }
}

__device__ __forceinline__ void attendParts(const PartArgs& a) {
    extern __shared__ __align__(1024) char raw[];
    const uint32_t base = (sharedAddress(raw) + 1023) & ~1023u;
    letNextStart();
    if (threadIdx.x == 0) {
        for (int i = 0; i < 8; i++) barrierInit(base + kPartBarriers + i * 8, i % 2 ? 4 : 1);
        barrierInitFence();
    }
    // Of keys that all lie in one page the other is not fetched; what then lies there is multiplied by zeros, and must be a number.
    constexpr int kChunks = kBlockSlots * 8;
    for (int i = threadIdx.x; i < 4 * kChunks; i += kPartThreads) {
        const int group = i / (2 * kChunks), slab = i / kChunks % 2;
        const uint32_t values = base + group * kPartRoom + kPartQueries + kPartKeys;
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(values + slab * kPartSlab + kBlockSlots * 128 + i % kChunks * 16), "r"(0) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    waitForEarlier();
    const int warp = threadIdx.x / 32, group = warp < 8 ? warp / 4 : warp - 8;
    const uint32_t room = base + group * kPartRoom, barriers = base + kPartBarriers + group * 32;
    if (warp < 8) multiplyParts(a, room, barriers, group);
    else if (threadIdx.x % 32 == 0) fetchParts(a, room, barriers, group);
}
#endif

}  // namespace

extern "C" __global__ void __launch_bounds__(kPartThreads, 1) lriad_attend_part(const __grid_constant__ PartArgs a) {
#if __CUDA_ARCH__ >= 900
    attendParts(a);
#endif
}
