// Attention for long stretches of rows on Hopper: 64 packed rows a warpgroup, two of them a block. While a warpgroup works on the soft-max of one block of keys, the
// scores of the next are being multiplied (Shah et al., FlashAttention-3, 2024).
#pragma once
#include "attend.cuh"
#include "wgmma.cuh"

constexpr int kWideStages = 3;

namespace {

// A tile of rows of D columns for the matrix units: 64 columns as rows of 128 bytes, 128-byte swizzle; then the other 64 in the same way, or the other 16 as rows of 32
// bytes, 32-byte swizzle.
template <int D, int Rows> struct WideTile {
    static_assert(D == 128 || D == 80);
    static constexpr int kChunks = D / 8, kThreads = Rows * 2;

    __device__ __forceinline__ static int place(int rows, int row, int chunk) {
        if (chunk < 8) return row * 128 + ((chunk ^ (row & 7)) << 4);
        if (D == 128) return rows * 128 + row * 128 + (((chunk - 8) ^ (row & 7)) << 4);
        return rows * 128 + row * 32 + (((chunk - 8) ^ ((row >> 2) & 1)) << 4);
    }
    static constexpr int kQueries = Rows * D * 2, kKeys = kBlockSlots * D * 2, kStage = 2 * kKeys, kBytes = kQueries + kWideStages * kStage + 1024;
};

template <int D, int Rows> __device__ __forceinline__ void attendWide(const AttendArgs& a) {
#if __CUDA_ARCH__ >= 900
    using Tile = WideTile<D, Rows>;
    extern __shared__ __align__(1024) char raw[];
    letNextStart();
    waitForEarlier();
    const uint32_t base = (sharedAddress(raw) + 1023) & ~1023u, stages = base + Tile::kQueries;
    const AttendTile tile = a.tiles[blockIdx.x];
    const int head = blockIdx.y, group = threadIdx.x / 128, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int packed = tile.rows * a.perHead, queries = a.heads * a.perHead;

    for (int c = threadIdx.x; c < Rows * Tile::kChunks; c += Tile::kThreads) {
        const int p = c / Tile::kChunks, chunk = c % Tile::kChunks, row = p / a.perHead;
        const bf16* from = a.q + (static_cast<int64_t>(tile.row + row) * queries + head * a.perHead + (p - row * a.perHead)) * D + chunk * 8;
        copyAsync(base + Tile::place(Rows, p, chunk), p < packed ? from : a.q, p < packed);
    }
    const int64_t plane = static_cast<int64_t>(a.heads) * kBlockSlots * D;
    auto fetch = [&](KeyWalk& walk, int stage) {
        if (!walk.done()) {
            const int block = a.blocks[walk.run->firstBlock + walk.first / kBlockSlots], there = walk.run->keys - walk.first;
            const bf16* from = a.kv + block * 2 * plane + static_cast<int64_t>(head) * kBlockSlots * D;
            const uint32_t to = stages + stage * Tile::kStage;
            for (int c = threadIdx.x; c < kBlockSlots * Tile::kChunks; c += Tile::kThreads) {
                const int key = c / Tile::kChunks, at = Tile::place(kBlockSlots, key, c % Tile::kChunks);
                copyAsync(to + at, from + c * 8, key < there);
                copyAsync(to + Tile::kKeys + at, from + plane + c * 8, key < there);
            }
            walk.next();
        }
        copyCommit();
    };

    // Scores of this warpgroup's 64 rows with a block of 64 keys: begun here, waited for later.
    auto beginScores = [&](float (&s)[32], int stage) {
        const uint32_t q = base + group * 64 * 128, k = stages + stage * Tile::kStage;
        matmulFence();
#pragma unroll
        for (int i = 0; i < 4; i++) matmul64(s, operand(q + i * 32, 1024, 0, kSwizzle128), operand(k + i * 32, 1024, 0, kSwizzle128), i > 0);
        if constexpr (D == 128) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                matmul64(s, operand(q + Rows * 128 + i * 32, 1024, 0, kSwizzle128), operand(k + kBlockSlots * 128 + i * 32, 1024, 0, kSwizzle128), 1);
        } else {
            const uint32_t rest = base + Rows * 128 + group * 64 * 32;
            matmul64(s, operand(rest, 256, 0, kSwizzle32), operand(k + kBlockSlots * 128, 256, 0, kSwizzle32), 1);
        }
        matmulCommit();
    };

    const int r0 = warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    const float scale = a.scale * kLog2E;
    float o[D / 2] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
    KeyWalk walk{a.runs + tile.firstRun, tile.runs, 0}, ahead = walk;

    // From a block's scores to weights of its values, in place; what has been added up so far is to fade by the two factors.
    float fade0 = 1, fade1 = 1;
    auto softMax = [&](float (&s)[32]) {
        const auto [see0, see1] = walk.seen(row0, row1);
        if (!__all_sync(~0u, min(see0, see1) >= kBlockSlots)) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int key = n * 8 + lane % 4 * 2 + j;
                    if (key >= see0) s[n * 4 + j] = -INFINITY;
                    if (key >= see1) s[n * 4 + j + 2] = -INFINITY;
                }
        }
        float new0 = max0, new1 = max1;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            new0 = fmaxf(new0, fmaxf(s[n * 4], s[n * 4 + 1]));
            new1 = fmaxf(new1, fmaxf(s[n * 4 + 2], s[n * 4 + 3]));
        }
