// Products of many rows on Hopper, y = activation(x · Wᵀ + bias). Two blocks are a cluster and share half of what they fetch: tiles of 128 rows x 192 outputs side by side,
// or one below the other. A block's copy thread keeps a ring of pieces, 64 inputs deep, full; its two warpgroups take tiles in turn, so that while one finishes a tile the
// other multiplies.
//
// The rows of W that a tile holds are permuted on their way to shared memory: of 32 outputs, row 8 j + t is output 4 t + j. A thread, whose accumulators are of columns 2 q
// and 2 q + 1 of every eight, so has outputs 8 q ... 8 q + 7: bias and results move in 16 bytes. Gated, half of a tile is gate and half up, and a thread has both of an output.
#pragma once
#include "copy.cuh"
#include "wgmma.cuh"

constexpr int kProductThreads = 384, kProductRows = 128, kProductColumns = 192, kProductHalf = kProductColumns / 2, kProductDepth = 64, kProductStages = 5;
// What a block has in shared memory: pieces of x and W, of each two barriers, and one a warpgroup.
constexpr int kProductX = kProductRows * 128, kProductStage = kProductX + kProductColumns * 128, kProductBarriers = kProductStages * kProductStage;
constexpr int kProductBytes = kProductBarriers + kProductStages * 16 + 16 + 1024;

namespace {

#if __CUDA_ARCH__ >= 900
// A stage's barriers: it has come; both blocks have used it.
struct ProductRing {
    uint32_t base;
    int stage = 0, phase = 0;
    __device__ __forceinline__ ProductRing(uint32_t shared) : base(shared) {}
    __device__ __forceinline__ void next() {
        if (++stage == kProductStages) { stage = 0; phase ^= 1; }
    }
    __device__ __forceinline__ void skip(int pieces) {
        const int at = stage + pieces;
        phase ^= at / kProductStages & 1;
        stage = at % kProductStages;
    }
    __device__ __forceinline__ uint32_t data() const { return base + stage * kProductStage; }
    __device__ __forceinline__ uint32_t come() const { return base + kProductBarriers + stage * 16; }
    __device__ __forceinline__ uint32_t used() const { return come() + 8; }
    // It is this warpgroup's turn to multiply: the other one has seen the last piece of its tile come.
    __device__ __forceinline__ uint32_t turn(int group) const { return base + kProductBarriers + kProductStages * 16 + group * 8; }
};

// The tiles of a cluster.
__device__ __forceinline__ int firstTile() { return blockIdx.x / 2; }
__device__ __forceinline__ int tileStep() { return gridDim.x / 2; }

// Where a block's tile begins. Tiles of the same outputs follow each other, in bands of rows that are not too many to stay in the cache.
struct ProductTile {
    int row, column;
    __device__ __forceinline__ ProductTile(const ProductArgs& a, int tile, int rank) {
        const int bands = (a.rowTiles + a.band - 1) / a.band, perBand = (a.rowTiles + bands - 1) / bands;
        const int band = tile / (perBand * a.columnTiles), height = min(perBand, a.rowTiles - band * perBand), at = tile - band * perBand * a.columnTiles;
        const int r = band * perBand + at % height, c = at / height;
        row = (a.across ? r : r * 2 + rank) * kProductRows;
        column = a.across ? c * 2 + rank : c;
    }
};

__device__ __forceinline__ uint32_t clusterRank() { uint32_t rank; asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)); return rank; }
// Orders no memory, for which it would wait.
__device__ __forceinline__ void clusterMeet() {
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// At the barrier in the same place of another block of the cluster. No memory is to be ordered: what was read here was read by multiplications that are over, and an arrival
// that releases to the cluster would wait for all of memory.
__device__ __forceinline__ void barrierArriveAt(uint32_t barrier, int rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\nmbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank) : "memory");
}
// To both blocks of the cluster, to the same place and the same barrier.
__device__ __forceinline__ void copyTileToBoth(uint32_t to, const TensorMap* map, int column, int row, uint32_t barrier, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6;"
                 ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(static_cast<uint16_t>(3)), "l"(policy) : "memory");
}
__device__ __forceinline__ void copyWeights(uint32_t to, const TensorMap* map, int column, int group, uint32_t barrier, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, %3, %4}], [%5], %6;"
                 ::"r"(to), "l"(map), "r"(column), "r"(0), "r"(group), "r"(barrier), "l"(policy) : "memory");
}
__device__ __forceinline__ void copyWeightsToBoth(uint32_t to, const TensorMap* map, int column, int group, uint32_t barrier, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3, %3, %4}], [%5], %6, %7;"
                 ::"r"(to), "l"(map), "r"(column), "r"(0), "r"(group), "r"(barrier), "h"(static_cast<uint16_t>(3)), "l"(policy) : "memory");
}

