// Rows and pixels looked up, and values brought to bfloat16.
#pragma once
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128) lriad_embed(const __grid_constant__ EmbedArgs a) {
    letNextStart();
    waitForEarlier();
    const int id = a.ids[blockIdx.x];
    const bf16* from = id >= 0 ? a.table + static_cast<int64_t>(id) * a.columns : a.features + static_cast<int64_t>(-id - 1) * a.columns;
    bf16* to = a.x + static_cast<int64_t>(blockIdx.x) * a.columns;
    for (int c = threadIdx.x; c < a.columns / 8; c += blockDim.x)
        reinterpret_cast<uint4*>(to)[c] = reinterpret_cast<const uint4*>(from)[c];
}

extern "C" __global__ void __launch_bounds__(256) lriad_convert(const __grid_constant__ ConvertArgs a) {
    letNextStart();
    waitForEarlier();
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.count; i += step) a.to[i] = __float2bfloat16_rn(a.from[i]);
}

// A block a patch.
extern "C" __global__ void __launch_bounds__(128) lriad_pixels(const __grid_constant__ PixelsArgs a) {
    letNextStart();
    waitForEarlier();
    const uint8_t* levels = a.levels + static_cast<int64_t>(blockIdx.x) * 3 * a.area;
    bf16* pixels = a.pixels + static_cast<int64_t>(blockIdx.x) * 3 * a.frames * a.area;
    for (int i = threadIdx.x; i < 3 * a.area; i += blockDim.x) {
        const int channel = i / a.area, at = channel * a.frames * a.area + i - channel * a.area;
        const bf16 value = __float2bfloat16_rn(a.values[channel * 256 + levels[i]]);
        for (int frame = 0; frame < a.frames; frame++) pixels[at + frame * a.area] = value;
    }
}
