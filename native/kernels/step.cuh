// A decode step as one kernel: a program of operations on at most 64 rows, with a barrier over the whole GPU between them.
//
// A decode step is nothing but reading the weights (and the cache) once. So one thread a block does nothing else: it asks the copy engine for the weights of the block's
// share of one product after another, as far ahead as there is room, without regard to what the others are doing. A second thread fetches the activations that belong to
// the weights, as soon as the operation that makes them is over. Two warpgroups multiply, and do the small operations between the products while weights pile up.
//
// Who multiplies what depends on the shape of the weights alone and partial sums are added in a fixed order: a row's result does not depend on its neighbours.
#pragma once
#include "step_ops.cuh"
#include "wgmma.cuh"

constexpr int kStepThreads = kStepConsumers + 64, kStepDepth = 64;
// Pieces of weights that a block has under way, while they are needed and while they are only going to be: whatever else is wanted from memory then queues behind them.
constexpr int kStepBusy = 4, kStepAhead = 1;

namespace {

// What a stage of the ring holds: a piece of weights, 64 keys and values of one head, or nothing, at an operation's end.
struct Piece {
    int operation;
    int at;        // tile and head of the attention
    int segment;   // ~ the half of a tile where the block has it to itself; or which half of the tile's keys
    int flags;
};
constexpr int kPieceEnd = 1, kPieceLast = 2;

template <int N> struct StepShape {
    static constexpr int kStages = 6, kWeights = kStepHalf * kStepDepth * 2, kXStages = N == 8 ? 8 : 4, kX = N * kStepDepth * 2;
    // Two blocks fetch half of many rows each, for both.
    static constexpr int kTogether = N == 8 ? 1 : 2;
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
    // By the warps of all blocks that the stage is fetched for.
    __device__ __forceinline__ uint32_t used() const { return come() + 8; }
    // A warp together, which has left what it read behind.
    __device__ __forceinline__ void release() {
        if (threadIdx.x % 32 < Shape::kTogether) {
            if constexpr (Shape::kTogether == 1) barrierArrive(used());
            else barrierArriveAt(used(), threadIdx.x % 32);
        }
        next();
    }
};

// A block's pieces of a product. What is shared comes first: by the time that the block is through with its own tiles others have left their sums.
template <class Visit> __device__ __forceinline__ void eachPiece(const ProductOp& op, Visit visit) {
    const int pair = blockIdx.x / 2, rank = blockIdx.x % 2, firstShared = gridDim.x / 2 * op.whole, to = op.firstPiece[pair + 1];
    int segment = op.firstSegment[pair];
    for (int piece = op.firstPiece[pair]; piece < to; piece++) {
        const int tile = piece / op.depth;
        const bool last = piece + 1 == to || (piece + 1) % op.depth == 0;
        visit((firstShared + tile) * 2 + rank, piece - tile * op.depth, segment, last);
        segment += last;
    }
    for (int tile = pair * op.whole; tile < (pair + 1) * op.whole; tile++)
        for (int piece = 0; piece < op.depth; piece++) visit(tile * 2 + rank, piece, ~(tile * 2 + rank), piece + 1 == op.depth);
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
            eachPiece(op, [&](int half, int piece, int segment, bool last) {
                constexpr int kQuarter = kStepHalf / 2;
                const int column = piece * kStepDepth, tile = half / 2, matrix = (tile >= op.secondTile) + (tile >= op.thirdTile);
                const int row = (half - (matrix == 0 ? 0 : matrix == 1 ? op.secondTile : op.thirdTile) * 2) * kStepHalf;
                begin({p, 0, segment, last ? kPieceLast : 0});
                barrierExpect(ring.come(), StepShape<N>::kWeights);
                if (op.finish == kFinishGated) {
                    copyTile(ring.data(), op.weights[0], column, half * kQuarter, ring.come(), once);
                    copyTile(ring.data() + kQuarter * kStepDepth * 2, op.weights[1], column, half * kQuarter, ring.come(), once);
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
    using Shape = StepShape<N>;
    const uint64_t often = evictLast();
    const int rank = blockIdx.x % 2;
    for (int p = 0; p < a.count; p++) {
        if (a.ops[p].kind != kStepProduct && a.ops[p].kind != kStepAttend) continue;
        waitForPhase(a.arrived, p);
        ring.open(p);
        if (a.ops[p].kind != kStepProduct) continue;
        proxyFence();
        const ProductOp op = a.ops[p].product;
        eachPiece(op, [&](int, int piece, int, bool) {
            barrierWait(xs.used(), xs.phase ^ 1);
            barrierExpect(xs.come(), Shape::kX);
            if constexpr (Shape::kTogether == 1) copyTile(xs.data(), op.x, piece * kStepDepth, 0, xs.come(), often);
            else copyTileToBoth(xs.data() + rank * Shape::kX / 2, op.x, piece * kStepDepth, rank * N / 2, xs.come(), often);
            xs.next();
        });
    }
}

template <int N, class Open> __device__ __forceinline__ void multiply(int* arrived, const ProductOp& op, Ring<N>& ring, XRing<N>& xs, float* factors, Open open) {
    // A warpgroup has 64 rows of each half of the block's: of the gate and of what is gated.
    const int lane = threadIdx.x % 32, output = threadIdx.x / 128 * 64 + threadIdx.x / 32 % 4 * 16, rows = op.rows;
    float* to = op.sums.partials + blockIdx.x % 2 * kStepHalf + output + lane / 4;
    bool begun = false, told = op.finish == kFinishNothing;
    // The next piece, with its activations: then all operations before are over.
    auto take = [&]() {
        const Piece piece = ring.take();
        if (!(piece.flags & kPieceEnd)) barrierWait(xs.come(), xs.phase);
        return piece;
    };
    auto tell = [&]() {
        told = true;
        factorsOf<N>(op, factors);
        consumersMeet();
        if (threadIdx.x == 0) arrive(arrived + kSumsArrived);
    };
    for (Piece piece = take(); !(piece.flags & kPieceEnd); piece = take()) {
        begun = true;
        if (!told && piece.segment < 0) tell();
        float c[2][N / 2] = {};
        while (true) {
            const uint32_t weights = ring.data() + threadIdx.x / 128 * 64 * 128, x = xs.data();
            matmulFence();
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int k = 0; k < kStepDepth / 16; k++) {
                    const uint64_t w = operand(weights + m * 128 * 128 + k * 32, 1024, 0, kSwizzle128), b = operand(x + k * 32, 1024, 0, kSwizzle128);
                    if constexpr (N == 8) matmul8(c[m], w, b, 1);
                    else matmul64(c[m], w, b, 1);
                }
            matmulCommit();
            matmulWait<0>();
            ring.release();
            xs.release();
            if (piece.flags & kPieceLast) break;
            piece = take();
        }
        if (piece.segment < 0) {
            finishWhole<N>(op, factors, ~piece.segment, output, c);
            continue;
        }
        float* sums = to + static_cast<int64_t>(piece.segment) * N * kStepTile;
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
                if (row < rows) sums[row * kStepTile + m * 128 + i / 2 % 2 * 8] = c[m][i];
            }
    }
    ring.release();
    if (!begun) open();
    if (!told) tell();
    if (op.shared == 0 || op.finish == kFinishNothing) return;
    if (threadIdx.x == 0) waitForPhase(arrived + kSumsArrived, op.round + 1);
    consumersMeet();
    finishShared<N>(op, factors);
}

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

template <int N> __device__ __forceinline__ void step(const StepArgs& a) {
    using Shape = StepShape<N>;
    extern __shared__ __align__(1024) char raw[];
    // The copy engine's swizzle counts rows from multiples of 1,024 bytes.
    char* shared = raw + (1024 - (sharedAddress(raw) & 1023)) % 1024;
    const uint32_t base = sharedAddress(shared);
    Ring<N> ring(base);
    XRing<N> xs(base);
    letNextStart();
    if (threadIdx.x == 0) {
        // Used by all warps that read what the stage holds.
        for (; ring.phase == 0; ring.next()) {
            barrierInit(ring.come(), 1);
            barrierInit(ring.used(), kStepConsumers / 32);
        }
        for (; xs.phase == 0; xs.next()) {
            barrierInit(xs.come(), 1);
            barrierInit(xs.used(), kStepConsumers / 32 * Shape::kTogether);
        }
        ring.open(-1);
        barrierInitFence();
    }
    ring.phase = xs.phase = 0;
    __syncthreads();
    if constexpr (Shape::kTogether > 1) clusterMeet();

    if (threadIdx.x >= kStepConsumers) {
        // The program and the weights were there before the kernels in front, activations were not.
        if (threadIdx.x == kStepConsumers) {
            fetchWeights(a, ring);
        } else if (threadIdx.x == kStepConsumers + 32) {
            waitForEarlier();
            fetchActivations(a, ring, xs);
        }
        return;
    }

    waitForEarlier();
    auto fetchOp = [&](int p) {
        if (p < a.count && threadIdx.x < sizeof(StepOp) / 16)
            copyAsync(base + Shape::kOps + p % 2 * static_cast<int>(sizeof(StepOp)) + threadIdx.x * 16, reinterpret_cast<const char*>(a.ops + p) + threadIdx.x * 16, true);
        copyCommit();
    };
    fetchOp(0);
    copyWait<0>();
    consumersMeet();
    for (bool odd = false;; odd = !odd) {
        const StepOp& op = *reinterpret_cast<const StepOp*>(shared + Shape::kOps + odd * sizeof(StepOp));
        fetchOp(op.index + 1);
        auto open = [&]() {
            if (threadIdx.x == 0) waitForPhase(a.arrived, op.index);
            consumersMeet();
        };
        if (op.kind == kStepProduct) multiply(a.arrived, op.product, ring, xs, reinterpret_cast<float*>(shared + Shape::kFactors), open);
        else if (op.kind == kStepAttend) attendTiles(op.attend, ring, open);
        else if (op.kind == kStepResidual) residual<N>(op.residual, open);
        else if (op.kind == kStepRotate) rotate<N>(op.rotate, open);
        else if (op.kind == kStepMerge) merge(op.merge, open);
        else embed(op.embed.args, op.embed.rows, open);
        // What the copy engine of others reads next.
        if (op.kind != kStepProduct || op.product.finish == kFinishGated) proxyFence();
        copyWait<0>();
        // Who comes first past the meeting overwrites the operation.
        const bool last = op.index + 1 == a.count;
        consumersMeet();
        if (threadIdx.x == 0) {
            // Once everyone has arrived for the last time nobody waits any more.
            if (arrive(a.arrived) == static_cast<int>(gridDim.x) * a.count - 1) a.arrived[0] = a.arrived[kSumsArrived] = 0;
        }
        if (last) break;
    }
    // The other block may still be telling that it has used what it got.
    if constexpr (Shape::kTogether > 1) clusterMeet();
}
#endif

}  // namespace

#define STEP(N, Cluster)                                                                                                        \
    extern "C" __global__ void Cluster __launch_bounds__(kStepThreads, 1) lriad_step_##N(const __grid_constant__ StepArgs a) {   \
        STEP_BODY(N)                                                                                                            \
    }
#if __CUDA_ARCH__ >= 900
#define STEP_BODY(N) step<N>(a);
STEP(8, )
STEP(64, __cluster_dims__(2, 1, 1))
#else
#define STEP_BODY(N)
STEP(8, )
STEP(64, )
#endif
#undef STEP
#undef STEP_BODY