// One thread; it does as little as it can, since all wait for it. Across: the cluster's blocks have the same rows of x, and fetch half of them each; else the same of W.
template <bool Across> __device__ __forceinline__ void fetchProduct(const ProductArgs& a, ProductRing ring, int rank) {
    constexpr int kHalfBytes = kProductHalf * 128;
    const uint64_t often = evictLast(), once = a.rowTiles > 1 ? evictNormal() : evictFirst();
    for (int at = firstTile(); at < a.rowTiles * a.columnTiles; at += tileStep()) {
        const ProductTile tile(a, at, rank);
        // The two halves of a tile's rows of W: gate and up, where there are two.
        const bool gated = a.activation == kGatedSilu;
        const int first = tile.column * (gated ? kProductHalf : kProductColumns), second = first + (gated ? a.outputs : kProductHalf);
        const int w = (Across || rank == 0 ? first : second) / 32, otherW = second / 32, x = tile.row + (Across ? rank * 64 : 0);
        for (int column = 0; column < a.depth * kProductDepth; column += kProductDepth, ring.next()) {
            const uint32_t stage = ring.data(), come = ring.come();
            barrierWait(ring.used(), ring.phase ^ 1);
            barrierExpect(come, kProductStage);
            if constexpr (Across) {
                copyWeights(stage + kProductX, &a.w, column, w, come, once);
                copyWeights(stage + kProductX + kHalfBytes, &a.w, column, otherW, come, once);
                copyTileToBoth(stage + rank * 64 * 128, &a.x, column, x, come, often);
            } else {
                copyWeightsToBoth(stage + kProductX + rank * kHalfBytes, &a.w, column, w, come, once);
                copyTile(stage, &a.x, column, x, come, often);
            }
        }
    }
    // The other block arrives at barriers here, which must not be gone.
    for (int i = 0; i < kProductStages; i++, ring.next()) barrierWait(ring.used(), ring.phase ^ 1);
}

// The results of a tile. `first` is the first of the tile's rows that this thread has; the others follow every eight, two in each 64.
template <int Activation> __device__ __forceinline__ void finishTile(const ProductArgs& a, const float (&c)[2][kProductColumns / 2], int first, int column) {
    constexpr bool kGated = Activation == kGatedSilu;
    constexpr int kOutputs = kGated ? kProductHalf : kProductColumns;
#pragma unroll
    for (int g = 0; g < kOutputs / 32; g++) {
        const int at = column * kOutputs + g * 32 + threadIdx.x % 4 * 8;
        if (at >= a.outputs) continue;
        Eight bias = {};
        if (!kGated && a.bias) bias = Eight::load(a.bias + at);
#pragma unroll
        for (int part = 0; part < 4; part++) {
            const int row = first + part / 2 * 64 + part % 2 * 8;
            if (row >= a.rows) continue;
            // The columns that this thread has of one row, of 32 of the tile's.
            auto take = [&](int group) {
                Eight e;
#pragma unroll
                for (int i = 0; i < 8; i++) e.v[i] = c[part / 2][(group * 4 + i % 4) * 4 + part % 2 * 2 + i / 4];
                return e;
            };
            Eight e = take(g);
            if constexpr (kGated) {
                const Eight up = take(g + kProductHalf / 32);
                if (a.gateUp) {
                    bf16* to = a.gateUp + static_cast<int64_t>(row) * 2 * a.outputs + at;
                    e.store(to);
                    up.store(to + a.outputs);
                }
#pragma unroll
                for (int i = 0; i < 8; i++) e.v[i] = __fdividef(e.v[i], 1 + __expf(-e.v[i])) * up.v[i];
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++) e.v[i] += bias.v[i];
#pragma unroll
                for (int i = 0; i < 8; i++) e.v[i] = __fdividef(e.v[i], 1 + __expf(-1.702f * e.v[i]));
            }
            e.store(a.y + static_cast<int64_t>(row) * a.outputs + at);
        }
    }
}

