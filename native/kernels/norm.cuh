// Norms, and the low-rank half of the adapter that starts from their result.
#pragma once
#include "common.cuh"

constexpr int kNormThreads = 512;

extern "C" __global__ void __launch_bounds__(kNormThreads) lriad_norm(const __grid_constant__ NormArgs a) {
    __shared__ float scratch[kNormThreads / 32];
    const int r = blockIdx.x, chunks = a.columns / 8;
    letNextStart();
    // Weights are there from the beginning, and as a rule a thread needs no more than these.
    uint4 weight = {}, bias = {};
    auto loadWeights = [&](int c) {
        weight = reinterpret_cast<const uint4*>(a.weight)[c];
        if (a.bias) bias = reinterpret_cast<const uint4*>(a.bias)[c];
    };
    if (static_cast<int>(threadIdx.x) < chunks) loadWeights(threadIdx.x);
    waitForEarlier();
    const int row = a.gather ? *reinterpret_cast<const int*>(a.gather + static_cast<int64_t>(r) * a.gatherStride) : r;
    const bf16* x = a.x + static_cast<int64_t>(row) * a.columns;
    bf16* y = a.y + static_cast<int64_t>(r) * a.columns;

    float sum = 0, squares = 0;
    for (int c = threadIdx.x; c < chunks; c += static_cast<int>(blockDim.x)) {
        Eight e = Eight::load(x + c * 8);
#pragma unroll
        for (int i = 0; i < 8; i++) { sum += e.v[i]; squares += e.v[i] * e.v[i]; }
    }
    float mean = 0;
    if (a.layerNorm) {
        mean = blockSum(sum, scratch) / a.columns;
        squares = 0;
        for (int c = threadIdx.x; c < chunks; c += static_cast<int>(blockDim.x)) {
            Eight e = Eight::load(x + c * 8);
#pragma unroll
            for (int i = 0; i < 8; i++) squares += (e.v[i] - mean) * (e.v[i] - mean);
        }
    }
    const float inverse = rsqrtf(blockSum(squares, scratch) / a.columns + a.epsilon);

    for (int c = threadIdx.x; c < chunks; c += static_cast<int>(blockDim.x)) {
        Eight e = Eight::load(x + c * 8);
        if (c >= static_cast<int>(blockDim.x)) loadWeights(c);
        const Eight w = Eight::of(weight), b = Eight::of(bias);
#pragma unroll
        for (int i = 0; i < 8; i++) e.v[i] = (e.v[i] - mean) * inverse * w.v[i] + b.v[i];
        e.store(y + c * 8);
    }
    if (a.rank == 0) return;

    // A thread reads again only what it wrote itself.
    const bool on = a.rows[r].adapter != 0;
    for (int j = 0; j < 2 * a.rank; j++) {
        const float* factor = j < a.rank ? a.queryA + static_cast<int64_t>(j) * a.columns : a.valueA + static_cast<int64_t>(j - a.rank) * a.columns;
        float dot = 0;
        for (int c = threadIdx.x; on && c < chunks; c += static_cast<int>(blockDim.x)) {
            Eight e = Eight::load(y + c * 8);
            float4 f = *reinterpret_cast<const float4*>(factor + c * 8), g = *reinterpret_cast<const float4*>(factor + c * 8 + 4);
            dot += e.v[0] * f.x + e.v[1] * f.y + e.v[2] * f.z + e.v[3] * f.w + e.v[4] * g.x + e.v[5] * g.y + e.v[6] * g.z + e.v[7] * g.w;
        }
        dot = blockSum(dot, scratch);
        if (threadIdx.x == 0) a.lowRank[static_cast<int64_t>(r) * 2 * a.rank + j] = dot;
    }
}
