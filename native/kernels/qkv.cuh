// After the products of attention's start: low-rank update, rotary, cache.
#pragma once
#include "common.cuh"

constexpr int kQkvThreads = 384, kMaxHalf = 128;
// Blocks of the kernel with an adapter: their threads, and room for their rows' angles and low-rank values.
constexpr int kQkvAdapterThreads = 128, kQkvAngles = 2048, kQkvLowRank = 2048;

namespace {

// Sixteen columns of a row, i to i + 7 of a head and those half a head behind, on their way to queries or cache: columns i and i + headDim/2 turn together.
struct QkvUnit {
    int head, i, half;
    bool query, value;

    __device__ __forceinline__ QkvUnit(const QkvArgs& a, int unit) {
        half = a.headDim / 2;
        head = unit / (half / 8);
        i = (unit - head * (half / 8)) * 8;
        query = head < a.heads * a.perHead;
        value = head >= a.heads * (a.perHead + 1);
    }

    __device__ __forceinline__ void finish(const QkvArgs& a, int row, Eight lower, Eight upper, const float* cosine, const float* sine) const {
        if (!value) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float x = lower.v[j];
                lower.v[j] = x * cosine[i + j] - upper.v[j] * sine[i + j];
                upper.v[j] = upper.v[j] * cosine[i + j] + x * sine[i + j];
            }
        }
        const int queries = a.heads * a.perHead, slot = a.rows[row].slot;
        bf16* to = query ? a.q + (static_cast<int64_t>(row) * queries + head) * a.headDim + i
                         : a.kv + (static_cast<int64_t>(slot / 64) * 2 * a.heads + head - queries) * 64 * a.headDim + (slot % 64) * a.headDim + i;
        lower.store(to);
        upper.store(to + half);
    }
};

}  // namespace

// A block a row.
extern "C" __global__ void __launch_bounds__(kQkvThreads) lriad_qkv(const __grid_constant__ QkvArgs a) {
    __shared__ float cosine[kMaxHalf], sine[kMaxHalf];
    letNextStart();
    // Rows come from the host before a pass's first kernel, so the angles can be taken while the products in front are still being made.
    for (int i = threadIdx.x; i < a.headDim / 2; i += blockDim.x) turn(a.rows[blockIdx.x].position[a.axis[i]] * a.frequency[i], sine[i], cosine[i]);
    waitForEarlier();
    __syncthreads();

    const int width = a.heads * (a.perHead + 2) * a.headDim;
    for (int u = threadIdx.x; u < width / 16; u += blockDim.x) {
        const QkvUnit unit(a, u);
        const bf16* from = a.qkv + static_cast<int64_t>(blockIdx.x) * width + unit.head * a.headDim + unit.i;
        unit.finish(a, blockIdx.x, Eight::load(from), Eight::load(from + unit.half), cosine, sine);
    }
}

// With the low-rank update. A block has 32 units of all rows of a strip, a warp each fourth row: so a thread reads its part of B once.
extern "C" __global__ void __launch_bounds__(kQkvAdapterThreads) lriad_qkv_adapter(const __grid_constant__ QkvAdapterArgs args) {
    constexpr int kWarps = kQkvAdapterThreads / 32, kTogether = 4;
    __shared__ float cosine[kQkvAngles], sine[kQkvAngles];
    __shared__ alignas(16) float low[kQkvLowRank];
    const QkvArgs& a = args.qkv;
    letNextStart();
    const int half = a.headDim / 2, width = a.heads * (a.perHead + 2) * a.headDim, first = blockIdx.x * args.strip, count = min(args.strip, args.count - first), lowColumns = 2 * a.rank;
    for (int i = threadIdx.x; i < count * half; i += kQkvAdapterThreads) {
        const int r = i / half, k = i - r * half;
        turn(a.rows[first + r].position[a.axis[k]] * a.frequency[k], sine[i], cosine[i]);
    }
    const QkvUnit unit(a, blockIdx.y * 32 + threadIdx.x % 32);
    const bool there = unit.head * a.headDim < width;
    const int rank = there && (unit.query || unit.value) ? a.rank : 0;
    const float* b = (unit.query ? a.queryB : a.valueB) + static_cast<int64_t>((unit.query ? unit.head : unit.head - a.heads * (a.perHead + 1)) * a.headDim + unit.i) * rank;
    const float* t = low + (unit.value ? rank : 0);
    // Of rank 4 they stay in registers.
    float4 factors[2][8] = {};
    if (rank == 4) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            factors[0][j] = reinterpret_cast<const float4*>(b)[j];
            factors[1][j] = reinterpret_cast<const float4*>(b)[half + j];
        }
    }
    waitForEarlier();
    for (int i = threadIdx.x; i < count * lowColumns; i += kQkvAdapterThreads) low[i] = a.lowRank[static_cast<int64_t>(first) * lowColumns + i];
    __syncthreads();
    if (!there) return;

    const bf16* from = a.qkv + static_cast<int64_t>(first) * width + unit.head * a.headDim + unit.i;
    for (int r0 = threadIdx.x / 32; r0 < count; r0 += kTogether * kWarps) {
        uint4 lowers[kTogether], uppers[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const bf16* at = from + static_cast<int64_t>(min(r0 + k * kWarps, count - 1)) * width;
            lowers[k] = *reinterpret_cast<const uint4*>(at);
            uppers[k] = *reinterpret_cast<const uint4*>(at + half);
        }
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const int r = r0 + k * kWarps;
            if (r >= count) break;
            Eight lower = Eight::of(lowers[k]), upper = Eight::of(uppers[k]);
            const float* mine = t + r * lowColumns;
            if (rank == 4 && a.rows[first + r].adapter) {
                const float4 s = *reinterpret_cast<const float4*>(mine);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const float4 f = factors[0][j], g = factors[1][j];
                    lower.v[j] += f.x * s.x + f.y * s.y + f.z * s.z + f.w * s.w;
                    upper.v[j] += g.x * s.x + g.y * s.y + g.z * s.z + g.w * s.w;
                }
            } else if (a.rows[first + r].adapter) {
                for (int n = 0; n < rank; n++)
#pragma unroll
                    for (int j = 0; j < 8; j++) {
                        lower.v[j] += b[j * rank + n] * mine[n];
                        upper.v[j] += b[(half + j) * rank + n] * mine[n];
                    }
            }
            unit.finish(a, first + r, lower, upper, cosine + r * half, sine + r * half);
        }
    }
}
