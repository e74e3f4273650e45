// The attention of a step program (step.cuh): ranges of keys, whose results are merged afterwards.
#pragma once
#include "step_ring.cuh"
#include "wgmma.cuh"

namespace {

#if __CUDA_ARCH__ >= 900
// Tiles with a key-value head, which the two warpgroups take in turn: up to 64 rows, packed as (row, query head), over 64 keys at a time.
template <int N, class Open> __device__ __forceinline__ void attendTiles(const AttendOp& op, Ring<N>& ring, Open open) {
    constexpr int kDim = 128, kSteps = kDim / 16, kSlab = kBlockSlots * 128;
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, queries = op.heads * op.perHead;
    const int r0 = warp * 16 + lane / 4, row0 = r0 / op.perHead, row1 = (r0 + 8) / op.perHead;
    const float scale = op.scale * kLog2E;
    open();
    Piece piece = ring.take();
    while (!(piece.flags & kPieceEnd)) {
        if (piece.at / gridDim.x % 2 != group) {
            ring.release();
            piece = ring.take();
            continue;
        }
        const StepTile tile = ring.tile();
        const int head = piece.at % op.heads, packed = tile.rows * op.perHead;
        uint32_t q[kSteps][4];
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int p = r0 + side * 8, row = side ? row1 : row0;
            const bf16* from = op.q + (static_cast<int64_t>(tile.row + row) * queries + head * op.perHead + (p - row * op.perHead)) * kDim + lane % 4 * 2;
#pragma unroll
            for (int k = 0; k < kSteps; k++)
#pragma unroll
                for (int half = 0; half < 2; half++) q[k][half * 2 + side] = p < packed ? __ldcg(reinterpret_cast<const uint32_t*>(from + k * 16 + half * 8)) : 0;
        }
        // The key and the value that the operation before has made of the tile's only row had been fetched before: once more, into the tile's last piece.
        const bool patch = tile.fresh > 0 && warp == 0;
        const int last = (tile.keys - 1) % kBlockSlots;
        uint4 fresh;
        if (patch) {
            const int plane = (tile.keys > kBlockSlots ? tile.blocks[1] : tile.blocks[0]) * 2 + lane / 16;
            fresh = __ldcg(reinterpret_cast<const uint4*>(op.cache + (static_cast<int64_t>(plane * op.heads + head) * kBlockSlots + last) * kDim) + lane % 16);
        }
        const int see0 = min(tile.keys, tile.limit + tile.step * row0), see1 = min(tile.keys, tile.limit + tile.step * row1);
        float o[kDim / 8][4] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
        while (true) {
            if (piece.flags & kPieceLast && tile.fresh > 0) {
                if (patch) {
                    // Chunk c (of 16 bytes) of row r lies at place c ^ (r mod 8) of its row; columns from 64 on are a slab of their own.
                    const uint32_t to = ring.data() + lane / 8 * kSlab + last * 128 + ((lane % 8 ^ last % 8) << 4);
                    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(fresh.x), "r"(fresh.y), "r"(fresh.z), "r"(fresh.w) : "memory");
                    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
                }
                groupMeets(group);
            }
            const uint32_t keys = ring.data(), values = keys + 2 * kSlab;
            float s[kBlockSlots / 8][4];
            matmulFence();
#pragma unroll
            for (int k = 0; k < kSteps; k++) matmul64(reinterpret_cast<float(&)[kBlockSlots / 2]>(s), q[k], operand(keys + k / 4 * kSlab + k % 4 * 32, 1024, 0, kSwizzle128), k > 0);
            matmulCommit();
            matmulWait<0>();
            const int before = piece.segment * kBlockSlots;
            softMaxBlock<kBlockSlots, kDim>(s, see0 - before, see1 - before, lane, scale, max0, max1, sum0, sum1, o);
            uint32_t p[4][4];
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int side = 0; side < 2; side++) p[n / 2][n % 2 * 2 + side] = pack(s[n][side * 2], s[n][side * 2 + 1]);
            matmulFence();
#pragma unroll
            for (int k = 0; k < kBlockSlots / 16; k++) matmulTransposed128(&o[0][0], p[k], operand(values + k * 16 * 128, 1024, kSlab, kSwizzle128));
            matmulCommit();
            matmulWait<0>();
            ring.release();
            if (piece.flags & kPieceLast) break;
            piece = ring.take();
        }
        const AttendTile part = {0, tile.rows, 0, 0, tile.slot};
        const AttendArgs args = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, op.partialO, op.partialLogSumExp, op.heads, op.perHead, op.scale, 0};
        storeRows<kDim>(args, part, head, r0, row0, row1, packed, lane, max0, max1, sum0, sum1, o);
        piece = ring.take();
    }
    ring.release();
}
#endif

}  // namespace
