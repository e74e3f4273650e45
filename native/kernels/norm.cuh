// Norms.
#pragma once
#include "common.cuh"

constexpr int kNormThreads = 128;

// A row, which a warp holds in registers as far as that goes: 4,096 columns.
struct HeldRow {
    static constexpr int kHeld = 16;
    const uint4* x;
    int chunks, lane;
    uint4 held[kHeld];

    __device__ __forceinline__ HeldRow(const bf16* row, int chunks, int lane) : x(reinterpret_cast<const uint4*>(row)), chunks(chunks), lane(lane) {
#pragma unroll
        for (int i = 0; i < kHeld; i++) held[i] = lane + i * 32 < chunks ? x[lane + i * 32] : uint4{};
    }

    // work(c, columns 8c to 8c + 7), a thread every 32nd c.
    template <typename Work> __device__ __forceinline__ void each(Work work) const {
#pragma unroll
        for (int i = 0; i < kHeld; i++)
            if (lane + i * 32 < chunks) work(lane + i * 32, Eight::of(held[i]));
        for (int c = lane + kHeld * 32; c < chunks; c += 32) work(c, Eight::of(x[c]));
    }
};

// A warp a row.
extern "C" __global__ void __launch_bounds__(kNormThreads) lriad_norm(const __grid_constant__ NormArgs a) {
    const int r = blockIdx.x * (kNormThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, chunks = a.columns / 8;
    letNextStart();
    waitForEarlier();
    if (r >= a.count) return;
    const int row = a.gather ? *reinterpret_cast<const int*>(a.gather + static_cast<int64_t>(r) * a.gatherStride) : r;
    bf16* y = a.y + static_cast<int64_t>(r) * a.columns;

    const HeldRow held(a.x + static_cast<int64_t>(row) * a.columns, chunks, lane);
    float mean = 0, squares = 0;
    if (a.layerNorm) {
        float sum = 0;
        held.each([&](int, const Eight& e) {
#pragma unroll
            for (int i = 0; i < 8; i++) sum += e.v[i];
        });
        mean = warpSum(sum) / a.columns;
    }
    held.each([&](int, const Eight& e) {
#pragma unroll
        for (int i = 0; i < 8; i++) squares += (e.v[i] - mean) * (e.v[i] - mean);
    });
    const float inverse = rsqrtf(warpSum(squares) / a.columns + a.epsilon);
    held.each([&](int c, Eight e) {
        const Eight w = Eight::load(a.weight + c * 8), b = a.bias ? Eight::load(a.bias + c * 8) : Eight{};
#pragma unroll
        for (int i = 0; i < 8; i++) e.v[i] = (e.v[i] - mean) * inverse * w.v[i] + b.v[i];
        e.store(y + c * 8);
    });
}
