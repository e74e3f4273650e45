// What the two threads that fetch of a step program (step.cuh) put into shared memory, and the other threads take from there.
#pragma once
#include "step_ops.cuh"

constexpr int kStepThreads = kStepConsumers + 128, kStepDepth = 64;
// A piece of weights, or of keys and values, is so many boxes of 64 or 72 rows and 64 columns, two a warpgroup.
constexpr int kStepBoxes = 4, kStepBoxBytes = kStepMostRows * kStepDepth * 2;
// Pieces that a block has under way while they are needed. While they are only going to be, whatever else is wanted from memory queues behind them: then it is some boxes, and
// fewer behind an attention, which leaves more time.
constexpr int kStepBusy = 4, kStepAhead = 4, kStepFarAhead = 2;

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
    static constexpr int kStages = N == 8 ? 6 : 5, kWeights = kStepBoxes * kStepBoxBytes, kXStages = N == 8 ? 8 : 4, kX = N * kStepDepth * 2;
    // Stages of weights, and of activations; of each two barriers; what the former hold; the last operation known to be open, and a barrier for what is fetched ahead; the
    // operation at hand and the next one; and the norm's factors of a product's rows.
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
    __device__ __forceinline__ uint32_t ahead() const { return base + Shape::kOpened + 8; }
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
    // For those that multiply: the next piece, and that they are done with it.
    __device__ __forceinline__ Piece take() const {
        barrierWait(come(), phase);
        return piece();
    }
    __device__ __forceinline__ void release() {
        barrierArrive(used());
        next();
    }
};

// The same for activations, of which every 64 inputs of weights have one.
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
};

// A block's pieces of a product. What is shared comes first: by the time that the block is through with its own tiles others have left their sums.
template <class Visit> __device__ __forceinline__ void eachPiece(const ProductOp& op, Visit visit) {
    const int block = blockIdx.x, from = op.firstPiece[block], shared = op.firstPiece[block + 1] - from, pieces = shared + op.whole * op.depth, first = op.whole * gridDim.x;
    int tile = first + from / op.depth, piece = from % op.depth, segment = op.firstSegment[block];
#pragma unroll 1
    for (int i = 0; i < pieces; i++) {
        if (i == shared) {
            tile = block * op.whole;
            piece = 0;
        }
        const bool last = piece + 1 == op.depth || i + 1 == shared;
        visit(tile, piece, i < shared ? segment : ~tile, last);
        segment += last;
        if (++piece == op.depth) {
            tile++;
            piece = 0;
        }
    }
}

// One thread: weights, keys and values of all operations, as far ahead as there is room.
template <int N> __device__ __forceinline__ void fetchWeights(const StepArgs& a, Ring<N> ring) {
    Ring<N> behind = ring;
    const uint64_t once = evictFirst();
    int under = 0, aheadPhase = 0, together = kStepAhead;
    bool later = false;
    auto leave = [&](int most) {
        for (; under > most; under--, behind.next()) barrierWait(behind.come(), behind.phase);
    };
    auto waitForRoom = [&]() {
        barrierWait(ring.used(), ring.phase ^ 1);
        leave(kStepBusy - 1);
    };
    // The boxes of a piece, `copy`(which, to the stage at, barrier) of so many bytes each.
    auto fetch = [&](Piece piece, int bytes, auto copy) {
        ring.tell(piece);
        int box = 0;
        if (ring.opened() < piece.operation) {
            leave(0);
#pragma unroll 1
            for (; box < kStepBoxes && ring.opened() < piece.operation; aheadPhase ^= 1) {
                barrierExpect(ring.ahead(), together * bytes);
                for (int i = 0; i < together; i++, box++) copy(box, ring.data(), ring.ahead());
                barrierWait(ring.ahead(), aheadPhase);
            }
        }
        under++;
        if (box == kStepBoxes) barrierArrive(ring.come());
        else barrierExpect(ring.come(), (kStepBoxes - box) * bytes);
#pragma unroll 1
        for (; box < kStepBoxes; box++) copy(box, ring.data(), ring.come());
        ring.next();
    };
    for (int p = 0; p < a.count; p++) {
        const int kind = a.ops[p].kind;
        together = p > 0 && a.ops[p - 1].kind == kStepMerge ? kStepFarAhead : kStepAhead;
        if (kind == kStepProduct) {
            const ProductOp op = a.ops[p].product;
            const int bytes = op.boxRows * kStepDepth * 2;
            const bool gated = op.finish == kFinishGated, deep = op.finish == kFinishNothing;
            eachPiece(op, [&](int tile, int piece, int segment, bool last) {
                const int matrix = (tile >= op.secondTile) + (tile >= op.thirdTile), first = matrix == 0 ? 0 : matrix == 1 ? op.secondTile : op.thirdTile;
                waitForRoom();
                fetch({p, 0, segment, last ? kPieceLast : 0}, bytes, [&](int box, uint32_t to, uint32_t barrier) {
                    // Boxes of gate and of what is gated take turns, or of the first and the second inputs.
                    const TensorMap* map = (gated ? box % 2 : matrix) == 0 ? op.weights[0] : gated || matrix == 1 ? op.weights[1] : op.weights[2];
                    const int column = deep ? piece * 2 + box % 2 : piece, row = gated || deep ? (tile - first) * 2 + box / 2 : tile * 4 + box;
                    copyTile(to + box * bytes, map, column * kStepDepth, row * op.boxRows, barrier, once);
                });
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
                    const int block = half == 0 ? tile.blocks[0] : tile.blocks[1];
                    waitForRoom();
                    ring.tile() = tile;
                    // Keys and values, 64 columns of each in a box.
                    fetch({p, unit, half, (half + 1) * kBlockSlots >= tile.keys ? kPieceLast : 0}, kBlockSlots * 128, [&](int box, uint32_t to, uint32_t barrier) {
                        copyTile(to + box * kBlockSlots * 128, op.kv, box % 2 * 64, ((block * 2 + box / 2) * op.heads + unit % op.heads) * kBlockSlots, barrier, once);
                    });
                }
            }
        } else {
            continue;
        }
        // The operation's end.
        waitForRoom();
        ring.tell({p, 0, 0, kPieceEnd});
        barrierArrive(ring.come());
        under++;
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
        const int deep = op.finish == kFinishNothing ? 2 : 1;
        eachPiece(op, [&](int, int piece, int, bool) {
#pragma unroll 1
            for (int box = 0; box < deep; box++, xs.next()) {
                barrierWait(xs.used(), xs.phase ^ 1);
                barrierExpect(xs.come(), StepShape<N>::kX);
                copyTile(xs.data(), op.x, (piece * deep + box) * kStepDepth, 0, xs.come(), often);
            }
        });
    }
}
#endif

}  // namespace