#pragma unroll
        for (int offset = 1; offset < 4; offset *= 2) {
            new0 = fmaxf(new0, __shfl_xor_sync(~0u, new0, offset));
            new1 = fmaxf(new1, __shfl_xor_sync(~0u, new1, offset));
        }
        const float shift0 = new0 == -INFINITY ? 0 : new0 * scale, shift1 = new1 == -INFINITY ? 0 : new1 * scale;
        fade0 = power2(max0 * scale - shift0);
        fade1 = power2(max1 * scale - shift1);
        max0 = new0;
        max1 = new1;
        sum0 *= fade0;
        sum1 *= fade1;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            s[n * 4] = power2(s[n * 4] * scale - shift0);
            s[n * 4 + 1] = power2(s[n * 4 + 1] * scale - shift0);
            s[n * 4 + 2] = power2(s[n * 4 + 2] * scale - shift1);
            s[n * 4 + 3] = power2(s[n * 4 + 3] * scale - shift1);
            sum0 += s[n * 4] + s[n * 4 + 1];
            sum1 += s[n * 4 + 2] + s[n * 4 + 3];
        }
        walk.next();
    };
    // Operands of a multiplication may not change while it is under way: only when the last one is over do the weights become the next one's.
    uint32_t p[4][4];
    auto takeWeights = [&](const float (&s)[32]) {
#pragma unroll
        for (int n = 0; n < 8; n++) {
            p[n / 2][n % 2 * 2] = pack(s[n * 4], s[n * 4 + 1]);
            p[n / 2][n % 2 * 2 + 1] = pack(s[n * 4 + 2], s[n * 4 + 3]);
        }
    };
    auto beginValues = [&](int stage) {
        const uint32_t v = stages + stage * Tile::kStage + Tile::kKeys;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if constexpr (D == 128) {
                matmulTransposed128(o, p[k], operand(v + k * 16 * 128, 1024, kBlockSlots * 128, kSwizzle128));
            } else {
                matmulTransposed64(o, p[k], operand(v + k * 16 * 128, 1024, 0, kSwizzle128));
                matmulTransposed16(o + 32, p[k], operand(v + kBlockSlots * 128 + k * 16 * 32, 256, 0, kSwizzle32));
            }
        }
        matmulCommit();
    };
    auto arrived = [&]() {
        copyWait<0>();
        matmulSees();
        __syncthreads();
    };

    float s[32];
    fetch(ahead, 0);
    arrived();
    fetch(ahead, 1);
    beginScores(s, 0);
    matmulWait<0>();
    softMax(s);
    takeWeights(s);
    int stage = 0;
    while (!walk.done()) {
        const int next = stage + 1 == kWideStages ? 0 : stage + 1;
        arrived();
        fetch(ahead, next + 1 == kWideStages ? 0 : next + 1);
        beginScores(s, next);
        beginValues(stage);
        matmulWait<1>();
        softMax(s);
        matmulWait<0>();
#pragma unroll
        for (int n = 0; n < D / 8; n++) { o[n * 4] *= fade0; o[n * 4 + 1] *= fade0; o[n * 4 + 2] *= fade1; o[n * 4 + 3] *= fade1; }
        takeWeights(s);
        stage = next;
    }
    matmulFence();
    beginValues(stage);
    matmulWait<0>();

#pragma unroll
    for (int offset = 1; offset < 4; offset *= 2) {
        sum0 += __shfl_xor_sync(~0u, sum0, offset);
        sum1 += __shfl_xor_sync(~0u, sum1, offset);
    }
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int p = r0 + side * 8, row = side ? row1 : row0;
        if (p >= packed) continue;
        const float sum = side ? sum1 : sum0, max = side ? max1 : max0, inverse = 1 / sum;
        const int64_t at = static_cast<int64_t>(tile.row + row) * queries + head * a.perHead + (p - row * a.perHead);
        if (lane % 4 == 0) a.logSumExp[at] = max * a.scale + logf(sum);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<uint32_t*>(a.o + at * D + n * 8 + lane % 4 * 2) = pack(o[n * 4 + side * 2] * inverse, o[n * 4 + side * 2 + 1] * inverse);
    }
#endif
}

}  // namespace

#define ATTEND_WIDE(D, Rows, Blocks)                                                                                     \
    extern "C" __global__ void __launch_bounds__(WideTile<D, Rows>::kThreads, Blocks)                                    \
        lriad_attend_wide_##D(const __grid_constant__ AttendArgs a) { attendWide<D, Rows>(a); }
ATTEND_WIDE(128, 192, 1)
ATTEND_WIDE(80, 128, 2)
#undef ATTEND_WIDE
