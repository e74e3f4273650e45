// The low-rank half of the adapter over many rows, forward and backward: t = A·dropout(x) and dt = Bᵀ·dy are sums along a row, dA and dB sums over rows. Sums
// are float32. Projection 0 is that of queries, 1 that of values; four of the rank's directions at a time.
#pragma once
#include "common.cuh"
#include "philox.cuh"

constexpr int kFactorRows = 32, kLowRankRows = 16, kDirections = 4, kGradientColumns = 512;

namespace {

// Whether channels c · 8 … c · 8 + 7 of a row are kept: a bit each, all where there is no dropout.
__device__ __forceinline__ uint32_t keptBits(const uint32_t* mask, int64_t row, int words, int c) {
    return mask ? reinterpret_cast<const uint8_t*>(mask)[row * words * 4 + c] : 0xffu;
}

// What four bits leave of four bfloat16 values.
struct KeptTable {
    uint2 entries[16];

    __device__ __forceinline__ void fill() {
        const uint32_t i = threadIdx.x;
        if (i < 16) entries[i] = make_uint2((i & 1) * 0xffffu | (i >> 1 & 1) * 0xffff0000u, (i >> 2 & 1) * 0xffffu | (i >> 3 & 1) * 0xffff0000u);
    }

    __device__ __forceinline__ uint4 keep(uint4 x, uint32_t bits) const {
        const uint2 low = entries[bits & 15], high = entries[bits >> 4];
        return make_uint4(x.x & low.x, x.y & low.y, x.z & high.x, x.w & high.y);
    }
};

// Tensor cores take bfloat16. A float32 is the sum of two to within 2⁻¹⁷ of it: the nearest one, and the nearest to the rest.
__device__ __forceinline__ uint32_t halves(float a, float b, bool rest) {
    const uint32_t nearest = pack(a, b);
    if (!rest) return nearest;
    const float2 n = unpack(nearest);
    return pack(a - n.x, b - n.y);
}

}  // namespace

// A bit for every channel that dropout keeps: [projections, rows, words]. Word (i / 8) mod 4 of the block with counter i / 32 · 8 + i mod 8 decides on channel i (Philox.cs).
extern "C" __global__ void __launch_bounds__(256) lriad_dropout(const __grid_constant__ DropoutArgs a) {
    letNextStart();
    waitForEarlier();
    const int r = blockIdx.x, projection = blockIdx.y;
    const TokenRow& row = a.rows[r];
    for (int u = threadIdx.x; u < a.words * 8; u += blockDim.x) {
        const uint4 w = philox(a.keyLow, a.keyHigh, make_uint4(a.counter + (static_cast<uint32_t>(projection) << 18) + u, row.dropoutPosition, row.dropoutId, a.step));
        const int bit = u % 8;
        uint32_t bits = static_cast<uint32_t>(w.x >= a.threshold) << bit | static_cast<uint32_t>(w.y >= a.threshold) << (bit + 8) |
                        static_cast<uint32_t>(w.z >= a.threshold) << (bit + 16) | static_cast<uint32_t>(w.w >= a.threshold) << (bit + 24);
        // The eight threads of a word are neighbours, and all of them are here or none.
        const uint32_t them = 0xffu << (threadIdx.x % 32 / 8 * 8);
#pragma unroll
        for (int offset = 4; offset > 0; offset >>= 1) bits |= __shfl_xor_sync(them, bits, offset);
        if (bit == 0) a.mask[(static_cast<int64_t>(projection) * gridDim.x + r) * a.words + u / 8] = bits;
    }
}

