// Norms.
#pragma once
#include "common.cuh"

constexpr int kNormThreads = 128;

// A warp a row, which it holds in registers as far as that goes: 4,096 columns.
extern "C" __global__ void __launch_bounds__(kNormThreads) lriad_norm(const __grid_constant__ NormArgs a) {
    constexpr int kHeld = 16;
    const int r = blockIdx.x * (kNormThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, chunks = a.columns / 8;
    letNextStart();
    waitForEarlier();
    if (r >= a.count) return;
    const int row = a.gather ? *reinterpret_cast<const int*>(a.gather + static_cast<int64_t>(r) * a.gatherStride) : r;
    const uint4* x = reinterpret_cast<const uint4*>(a.x + static_cast<int64_t>(row) * a.columns);
    bf16* y = a.y + static_cast<int64_t>(r) * a.columns;

    uint4 held[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; i++) held[i] = lane + i * 32 < chunks ? x[lane + i * 32] : uint4{};
    auto each = [&](auto work) {
#pragma unroll
        for (int i = 0; i < kHeld; i++)
            if (lane + i * 32 < chunks) work(lane + i * 32, Eight::of(held[i]));
        for (int c = lane + kHeld * 32; c < chunks; c += 32) work(c, Eight::of(x[c]));
    };
    float mean = 0, squares = 0;
    if (a.layerNorm) {
        float sum = 0;
        each([&](int, const Eight& e) {
#pragma unroll
            for (int i = 0; i < 8; i++) sum += e.v[i];
        });
        mean = warpSum(sum) / a.columns;
    }
    each([&](int, const Eight& e) {
#pragma unroll
        for (int i = 0; i < 8; i++) squares += (e.v[i] - mean) * (e.v[i] - mean);
    });
    const float inverse = rsqrtf(warpSum(squares) / a.columns + a.epsilon);
    each([&](int c, Eight e) {
        const Eight w = Eight::load(a.weight + c * 8), b = a.bias ? Eight::load(a.bias + c * 8) : Eight{};
#pragma unroll
        for (int i = 0; i < 8; i++) e.v[i] = (e.v[i] - mean) * inverse * w.v[i] + b.v[i];
        e.store(y + c * 8);
    });
}
