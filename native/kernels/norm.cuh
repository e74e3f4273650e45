// Norms.
#pragma once
#include "common.cuh"

constexpr int kNormThreads = 256;

// A block a row, a thread two chunks of eight columns as a rule, all of whose loads are under way together.
extern "C" __global__ void __launch_bounds__(kNormThreads) lriad_norm(const __grid_constant__ NormArgs a) {
    constexpr int kHeld = 2;
    __shared__ float sums[2][kNormThreads / 32];
    const int chunks = a.columns / 8, first = threadIdx.x, step = blockDim.x;
    letNextStart();
    const uint4 *weight = reinterpret_cast<const uint4*>(a.weight), *bias = reinterpret_cast<const uint4*>(a.bias);
    uint4 weights[kHeld], biases[kHeld] = {}, held[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
        const int c = min(first + i * step, chunks - 1);
        weights[i] = weight[c];
        if (bias) biases[i] = bias[c];
    }
    waitForEarlier();
    const int row = a.gather ? *reinterpret_cast<const int*>(a.gather + static_cast<int64_t>(blockIdx.x) * a.gatherStride) : blockIdx.x;
    const uint4* x = reinterpret_cast<const uint4*>(a.x + static_cast<int64_t>(row) * a.columns);
    bf16* y = a.y + static_cast<int64_t>(blockIdx.x) * a.columns;
#pragma unroll
    for (int i = 0; i < kHeld; i++) held[i] = x[min(first + i * step, chunks - 1)];

    // work(c, columns 8c to 8c + 7 of the row, of the weight, of the bias) for each of the thread's chunks.
    const auto each = [&](auto work) {
#pragma unroll
        for (int i = 0; i < kHeld; i++)
            if (first + i * step < chunks) work(first + i * step, Eight::of(held[i]), Eight::of(weights[i]), Eight::of(biases[i]));
        for (int c = first + kHeld * step; c < chunks; c += step) work(c, Eight::of(x[c]), Eight::of(weight[c]), bias ? Eight::of(bias[c]) : Eight{});
    };
    const auto total = [&](float sum, int which) {
        sum = warpSum(sum);
        if (threadIdx.x % 32 == 0) sums[which][threadIdx.x / 32] = sum;
        __syncthreads();
        float all = 0;
        for (int warp = 0; warp < step / 32; warp++) all += sums[which][warp];
        return all;
    };
    float mean = 0, squares = 0;
    if (a.layerNorm) {
        float sum = 0;
        each([&](int, const Eight& e, const Eight&, const Eight&) {
#pragma unroll
            for (int i = 0; i < 8; i++) sum += e.v[i];
        });
        mean = total(sum, 0) / a.columns;
    }
    each([&](int, const Eight& e, const Eight&, const Eight&) {
#pragma unroll
        for (int i = 0; i < 8; i++) squares += (e.v[i] - mean) * (e.v[i] - mean);
    });
    const float inverse = rsqrtf(total(squares, 1) / a.columns + a.epsilon);
    each([&](int c, Eight e, const Eight& w, const Eight& b) {
#pragma unroll
        for (int i = 0; i < 8; i++) e.v[i] = (e.v[i] - mean) * inverse * w.v[i] + b.v[i];
        e.store(y + c * 8);
    });
}