// out[r, j] = scale · Σ x[r, c] · factor[j, c] over the channels kept; 0 for rows without adapter. A block has 16 rows, and its warps 32 columns in turn. Columns of the
// left operand are rows, those of the right one directions, the nearest bfloat16 values of the factor in front, what is left of it behind.
extern "C" __global__ void __launch_bounds__(256) lriad_low_rank(const __grid_constant__ LowRankArgs a) {
    constexpr int kWarps = 8, kTogether = 2;
    __shared__ float sums[kWarps][kLowRankRows][kDirections];
    __shared__ KeptTable table;
    letNextStart();
    table.fill();
    // Both projections of some rows side by side: the second finds x in the cache.
    const int projection = blockIdx.x % 2, lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, first = blockIdx.x / 2 * kLowRankRows;
    const LowRankSide side = a.sides[projection];
    const int words = (side.columns + 31) / 32;
    const int64_t rows[2] = {min(first + g, a.count - 1), min(first + g + 8, a.count - 1)};
    waitForEarlier();
    __syncthreads();
    for (int j0 = 0; j0 < a.rank; j0 += kDirections) {
        const int j = j0 + g % kDirections;
        const float* factor = side.factor + static_cast<int64_t>(min(j, a.rank - 1)) * side.rowStride;
        float sum[4] = {};
        for (int c0 = warp * 32; c0 < side.columns; c0 += kTogether * kWarps * 32) {
            uint4 x[kTogether][2];
            uint32_t bits[kTogether][2];
            float f[kTogether][8];
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                const int c = c0 + k * kWarps * 32 + t * 8;
                const bool there = c < side.columns;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    x[k][i] = there ? *reinterpret_cast<const uint4*>(a.x + rows[i] * a.stride + side.offset + c) : uint4{};
                    bits[k][i] = there ? keptBits(side.mask, rows[i], words, c / 8) : 0;
                }
                if (side.columnStride == 1) {
                    const float4 low = there ? *reinterpret_cast<const float4*>(factor + c) : float4{}, high = there ? *reinterpret_cast<const float4*>(factor + c + 4) : float4{};
                    f[k][0] = low.x; f[k][1] = low.y; f[k][2] = low.z; f[k][3] = low.w; f[k][4] = high.x; f[k][5] = high.y; f[k][6] = high.z; f[k][7] = high.w;
                } else {
#pragma unroll
                    for (int n = 0; n < 8; n++) f[k][n] = there ? factor[static_cast<int64_t>(c + n) * side.columnStride] : 0;
                }
            }
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                const bool rest = g >= kDirections;
                const uint4 above = table.keep(x[k][0], bits[k][0]), under = table.keep(x[k][1], bits[k][1]);
                const uint32_t front[4] = {above.x, under.x, above.y, under.y}, back[4] = {above.z, under.z, above.w, under.w};
                multiplyAdd(sum, front, halves(f[k][0], f[k][1], rest), halves(f[k][2], f[k][3], rest));
                multiplyAdd(sum, back, halves(f[k][4], f[k][5], rest), halves(f[k][6], f[k][7], rest));
            }
        }
        // Columns 2t and 2t + 1 of rows g and g + 8 are here, four columns on is what is left of the factor.
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
            if (t < 2) sums[warp][g + i / 2 * 8][2 * t + i % 2] = sum[i];
        }
        __syncthreads();
        const int r = threadIdx.x / kDirections, k = threadIdx.x % kDirections;
        if (r < kLowRankRows && first + r < a.count && j0 + k < a.rank) {
            float all = 0;
            for (int w = 0; w < kWarps; w++) all += sums[w][r][k];
            a.out[static_cast<int64_t>(first + r) * 2 * a.rank + projection * a.rank + j0 + k] = a.rows[first + r].adapter ? all * a.scale : 0;
        }
        __syncthreads();
    }
}

// Sums over some rows of s[r, j] · x[r, c], kept channels only: partials[projection, split, j, c].
extern "C" __global__ void __launch_bounds__(64) lriad_factor_gradient(const __grid_constant__ FactorGradientArgs a) {
    __shared__ float scalars[kFactorRows][kDirections];
    letNextStart();
    waitForEarlier();
    const int projection = blockIdx.y % 2, split = blockIdx.y / 2;
    const FactorSide side = a.sides[projection];
    const int c = blockIdx.x * (kGradientColumns / 8) + threadIdx.x, words = (side.columns + 31) / 32, first = split * a.splitRows, last = min(first + a.splitRows, a.count);
    const bool there = c * 8 < side.columns;
    for (int j0 = 0; j0 < a.rank; j0 += kDirections) {
        float sums[kDirections][8] = {};
        for (int from = first; from < last; from += kFactorRows) {
            __syncthreads();
            for (int i = threadIdx.x; i < kFactorRows * kDirections; i += 64) {
                const int r = from + i / kDirections, j = j0 + i % kDirections;
                scalars[i / kDirections][i % kDirections] = r < last && j < a.rank ? a.s[static_cast<int64_t>(r) * 2 * a.rank + projection * a.rank + j] : 0;
            }
            __syncthreads();
            if (!there) continue;
            constexpr int kTogether = 8;
            for (int r = from; r < min(from + kFactorRows, last); r += kTogether) {
                uint4 raw[kTogether];
                uint32_t bits[kTogether];
#pragma unroll
                for (int i = 0; i < kTogether; i++) {
                    const int row = min(r + i, last - 1);
                    raw[i] = *reinterpret_cast<const uint4*>(a.x + static_cast<int64_t>(row) * a.stride + side.offset + c * 8);
                    bits[i] = keptBits(side.mask, row, words, c);
                }
#pragma unroll
                for (int i = 0; i < kTogether; i++) {
                    const Eight e = Eight::of(raw[i]);
                    // Rows past the end have scalars of zero.
                    const float4 s = *reinterpret_cast<const float4*>(scalars[r - from + i]);
                    const float weights[kDirections] = {s.x, s.y, s.z, s.w};
#pragma unroll
                    for (int n = 0; n < 8; n++) {
                        const float value = bits[i] >> n & 1 ? e.v[n] : 0.0f;
#pragma unroll
                        for (int j = 0; j < kDirections; j++) sums[j][n] += weights[j] * value;
                    }
                }
            }
        }
        if (!there) continue;
#pragma unroll
        for (int j = 0; j < kDirections; j++) {
            if (j0 + j >= a.rank) continue;
            float* out = a.partials + side.firstPartial + (static_cast<int64_t>(split) * a.rank + j0 + j) * side.columns + c * 8;
            *reinterpret_cast<float4*>(out) = make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]);
            *reinterpret_cast<float4*>(out + 4) = make_float4(sums[j][4], sums[j][5], sums[j][6], sums[j][7]);
        }
    }
}

