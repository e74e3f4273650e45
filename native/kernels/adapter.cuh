// The low-rank half of the adapter over many rows, forward and backward: t = A·dropout(x) and dt = Bᵀ·dy are sums along a row, dA and dB sums over rows. All in
// float32. Projection 0 is that of queries, 1 that of values; four of the rank's directions at a time.
#pragma once
#include "common.cuh"
#include "philox.cuh"

constexpr int kLowRankRows = 16, kDirections = 4, kGradientThreads = 256, kGradientColumns = kGradientThreads * 2, kSpreadRows = 32, kSpreadColumns = 512;

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
    const uint32_t near = pack(a, b);
    if (!rest) return near;
    const float2 n = unpack(near);
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
    constexpr int kWarps = 8;
    __shared__ float sums[kWarps][kLowRankRows][kDirections];
    __shared__ KeptTable table;
    letNextStart();
    table.fill();
    const LowRankSide side = a.sides[blockIdx.y];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, first = blockIdx.x * kLowRankRows, words = (side.columns + 31) / 32;
    const int64_t rows[2] = {min(first + g, a.count - 1), min(first + g + 8, a.count - 1)};
    waitForEarlier();
    __syncthreads();
    for (int j0 = 0; j0 < a.rank; j0 += kDirections) {
        const int j = j0 + g % kDirections;
        const float* factor = side.factor + static_cast<int64_t>(min(j, a.rank - 1)) * side.rowStride;
        float sum[4] = {};
#pragma unroll 4
        for (int c = warp * 32 + t * 8; c < (side.columns + 31) / 32 * 32; c += kWarps * 32) {
            const bool there = c < side.columns;
            float f[8];
            if (side.columnStride == 1) {
                const float4 low = there ? *reinterpret_cast<const float4*>(factor + c) : float4{}, high = there ? *reinterpret_cast<const float4*>(factor + c + 4) : float4{};
                f[0] = low.x; f[1] = low.y; f[2] = low.z; f[3] = low.w; f[4] = high.x; f[5] = high.y; f[6] = high.z; f[7] = high.w;
            } else {
#pragma unroll
                for (int n = 0; n < 8; n++) f[n] = there ? factor[static_cast<int64_t>(c + n) * side.columnStride] : 0;
            }
            uint4 x[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                x[i] = there ? *reinterpret_cast<const uint4*>(a.x + rows[i] * a.stride + side.offset + c) : uint4{};
                if (side.mask) x[i] = table.keep(x[i], there ? keptBits(side.mask, rows[i], words, c / 8) : 0);
            }
            const bool rest = g >= kDirections;
            const uint32_t near[4] = {x[0].x, x[1].x, x[0].y, x[1].y}, far[4] = {x[0].z, x[1].z, x[0].w, x[1].w};
            multiplyAdd(sum, near, halves(f[0], f[1], rest), halves(f[2], f[3], rest));
            multiplyAdd(sum, far, halves(f[4], f[5], rest), halves(f[6], f[7], rest));
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
            a.out[static_cast<int64_t>(first + r) * 2 * a.rank + blockIdx.y * a.rank + j0 + k] = a.rows[first + r].adapter ? all * a.scale : 0;
        }
        __syncthreads();
    }
}

// Sums over some rows of s[r, j] · x[r, c], kept channels only: partials[projection, split, j, c]. A warp has 64 columns, 16 rows at a time: rows are what is summed over, so
// that the left operand are directions, s's nearest bfloat16 values above, what is left of s below, and columns of the right one columns: 8n + i of the 64 in its i-th tile.
extern "C" __global__ void __launch_bounds__(kGradientThreads) lriad_factor_gradient(const __grid_constant__ FactorGradientArgs a) {
    __shared__ KeptTable table;
    letNextStart();
    table.fill();
    const int projection = blockIdx.y % 2, split = blockIdx.y / 2;
    const FactorSide side = a.sides[projection];
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, words = (side.columns + 31) / 32;
    const int from = blockIdx.x * kGradientColumns + threadIdx.x / 32 * 64, c = from + g * 8, first = split * a.splitRows, last = min(first + a.splitRows, a.count);
    const bool there = c < side.columns;
    waitForEarlier();
    __syncthreads();
    if (from >= side.columns) return;
    for (int j0 = 0; j0 < a.rank; j0 += kDirections) {
        const int j = j0 + g % kDirections;
        float sums[8][4] = {};
#pragma unroll 2
        for (int r0 = first; r0 < last; r0 += 16) {
            float s[4];
            uint4 x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int r = r0 + 2 * t + i % 2 + i / 2 * 8;
                const int64_t row = min(r, last - 1);
                s[i] = r < last && j < a.rank ? a.s[row * 2 * a.rank + projection * a.rank + j] : 0;
                x[i] = there ? *reinterpret_cast<const uint4*>(a.x + row * a.stride + side.offset + c) : uint4{};
                if (side.mask) x[i] = table.keep(x[i], there ? keptBits(side.mask, row, words, c / 8) : 0);
            }
            const bool rest = g >= kDirections;
            const uint32_t left[4] = {halves(s[0], s[1], rest), 0, halves(s[2], s[3], rest), 0};
            const uint32_t above[4] = {x[0].x, x[0].y, x[0].z, x[0].w}, under[4] = {x[1].x, x[1].y, x[1].z, x[1].w};
            const uint32_t above8[4] = {x[2].x, x[2].y, x[2].z, x[2].w}, under8[4] = {x[3].x, x[3].y, x[3].z, x[3].w};
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint32_t which = i % 2 ? 0x7632 : 0x5410;
                multiplyAdd(sums[i], left, __byte_perm(above[i / 2], under[i / 2], which), __byte_perm(above8[i / 2], under8[i / 2], which));
            }
        }
        // Columns 16t + i and 16t + 8 + i of direction g are here, four directions on is what is left of s.
        float all[16];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            all[i] = sums[i][0] + __shfl_xor_sync(~0u, sums[i][0], 16);
            all[8 + i] = sums[i][1] + __shfl_xor_sync(~0u, sums[i][1], 16);
        }
        const bool mine = g < kDirections && j < a.rank;
        float* out = a.partials + side.firstPartial + (static_cast<int64_t>(split) * a.rank + j) * side.columns + from + 16 * t;
#pragma unroll
        for (int i = 0; i < 16; i += 4)
            if (mine && from + 16 * t + i < side.columns) *reinterpret_cast<float4*>(out + i) = make_float4(all[i], all[i + 1], all[i + 2], all[i + 3]);
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
extern "C" __global__ void __launch_bounds__(kSpreadColumns / 8) lriad_low_rank_backward(const __grid_constant__ LowRankBackwardArgs a) {
    constexpr int kTogether = 4;
    letNextStart();
    const int c = blockIdx.x * (kSpreadColumns / 8) + threadIdx.x, words = (a.columns + 31) / 32;
    if (c * 8 >= a.columns) return;
    const int first = blockIdx.y * kSpreadRows, last = min(first + kSpreadRows, a.count);
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