__device__ __forceinline__ void multiplyTiles(const ProductArgs& a, ProductRing ring) {
    const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    int turn = 1 - group;
    if (group == 1) ring.skip(a.depth);
    for (int at = firstTile() + group * tileStep(); at < a.rowTiles * a.columnTiles; at += 2 * tileStep(), ring.skip(a.depth)) {
        float c[2][kProductColumns / 2] = {};
        uint32_t before = 0;
        barrierWait(ring.turn(group), turn);
        turn ^= 1;
        int pieces = a.depth;
        do {
            barrierWait(ring.come(), ring.phase);
            const uint32_t x = ring.data(), w = x + kProductX;
            matmulFence();
#pragma unroll
            for (int k = 0; k < kProductDepth / 16; k++)
#pragma unroll
                for (int m = 0; m < 2; m++) matmul192(c[m], operand(x + m * 64 * 128 + k * 32, 1024, 0, kSwizzle128), operand(w + k * 32, 1024, 0, kSwizzle128), 1);
            matmulCommit();
            // The piece before is done with, this one under way.
            matmulWait<1>();
            if (before && lane < 2) barrierArriveAt(before, lane);
            before = ring.used();
            ring.next();
        } while (--pieces > 0);
        if (lane == 0) barrierArrive(ring.turn(1 - group));
        matmulWait<0>();
        if (lane < 2) barrierArriveAt(before, lane);

        const ProductTile tile(a, at, clusterRank());
        const int first = tile.row + warp * 16 + lane / 4;
        if (a.activation == kGatedSilu) finishTile<kGatedSilu>(a, c, first, tile.column);
        else finishTile<kQuickGelu>(a, c, first, tile.column);
    }
}

__device__ __forceinline__ void product(const ProductArgs& a) {
    extern __shared__ __align__(1024) char raw[];
    ProductRing ring((sharedAddress(raw) + 1023) & ~1023u);
    const int rank = clusterRank();
    letNextStart();
    if (threadIdx.x == 0) {
        for (; ring.phase == 0; ring.next()) {
            barrierInit(ring.come(), 1);
            // By the warps that read it, of both blocks.
            barrierInit(ring.used(), 8);
        }
        for (int group = 0; group < 2; group++) barrierInit(ring.turn(group), 4);
        barrierInitFence();
    }
    ring.phase = 0;
    clusterMeet();
    waitForEarlier();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            if (a.across) fetchProduct<true>(a, ring, rank);
            else fetchProduct<false>(a, ring, rank);
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        multiplyTiles(a, ring);
    }
}
#endif

}  // namespace

#if __CUDA_ARCH__ >= 900
#define PRODUCT_CLUSTER __cluster_dims__(2, 1, 1)
#else
#define PRODUCT_CLUSTER
#endif
extern "C" __global__ void PRODUCT_CLUSTER __launch_bounds__(kProductThreads, 1) lriad_product(const __grid_constant__ ProductArgs a) {
#if __CUDA_ARCH__ >= 900
    product(a);
#endif
}
#undef PRODUCT_CLUSTER
