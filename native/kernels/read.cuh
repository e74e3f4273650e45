// Reading device memory and nothing else: the ceiling that the weight-streaming kernels are measured against.
#pragma once
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(512) lriad_read(const __grid_constant__ ReadArgs a) {
    constexpr int kInFlight = 8;
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    uint32_t mixed = 0;
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; i + (kInFlight - 1) * step < a.count; i += kInFlight * step) {
        uint4 values[kInFlight];
#pragma unroll
        for (int j = 0; j < kInFlight; j++) values[j] = __ldcs(a.from + i + j * step);
#pragma unroll
        for (int j = 0; j < kInFlight; j++) mixed ^= values[j].x ^ values[j].y ^ values[j].z ^ values[j].w;
    }
    // Never so, but the compiler cannot know.
    if (mixed == 0x9E3779B9u) *a.sink = 1;
}
