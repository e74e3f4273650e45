// What the two threads that fetch of a step program (step.cuh) put into shared memory, and the other threads take from there.
#pragma once
#include "step_ops.cuh"

constexpr int kStepThreads = kStepConsumers + 64, kStepDepth = 64;
// Pieces of weights that a block has under way, while they are needed and while they are only going to be: whatever else is wanted from memory then queues behind them.
constexpr int kStepBusy = 4, kStepAhead = 1;

namespace {

// What a stage of the ring holds: a piece of weights, 64 keys and values of one head, or nothing, at an operation's end.
struct Piece {
    int operation;
    int at;        // tile and head of the attention
    int segment;   // ~ the tile where the block has it to itself; or which half of the tile's keys
    int flags;
};
constexpr int kPieceEnd = 1, kPieceLast = 2;

template <int N> struct StepShape {
    static constexpr int kStages = 6, kWeights = kStepTile * kStepDepth * 2, kXStages = N == 8 ? 8 : 4, kX = N * kStepDepth * 2;
    // Stages of weights, and of activations; of each two barriers; what the former hold; the last operation known to be open; the operation at hand and the next one; and the
    // norm's factors of a product's rows.
    static constexpr int kXAt = kStages * kWeights, kBarriers = kXAt + kXStages * kX, kXBarriers = kBarriers + kStages * 16, kPieces = kXBarriers + kXStages * 16,
                         kTiles = kPieces + kStages * static_cast<int>(sizeof(Piece)), kTile = 48, kOpened = kTiles + kStages * kTile, kOps = kOpened + 16, kFactors = kOps + 2 * static_cast<int>(sizeof(StepOp)), kBytes = kFactors + N * 4 + 1024;
    static_assert(kBytes <= 227 * 1024 && sizeof(StepTile) <= kTile);
};

#if __CUDA_ARCH__ >= 900
// Where a thread is in the ring of stages of weights. A stage's barriers: weights have come; they have been used.
template <int N> struct Ring {
    using Shape = StepShape<N>;
    uint32_t base;
    int stage = 0, phase = 0;

    __device__ __forceinline__ Ring(uint32_t shared) : base(shared) {}
    __device__ __forceinline__ void next() {
        if (++stage == Shape::kStages) { stage = 0; phase ^= 1; }
    }
    __device__ __forceinline__ uint32_t data() const { return base + stage * Shape::kWeights; }
    __device__ __forceinline__ uint32_t come() const { return base + Shape::kBarriers + stage * 16; }
    __device__ __forceinline__ uint32_t used() const { return come() + 8; }
    __device__ __forceinline__ Piece piece() const {
        Piece p;
        asm volatile("ld.shared.v4.s32 {%0, %1, %2, %3}, [%4];" : "=r"(p.operation), "=r"(p.at), "=r"(p.segment), "=r"(p.flags) : "r"(base + Shape::kPieces + stage * 16) : "memory");
        return p;
    }
    __device__ __forceinline__ void tell(Piece p) const {
        asm volatile("st.shared.v4.s32 [%0], {%1, %2, %3, %4};" ::"r"(base + Shape::kPieces + stage * 16), "r"(p.operation), "r"(p.at), "r"(p.segment), "r"(p.flags) : "memory");
    }
    // The tile that the keys belong to.
    __device__ __forceinline__ StepTile& tile() const { return *static_cast<StepTile*>(__cvta_shared_to_generic(base + Shape::kTiles + stage * Shape::kTile)); }
    // A hint that nothing else hangs on: it may come late.
    __device__ __forceinline__ int opened() const {
        int operation;
        asm volatile("atom.relaxed.cta.shared.max.s32 %0, [%1], -1;" : "=r"(operation) : "r"(base + Shape::kOpened) : "memory");
        return operation;
    }
    __device__ __forceinline__ void open(int operation) const {
        asm volatile("{\n.reg .s32 before;\natom.relaxed.cta.shared.exch.b32 before, [%0], %1;\n}" ::"r"(base + Shape::kOpened), "r"(operation) : "memory");
    }
    // For a warp of those that multiply: the next piece, and that it is done with it.
    __device__ __forceinline__ Piece take() const {
        barrierWait(come(), phase);
        return piece();
    }
    __device__ __forceinline__ void release() {
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrierArrive(used());
        next();
    }
};

// The same for activations, of which every piece of weights has one.
template <int N> struct XRing {
    using Shape = StepShape<N>;
    uint32_t base;
    int stage = 0, phase = 0;

    __device__ __forceinline__ XRing(uint32_t shared) : base(shared) {}
    __device__ __forceinline__ void next() {
        if (++stage == Shape::kXStages) { stage = 0; phase ^= 1; }
    }
    __device__ __forceinline__ uint32_t data() const { return base + Shape::kXAt + stage * Shape::kX; }
    __device__ __forceinline__ uint32_t come() const { return base + Shape::kXBarriers + stage * 16; }
    __device__ __forceinline__ uint32_t used() const { return come() + 8; }
    __device__ __forceinline__ void release() {
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrierArrive(used());
        next();
    }
};

// A block's pieces of a product. What is shared comes first: by the time that the block is through with its own tiles others have left their sums.
template <class Visit> __device__ __forceinline__ void eachPiece(const ProductOp& op, Visit visit) {
    const int block = blockIdx.x, to = op.firstPiece[block + 1];
    int segment = op.firstSegment[block];
    for (int piece = op.firstPiece[block]; piece < to; piece++) {
        const int tile = piece / op.depth;
        const bool last = piece + 1 == to || (piece + 1) % op.depth == 0;
        visit(op.whole * gridDim.x + tile, piece - tile * op.depth, segment, last);
        segment += last;
    }
    for (int tile = block * op.whole; tile < (block + 1) * op.whole; tile++)
        for (int piece = 0; piece < op.depth; piece++) visit(tile, piece, ~tile, piece + 1 == op.depth);
}

// One thread: weights, keys and values of all operations, as far ahead as there is room.
template <int N> __device__ __forceinline__ void fetchWeights(const StepArgs& a, Ring<N> ring) {
    Ring<N> behind = ring;
    const uint64_t once = evictFirst();
    int under = 0;
    bool later = false;
    // Begins a stage; what it is to hold is to follow.
    auto begin = [&](Piece piece) {
        barrierWait(ring.used(), ring.phase ^ 1);
        for (const int most = ring.opened() >= piece.operation ? kStepBusy : kStepAhead; under >= most; under--, behind.next()) barrierWait(behind.come(), behind.phase);
        under++;
        ring.tell(piece);
    };
    for (int p = 0; p < a.count; p++) {
        const int kind = a.ops[p].kind;
        if (kind == kStepProduct) {
            const ProductOp op = a.ops[p].product;
            eachPiece(op, [&](int tile, int piece, int segment, bool last) {
                constexpr int kHalf = kStepTile / 2;
                const int column = piece * kStepDepth, matrix = (tile >= op.secondTile) + (tile >= op.thirdTile);
                const int row = (tile - (matrix == 0 ? 0 : matrix == 1 ? op.secondTile : op.thirdTile)) * kStepTile;
                begin({p, 0, segment, last ? kPieceLast : 0});
                barrierExpect(ring.come(), StepShape<N>::kWeights);
                if (op.finish == kFinishGated) {
                    copyTile(ring.data(), op.weights[0], column, tile * kHalf, ring.come(), once);
                    copyTile(ring.data() + kHalf * kStepDepth * 2, op.weights[1], column, tile * kHalf, ring.come(), once);
                } else {
                    copyTile(ring.data(), matrix == 0 ? op.weights[0] : matrix == 1 ? op.weights[1] : op.weights[2], column, row, ring.come(), once);
                }
                ring.next();
            });
        } else if (kind == kStepAttend) {
            const AttendOp op = a.ops[p].attend;
            asm volatile("prefetch.tensormap [%0];" ::"l"(op.kv) : "memory");
            if (!later) {
                waitForEarlier();
                proxyFence();
                later = true;
            }
            bool open = false;
            for (int unit = blockIdx.x; unit < op.count * op.heads; unit += gridDim.x) {
                const StepTile tile = op.tiles[unit / op.heads];
                if (tile.fresh < 0 && !open) {
                    waitForPhase(a.arrived, p);
                    proxyFence();
                    open = true;
                }
                for (int half = 0; half * kBlockSlots < tile.keys; half++) {
                    begin({p, unit, half, (half + 1) * kBlockSlots >= tile.keys ? kPieceLast : 0});
                    ring.tile() = tile;
                    barrierExpect(ring.come(), StepShape<N>::kWeights);
                    const int block = half == 0 ? tile.blocks[0] : tile.blocks[1];
#pragma unroll
                    for (int part = 0; part < 4; part++)
                        copyTile(ring.data() + part * kBlockSlots * 128, op.kv, part % 2 * 64, ((block * 2 + part / 2) * op.heads + unit % op.heads) * kBlockSlots, ring.come(), once);
                    ring.next();
                }
            }
        } else {
            continue;
        }
        begin({p, 0, 0, kPieceEnd});
        barrierArrive(ring.come());
        ring.next();
    }
}

// One thread: the activations that belong to the weights, once the operations before are over.
template <int N> __device__ __forceinline__ void fetchActivations(const StepArgs& a, Ring<N> ring, XRing<N> xs) {
    const uint64_t often = evictLast();
    for (int p = 0; p < a.count; p++) {
        if (a.ops[p].kind != kStepProduct && a.ops[p].kind != kStepAttend) continue;
        waitForPhase(a.arrived, p);
        ring.open(p);
        if (a.ops[p].kind != kStepProduct) continue;
        proxyFence();
        const ProductOp op = a.ops[p].product;
        eachPiece(op, [&](int, int piece, int, bool) {
            barrierWait(xs.used(), xs.phase ^ 1);
            barrierExpect(xs.come(), StepShape<N>::kX);
            copyTile(xs.data(), op.x, piece * kStepDepth, 0, xs.come(), often);
            xs.next();
        });
    }
}
#endif

}  // namespace
