// After the products of attention's start: low-rank update, rotary, cache.
#pragma once
#include "common.cuh"

constexpr int kQkvThreads = 384, kMaxHalf = 128;

namespace {

// e += B[o … o + 7] · t
__device__ __forceinline__ void addLowRank(Eight& e, const float* b, int o, const float* t, int rank) {
    if (rank == 4) {
        const float4 s = *reinterpret_cast<const float4*>(t);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float4 f = *reinterpret_cast<const float4*>(b + static_cast<int64_t>(o + i) * 4);
            e.v[i] += f.x * s.x + f.y * s.y + f.z * s.z + f.w * s.w;
        }
        return;
    }
    for (int j = 0; j < rank; j++)
#pragma unroll
        for (int i = 0; i < 8; i++) e.v[i] += b[static_cast<int64_t>(o + i) * rank + j] * t[j];
}

}  // namespace

// A block a row. A head's columns i and i + headDim/2 turn together; a thread takes eight such pairs at a time.
extern "C" __global__ void __launch_bounds__(kQkvThreads) lriad_qkv(const __grid_constant__ QkvArgs a) {
    __shared__ float cosine[kMaxHalf], sine[kMaxHalf];
    __shared__ alignas(16) float low[256];
    letNextStart();
    // Rows come from the host before a pass's first kernel, so the angles can be taken while the products in front are still being made.
    const TokenRow& row = a.rows[blockIdx.x];
    const int half = a.headDim / 2, units = half / 8, queries = a.heads * a.perHead;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float s, c;
        turn(a.rows[blockIdx.x].position[a.axis[i]] * a.frequency[i], s, c);
        cosine[i] = c;
        sine[i] = s;
    }
    waitForEarlier();
    const int rank = row.adapter ? a.rank : 0;
    for (int i = threadIdx.x; i < 2 * rank; i += blockDim.x) low[i] = a.lowRank[static_cast<int64_t>(blockIdx.x) * 2 * a.rank + i];
    __syncthreads();

    bf16* q = a.q + static_cast<int64_t>(blockIdx.x) * queries * a.headDim;
    const bf16* qkv = a.qkv + static_cast<int64_t>(blockIdx.x) * (queries + 2 * a.heads) * a.headDim;
    const int plane = a.heads * 64 * a.headDim;
    bf16* slot = a.kv + static_cast<int64_t>(row.slot / 64) * 2 * plane + (row.slot % 64) * a.headDim;

    for (int u = threadIdx.x; u < (queries + 2 * a.heads) * units; u += blockDim.x) {
        const int head = u / units, i = (u - head * units) * 8;
        const bool query = head < queries, value = head >= queries + a.heads;
        const bf16* from = qkv + head * a.headDim + i;
        bf16* to = query ? q + head * a.headDim + i : slot + (value ? plane : 0) + (head - queries - (value ? a.heads : 0)) * 64 * a.headDim + i;
        Eight lower = Eight::load(from), upper = Eight::load(from + half);
        if (rank > 0 && (query || value)) {
            const float *b = query ? a.queryB : a.valueB, *t = query ? low : low + rank;
            const int o = (query ? head : head - queries - a.heads) * a.headDim + i;
            addLowRank(lower, b, o, t, rank);
            addLowRank(upper, b, o + half, t, rank);
        }
        if (!value) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float x = lower.v[j];
                lower.v[j] = x * cosine[i + j] - upper.v[j] * sine[i + j];
                upper.v[j] = upper.v[j] * cosine[i + j] + x * sine[i + j];
            }
        }
        lower.store(to);
        upper.store(to + half);
    }
}
