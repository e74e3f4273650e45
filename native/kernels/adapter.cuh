// The low-rank half of the adapter over many rows, forward and backward: t = A·dropout(x) and dt = Bᵀ·dy are sums along a row, dA and dB sums over rows. All in
// float32. Projection 0 is that of queries, 1 that of values; four of the rank's directions at a time.
#pragma once
#include "common.cuh"
#include "philox.cuh"

constexpr int kFactorRows = 32, kLowRankRows = 16, kFactorChunk = 1024, kDirections = 4, kGradientColumns = 512;

namespace {

// Whether channels c · 8 … c · 8 + 7 of a row are kept: a bit each, all where there is no dropout.
__device__ __forceinline__ uint32_t keptBits(const uint32_t* mask, int64_t row, int words, int c) {
    return mask ? mask[row * words + c / 4] >> (c % 4 * 8) & 0xff : 0xffu;
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

// out[r, j] = scale · Σ x[r, c] · factor[j, c] over the channels kept; 0 for rows without adapter. A warp has two rows.
extern "C" __global__ void __launch_bounds__(256) lriad_low_rank(const __grid_constant__ LowRankArgs a) {
    constexpr int kRows = kLowRankRows / 8, kSteps = kFactorChunk / 256;
    // Of eight neighbouring columns the first four, then the last four, lie in a line: no bank is asked twice.
    __shared__ float4 factor[kDirections][kSteps][2][32];
    letNextStart();
    waitForEarlier();
    const LowRankSide side = a.sides[blockIdx.y];
    const int lane = threadIdx.x % 32, first = blockIdx.x * kLowRankRows + threadIdx.x / 32 * kRows, words = (side.columns + 31) / 32;
    for (int j0 = 0; j0 < a.rank; j0 += kDirections) {
        float sums[kRows][kDirections] = {};
        for (int from = 0; from < side.columns; from += kFactorChunk) {
            __syncthreads();
            for (int i = threadIdx.x; i < kDirections * kFactorChunk; i += 256) {
                // Neighbouring threads read neighbouring floats, whichever way the factor lies.
                const int j = side.columnStride == 1 ? i / kFactorChunk : i % kDirections, c = side.columnStride == 1 ? i % kFactorChunk : i / kDirections;
                const bool there = j0 + j < a.rank && from + c < side.columns;
                reinterpret_cast<float*>(&factor[j][c / 256][c / 4 % 2][c / 8 % 32])[c % 4] =
                    there ? side.factor[static_cast<int64_t>(j0 + j) * side.rowStride + static_cast<int64_t>(from + c) * side.columnStride] : 0;
            }
            uint4 raw[kRows][kSteps];
            uint32_t bits[kRows][kSteps];
#pragma unroll
            for (int i = 0; i < kRows; i++)
#pragma unroll
                for (int k = 0; k < kSteps; k++) {
                    const int c = from / 8 + k * 32 + lane, r = min(first + i, a.count - 1);
                    const bool there = c * 8 < side.columns;
                    raw[i][k] = there ? *reinterpret_cast<const uint4*>(a.x + static_cast<int64_t>(r) * a.stride + side.offset + c * 8) : uint4{};
                    bits[i][k] = there ? keptBits(side.mask, r, words, c) : 0;
                }
            __syncthreads();
#pragma unroll
            for (int k = 0; k < kSteps; k++) {
                Eight x[kRows];
#pragma unroll
                for (int i = 0; i < kRows; i++) {
                    x[i] = Eight::of(raw[i][k]);
#pragma unroll
                    for (int n = 0; n < 8; n++) x[i].v[n] = bits[i][k] >> n & 1 ? x[i].v[n] : 0;
                }
#pragma unroll
                for (int j = 0; j < kDirections; j++) {
                    const float4 low = factor[j][k][0][lane], high = factor[j][k][1][lane];
                    const float f[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
                    for (int i = 0; i < kRows; i++)
#pragma unroll
                        for (int n = 0; n < 8; n++) sums[i][j] += x[i].v[n] * f[n];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kRows; i++)
#pragma unroll
            for (int j = 0; j < kDirections; j++) {
                const float sum = warpSum(sums[i][j]);
                if (lane == 0 && first + i < a.count && j0 + j < a.rank)
                    a.out[static_cast<int64_t>(first + i) * 2 * a.rank + blockIdx.y * a.rank + j0 + j] = a.rows[first + i].adapter ? sum * a.scale : 0;
            }
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

// dx[r, c] += scale · Σ s[r, j] · A[j, c] of both projections, each for the channels it kept. A thread has eight columns of some rows.
extern "C" __global__ void __launch_bounds__(64) lriad_low_rank_backward(const __grid_constant__ LowRankBackwardArgs a) {
    letNextStart();
    waitForEarlier();
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
        for (int r = first; r < last; r++) {
            bf16* at = a.dx + static_cast<int64_t>(r) * a.columns + c * 8;
            Eight e = Eight::load(at);
#pragma unroll
            for (int p = 0; p < 2; p++) {
                const uint32_t bits = keptBits(p == 0 ? a.queryMask : a.valueMask, r, words, c);
                const float* s = a.s + (static_cast<int64_t>(r) * 2 + p) * a.rank + j0;
                float weights[kDirections];
#pragma unroll
                for (int j = 0; j < kDirections; j++) weights[j] = j0 + j < a.rank ? a.scale * s[j] : 0;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    float sum = 0;
#pragma unroll
                    for (int j = 0; j < kDirections; j++) sum += weights[j] * factor[p][j][n];
                    e.v[n] += bits >> n & 1 ? sum : 0.0f;
                }
            }
            e.store(at);
        }
    }
}
