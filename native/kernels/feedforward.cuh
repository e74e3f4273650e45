// The non-linearities between the products of a feed-forward block. x · sigmoid(x) and its kin are computed in float32.
#pragma once
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) lriad_gated_silu(const __grid_constant__ GatedSiluArgs a) {
    letNextStart();
    waitForEarlier();
    const int chunks = a.columns / 8;
    const int64_t count = static_cast<int64_t>(a.rows) * chunks, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
        const int64_t row = i / chunks;
        const int c = static_cast<int>(i - row * chunks) * 8;
        Eight gate = Eight::load(a.gateUp + row * 2 * a.columns + c), up = Eight::load(a.gateUp + (row * 2 + 1) * a.columns + c);
#pragma unroll
        for (int j = 0; j < 8; j++) gate.v[j] = gate.v[j] / (1 + __expf(-gate.v[j])) * up.v[j];
        gate.store(a.h + row * a.columns + c);
    }
}

extern "C" __global__ void __launch_bounds__(256) lriad_gelu(const __grid_constant__ GeluArgs a) {
    letNextStart();
    waitForEarlier();
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.count / 8; i += step) {
        Eight e = Eight::load(a.x + i * 8);
#pragma unroll
        for (int j = 0; j < 8; j++)
            e.v[j] = a.quick ? e.v[j] / (1 + __expf(-1.702f * e.v[j])) : 0.5f * e.v[j] * (1 + erff(e.v[j] * 0.70710678f));
        e.store(a.h + i * 8);
    }
}
