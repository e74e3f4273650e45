// The attention of a step program (step.cuh): ranges of keys, whose results are merged afterwards.
#pragma once
#include "step_ring.cuh"

namespace {

#if __CUDA_ARCH__ >= 900
// Tiles with a key-value head, which the two warpgroups take in turn, and the warps of a warpgroup where there is work for one alone. All that 64 rows (8 rows x 7 heads) see
// of the same 64 keys is multiplied at once.
template <int N, class Open> __device__ __forceinline__ void attendTiles(const AttendOp& op, Ring<N>& ring, Open open) {
    constexpr int kDim = 128, kSteps = kDim / 16, kHalfTile = kBlockSlots * 128;
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, queries = op.heads * op.perHead;
    // Chunk c (of 16 bytes) of row r lies at place c ^ (r mod 8) of its row; columns from 64 on are a tile of their own. Rows are eight apart from one step to the next and
    // chunks even, so an address is a constant part, an offset, and an exclusive or of the chunk.
    auto place = [](int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); };
    const int keyAt = place(lane % 8 + lane / 16 * 8, lane / 8 % 2), valueAt = 2 * kHalfTile + place(lane % 16, lane / 16);
    const float scale = op.scale * kLog2E;
    // The key and the value that the operation before has made of the tile's only row had been fetched before: once more, into the tile's last piece.
    auto patch = [&](const StepTile& tile, int head) {
        const int last = tile.keys - 1, slot = last % kBlockSlots, plane = tile.blocks[last / kBlockSlots] * 2 + lane / 16;
        const uint4 fresh = __ldcg(reinterpret_cast<const uint4*>(op.cache + (static_cast<int64_t>(plane * op.heads + head) * kBlockSlots + slot) * kDim) + lane % 16);
        Ring<N> end = ring;
        if (last >= kBlockSlots) {
            end.next();
            barrierWait(end.come(), end.phase);
        }
        const uint32_t to = end.data() + (lane / 8) * kHalfTile + place(slot, lane % 8);
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(fresh.x), "r"(fresh.y), "r"(fresh.z), "r"(fresh.w) : "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncwarp();
    };
    open();
    Piece piece = ring.take();
    while (!(piece.flags & kPieceEnd)) {
        const StepTile& tile = ring.tile();
        const int head = piece.at % op.heads, packed = tile.rows * op.perHead, part = packed > 16 ? warp * 16 : 0, turn = piece.at / gridDim.x;
        // Nothing to do for this warp, which passes by.
        if (turn % 2 != group || (packed > 16 ? part >= packed : turn / 2 % 4 != warp)) {
            ring.release();
            piece = ring.take();
            continue;
        }
        const int r0 = part + lane / 4, row0 = r0 / op.perHead, row1 = (r0 + 8) / op.perHead;
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
        if (tile.fresh > 0) patch(tile, head);
        const int see0 = min(tile.keys, tile.limit + tile.step * row0), see1 = min(tile.keys, tile.limit + tile.step * row1);
        float o[kDim / 8][4] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
        while (true) {
            const uint32_t keys = ring.data() + keyAt, values = ring.data() + valueAt;
            // By halves of a block, for want of registers.
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float s[4][4] = {};
#pragma unroll
                for (int k = 0; k < kSteps; k++)
#pragma unroll
                    for (int n = 0; n < 4; n += 2) {
                        uint32_t b[4];
                        loadMatrix4(b, (keys ^ k % 4 << 5) + k / 4 * kHalfTile + (half * 4 + n) * 8 * 128);
                        multiplyAdd(s[n], q[k], b[0], b[1]);
                        multiplyAdd(s[n + 1], q[k], b[2], b[3]);
                    }
                const int before = piece.segment * kBlockSlots + half * 32;
                softMaxBlock<32, kDim>(s, see0 - before, see1 - before, lane, scale, max0, max1, sum0, sum1, o);
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    const uint32_t p[4] = {pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]), pack(s[2 * k + 1][0], s[2 * k + 1][1]), pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
                    for (int n = 0; n < kDim / 8; n += 2) {
                        uint32_t b[4];
                        loadMatrix4Transposed(b, (values ^ n % 8 << 4) + n / 8 * kHalfTile + (half * 2 + k) * 16 * 128);
                        multiplyAdd(o[n], p, b[0], b[1]);
                        multiplyAdd(o[n + 1], p, b[2], b[3]);
                    }
                }
            }
            if (piece.flags & kPieceLast) break;
            ring.release();
            piece = ring.take();
        }
        // Read again rather than kept: registers are short.
        const AttendTile whole = {0, ring.tile().rows, 0, 0, ring.tile().slot};
        ring.release();
        const AttendArgs args = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, op.partialO, op.partialLogSumExp, op.heads, op.perHead, op.scale, 0};
        storeRows<kDim>(args, whole, piece.at % op.heads, r0, row0, row1, whole.rows * op.perHead, lane, max0, max1, sum0, sum1, o);
        piece = ring.take();
    }
    ring.release();
}
#endif

}  // namespace
