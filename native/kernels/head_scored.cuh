// From logits to log-probs where nothing is drawn.
#pragma once
#include "head.cuh"

// Maximum, Σ e and Σ e·z of one part of a row's vocabulary; all of a thread's loads are under way together.
extern "C" __global__ void __launch_bounds__(kHeadThreads) lriad_head_scored(const __grid_constant__ HeadArgs a) {
    constexpr int kHeld = 5;
    letNextStart();
    waitForEarlier();
    const int r = blockIdx.x, split = blockIdx.y, groups = (a.vocabulary + 31) / 32;
    const float4* logits = reinterpret_cast<const float4*>(a.logits + static_cast<int64_t>(r) * a.vocabulary);
    const float inverse = inverseTemperature(a, r);
    const int from = static_cast<int>(static_cast<int64_t>(groups) * split / a.splits) * 8, to = min(static_cast<int>(static_cast<int64_t>(groups) * (split + 1) / a.splits) * 8, a.vocabulary / 4);
    HeadPart part = {-INFINITY, 0, 0, -INFINITY, -1};
    for (int first = from + threadIdx.x; first < to; first += kHeld * kHeadThreads) {
        float4 raw[kHeld];
#pragma unroll
        for (int i = 0; i < kHeld; i++) raw[i] = logits[min(first + i * kHeadThreads, to - 1)];
        float z[kHeld][4], max = -INFINITY;
#pragma unroll
        for (int i = 0; i < kHeld; i++) {
            const bool there = first + i * kHeadThreads < to;
            const float values[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                z[i][j] = there ? __fmul_rn(values[j], inverse) : -INFINITY;
                max = fmaxf(max, z[i][j]);
            }
        }
        float sum = 0, weighted = 0;
#pragma unroll
        for (int i = 0; i < kHeld; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                // What is not there adds nothing.
                const float below = fmaxf(z[i][j] - max, -1e30f), e = power2(below * kLog2E);
                sum += e;
                weighted += e * below;
            }
        join(part, max, sum, weighted);
    }
    joinBlock(a, part);
}