// gradient += scale · the splits' sums, in their order.
extern "C" __global__ void __launch_bounds__(256) lriad_factor_finish(const __grid_constant__ FactorGradientArgs a) {
    letNextStart();
    waitForEarlier();
    const FactorSide side = a.sides[blockIdx.y];
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= a.rank * side.columns) return;
    const int j = i / side.columns, c = i - j * side.columns;
    float sum = 0;
    for (int split = 0; split < a.splits; split++) sum += a.partials[side.firstPartial + static_cast<int64_t>(split) * a.rank * side.columns + i];
    side.gradient[static_cast<int64_t>(j) * side.rowStride + static_cast<int64_t>(c) * side.columnStride] += a.scale * sum;
}

// dx[r, c] += scale · Σ s[r, j] · A[j, c] of both projections, each for the channels it kept. A thread has eight columns of some rows, several of which are under way.
extern "C" __global__ void __launch_bounds__(kGradientColumns / 8) lriad_low_rank_backward(const __grid_constant__ LowRankBackwardArgs a) {
    constexpr int kTogether = 4;
    letNextStart();
    const int c = blockIdx.x * (kGradientColumns / 8) + threadIdx.x, words = (a.columns + 31) / 32;
    if (c * 8 >= a.columns) return;
    const int first = blockIdx.y * kFactorRows, last = min(first + kFactorRows, a.count);
    for (int j0 = 0; j0 < a.rank; j0 += kDirections) {
        float factor[2][kDirections][8];
#pragma unroll
        for (int p = 0; p < 2; p++)
#pragma unroll
            for (int j = 0; j < kDirections; j++)
#pragma unroll
                for (int n = 0; n < 8; n++) factor[p][j][n] = j0 + j < a.rank ? (p == 0 ? a.queryA : a.valueA)[static_cast<int64_t>(j0 + j) * a.columns + c * 8 + n] : 0;
        if (j0 == 0) waitForEarlier();
        for (int r0 = first; r0 < last; r0 += kTogether) {
            uint4 raw[kTogether];
            uint32_t bits[kTogether][2];
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                const int64_t r = min(r0 + k, last - 1);
                raw[k] = *reinterpret_cast<const uint4*>(a.dx + r * a.columns + c * 8);
                bits[k][0] = keptBits(a.queryMask, r, words, c);
                bits[k][1] = keptBits(a.valueMask, r, words, c);
            }
#pragma unroll
            for (int k = 0; k < kTogether; k++) {
                if (r0 + k >= last) break;
                const int64_t r = r0 + k;
                Eight e = Eight::of(raw[k]);
#pragma unroll
                for (int p = 0; p < 2; p++) {
                    const float* s = a.s + (r * 2 + p) * a.rank + j0;
                    float weights[kDirections];
#pragma unroll
                    for (int j = 0; j < kDirections; j++) weights[j] = j0 + j < a.rank ? a.scale * s[j] : 0;
#pragma unroll
                    for (int n = 0; n < 8; n++) {
                        float sum = 0;
#pragma unroll
                        for (int j = 0; j < kDirections; j++) sum += weights[j] * factor[p][j][n];
                        e.v[n] += bits[k][p] >> n & 1 ? sum : 0.0f;
                    }
                }
                e.store(a.dx + r * a.columns + c * 8);
            }
        }
    }
}
