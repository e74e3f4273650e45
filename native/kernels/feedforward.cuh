// The non-linearities between the products of a feed-forward block. x · sigmoid(x) and its kin are computed in float32.
#pragma once
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) lriad_gated_silu(const __grid_constant__ GatedSiluArgs a) {
    letNextStart();
    waitForEarlier();
    // Several at a time are under way.
    constexpr int kTogether = 4;
    const int chunks = a.columns / 8;
    const int64_t count = static_cast<int64_t>(a.rows) * chunks, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; first < count; first += kTogether * step) {
        uint4 gates[kTogether], ups[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const int64_t i = min(first + k * step, count - 1), row = i / chunks;
            const bf16* from = a.gateUp + row * 2 * a.columns + (i - row * chunks) * 8;
            gates[k] = *reinterpret_cast<const uint4*>(from);
            ups[k] = *reinterpret_cast<const uint4*>(from + a.columns);
        }
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            if (first + k * step >= count) continue;
            Eight gate = Eight::of(gates[k]);
            const Eight up = Eight::of(ups[k]);
#pragma unroll
            for (int j = 0; j < 8; j++) gate.v[j] = __fdividef(gate.v[j], 1 + __expf(-gate.v[j])) * up.v[j];
            gate.store(a.h + (first + k * step) * 8);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) lriad_gelu(const __grid_constant__ GeluArgs a) {
    letNextStart();
    waitForEarlier();
    // Several at a time are under way.
    constexpr int kTogether = 4;
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x, chunks = a.count / 8;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; first < chunks; first += kTogether * step) {
        uint4 raw[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; k++) raw[k] = first + k * step < chunks ? reinterpret_cast<const uint4*>(a.x)[first + k * step] : uint4{};
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            if (first + k * step >= chunks) continue;
            Eight e = Eight::of(raw[k]);
#pragma unroll
            for (int j = 0; j < 8; j++)
                e.v[j] = a.quick ? __fdividef(e.v[j], 1 + __expf(-1.702f * e.v[j])) : 0.5f * e.v[j] * (1 + erff(e.v[j] * 0.70710678f));
            e.store(a.h + (first + k * step) * 8);
        }
    }
}
