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

// What a stage of the ring holds: a piece of weights and of activations, 64 keys and values of one head, or nothing, at an operation's end.
struct Piece {
    int operation;
    int at;        // first column of x; or tile and head of the attention
    int segment;   // ~ the tile where the block has it to itself; or which half of the tile's keys
    int flags;
};
constexpr int kPieceEnd = 1, kPieceLast = 2;

template <int N, int Stages> struct StepShape {
    static constexpr int kWeights = kStepTile * kStepDepth * 2, kX = N * kStepDepth * 2, kStage = kWeights + kX;
    // Stages; of each four barriers and what it holds; the last operation known to be open; the operation at hand and the next one.
    static constexpr int kBarriers = Stages * kStage, kPieces = kBarriers + Stages * 32, kOpened = kPieces + Stages * static_cast<int>(sizeof(Piece)), kOps = kOpened + 16;
    // And the norm's factors of a product's rows.
    static constexpr int kFactors = kOps + 2 * static_cast<int>(sizeof(StepOp)), kBytes = kFactors + N * 4 + 1024;
    static_assert(kBytes <= 227 * 1024);
};

#if __CUDA_ARCH__ >= 900
// Where a thread is in the ring of stages. A stage's barriers: weights have come; activations have come; both have been used; it is known what they will be.
template <int N, int Stages> struct Ring {
    using Shape = StepShape<N, Stages>;
    uint32_t base;
    int stage = 0, phase = 0;

    __device__ __forceinline__ Ring(uint32_t shared) : base(shared) {}
    __device__ __forceinline__ void next() {
        if (++stage == Stages) { stage = 0; phase ^= 1; }
    }
    __device__ __forceinline__ uint32_t data() const { return base + stage * Shape::kStage; }
    __device__ __forceinline__ uint32_t weightsCome() const { return base + Shape::kBarriers + stage * 32; }
    __device__ __forceinline__ uint32_t activationsCome() const { return weightsCome() + 8; }
    __device__ __forceinline__ uint32_t used() const { return weightsCome() + 16; }
    __device__ __forceinline__ uint32_t known() const { return weightsCome() + 24; }
    __device__ __forceinline__ Piece piece() const {
        Piece p;
        asm volatile("ld.shared.v4.s32 {%0, %1, %2, %3}, [%4];" : "=r"(p.operation), "=r"(p.at), "=r"(p.segment), "=r"(p.flags) : "r"(base + Shape::kPieces + stage * 16) : "memory");
        return p;
    }
    __device__ __forceinline__ void tell(Piece p) const {
        asm volatile("st.shared.v4.s32 [%0], {%1, %2, %3, %4};" ::"r"(base + Shape::kPieces + stage * 16), "r"(p.operation), "r"(p.at), "r"(p.segment), "r"(p.flags) : "memory");
    }
    // A hint that nothing else hangs on: it may come late.
    __device__ __forceinline__ int opened() const {
        int operation;
        asm volatile("atom.relaxed.cta.shared.max.s32 %0, [%1], -1;" : "=r"(operation) : "r"(base + Shape::kOpened) : "memory");
        return operation;
    }
    __device__ __forceinline__ void open(int operation) const {
        asm volatile("{\n.reg .s32 before;\natom.relaxed.cta.shared.exch.b32 before, [%0], %1;\n}" ::"r"(base + Shape::kOpened), "r"(operation) : "memory");
    }
    // For a warp that multiplies: the next piece, and that it is done with it.
    __device__ __forceinline__ Piece take() const {
        barrierWait(weightsCome(), phase);
        barrierWait(activationsCome(), phase);
        return piece();
    }
    __device__ __forceinline__ void release() {
        barrierArrive(used());
        next();
    }
};

// One thread: weights, keys and values of all operations, as far ahead as there is room.
template <int N, int Stages> __device__ __forceinline__ void fetchWeights(const StepArgs& a, Ring<N, Stages> ring) {
    Ring<N, Stages> behind = ring;
    const uint64_t once = evictFirst();
    int under = 0;
    // Begins a stage; its bytes are to follow.
    auto begin = [&](Piece piece, int bytes) {
        barrierWait(ring.used(), ring.phase ^ 1);
        for (const int most = ring.opened() >= piece.operation ? kStepBusy : kStepAhead; under >= most; under--, behind.next()) barrierWait(behind.weightsCome(), behind.phase);
        under++;
        ring.tell(piece);
        barrierExpect(ring.weightsCome(), bytes);
    };
    auto end = [&]() {
        barrierArrive(ring.known());
        ring.next();
    };
    for (int p = 0; p < a.count; p++) {
        const int kind = a.ops[p].kind;
        if (kind == kStepProduct) {
            const ProductOp op = a.ops[p].product;
            auto fetch = [&](int tile, int column, int segment, bool last) {
                constexpr int kHalf = kStepTile / 2;
                const int matrix = (tile >= op.secondTile) + (tile >= op.thirdTile), firstTile = matrix == 0 ? 0 : matrix == 1 ? op.secondTile : op.thirdTile;
                begin({p, column, segment, last ? kPieceLast : 0}, StepShape<N, Stages>::kWeights);
                if (op.finish == kFinishGated) {
                    copyTile(ring.data(), op.weights[0], column, tile * kHalf, ring.weightsCome(), once);
                    copyTile(ring.data() + kHalf * kStepDepth * 2, op.weights[1], column, tile * kHalf, ring.weightsCome(), once);
                } else {
                    copyTile(ring.data(), matrix == 0 ? op.weights[0] : matrix == 1 ? op.weights[1] : op.weights[2], column, (tile - firstTile) * kStepTile, ring.weightsCome(), once);
                }
                end();
            };
            // What is shared comes first: by the time that the block is through with its own tiles others have left their sums.
            const int to = op.firstPiece[blockIdx.x + 1];
            int segment = op.firstSegment[blockIdx.x];
            for (int piece = op.firstPiece[blockIdx.x]; piece < to; piece++) {
                const int tile = piece / op.depth;
                const bool last = piece + 1 == to || (piece + 1) % op.depth == 0;
                fetch(op.whole * gridDim.x + tile, (piece - tile * op.depth) * kStepDepth, segment, last);
                segment += last;
            }
            for (int tile = blockIdx.x * op.whole; tile < (blockIdx.x + 1) * op.whole; tile++)
                for (int piece = 0; piece < op.depth; piece++) fetch(tile, piece * kStepDepth, ~tile, piece + 1 == op.depth);
        } else if (kind == kStepAttend) {
            const AttendOp op = a.ops[p].attend;
            asm volatile("prefetch.tensormap [%0];" ::"l"(op.kv) : "memory");
            waitForEarlier();
            waitForPhase(a.arrived, p);
            ring.open(p);
            proxyFence();
            for (int unit = blockIdx.x; unit < op.count * op.heads; unit += gridDim.x) {
                const StepTile tile = op.tiles[unit / op.heads];
                for (int half = 0; half * kBlockSlots < tile.keys; half++) {
                    begin({p, unit, half, (half + 1) * kBlockSlots >= tile.keys ? kPieceLast : 0}, StepShape<N, Stages>::kWeights);
                    const int block = half == 0 ? tile.blocks[0] : tile.blocks[1];
#pragma unroll
                    for (int part = 0; part < 4; part++)
                        copyTile(ring.data() + part * kBlockSlots * 128, op.kv, part % 2 * 64, ((block * 2 + part / 2) * op.heads + unit % op.heads) * kBlockSlots, ring.weightsCome(), once);
                    end();
                }
            }
        } else {
            continue;
        }
        begin({p, 0, 0, kPieceEnd}, 0);
        end();
    }
    begin({a.count, 0, 0, kPieceEnd}, 0);
    end();
}

// One thread: the activations that belong to the weights, once the operations before are over.
template <int N, int Stages> __device__ __forceinline__ void fetchActivations(const StepArgs& a, Ring<N, Stages> ring) {
    const uint64_t often = evictLast();
    const TensorMap* x = nullptr;
    for (int operation = -1;; ring.next()) {
        barrierWait(ring.known(), ring.phase);
        const Piece piece = ring.piece();
        if (piece.operation == a.count) return;
        if (piece.operation != operation) {
            operation = piece.operation;
            x = a.ops[operation].kind == kStepProduct ? a.ops[operation].product.x : nullptr;
            waitForPhase(a.arrived, operation);
            ring.open(operation);
            proxyFence();
        }
        if (x && !(piece.flags & kPieceEnd)) {
            barrierExpect(ring.activationsCome(), StepShape<N, Stages>::kX);
            copyTile(ring.data() + StepShape<N, Stages>::kWeights, x, piece.at, 0, ring.activationsCome(), often);
        } else {
            barrierArrive(ring.activationsCome());
        }
        barrierArrive(ring.used());
    }
}

template <int N, int Stages> __device__ __forceinline__ void multiply(int* arrived, const ProductOp& op, Ring<N, Stages>& ring, float* factors) {
    // A warpgroup has 64 rows of each half of a tile: of the gate and of what is gated.
    const int lane = threadIdx.x % 32, output = threadIdx.x / 128 * 64 + threadIdx.x / 32 % 4 * 16, rows = op.rows;
    float* to = op.sums.partials + output + lane / 4;
    bool told = op.finish == kFinishNothing;
    auto tell = [&]() {
        told = true;
        factorsOf<N>(op, factors);
        consumersMeet();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(arrived + kSumsArrived, 1);
        }
    };
    for (Piece piece = ring.take(); !(piece.flags & kPieceEnd); piece = ring.take()) {
        if (!told && piece.segment < 0) tell();
        float c[2][N / 2] = {};
        while (true) {
            const uint32_t weights = ring.data() + threadIdx.x / 128 * 64 * 128, x = ring.data() + StepShape<N, Stages>::kWeights;
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
            if (piece.flags & kPieceLast) break;
            piece = ring.take();
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
    if (!told) tell();
    if (op.shared == 0 || op.finish == kFinishNothing) return;
    if (threadIdx.x == 0) waitForPhase(arrived + kSumsArrived, op.round + 1);
    consumersMeet();
    finishShared<N>(op, factors);
}

// Tiles with a key-value head, which the two warpgroups take in turn, and the warps of a warpgroup where there is work for one alone. All that 64 rows (8 rows x 7 heads) see
// of the same 64 keys is multiplied at once.
template <int N, int Stages, class Open> __device__ __forceinline__ void attendTiles(const AttendOp& op, Ring<N, Stages>& ring, Open open) {
    constexpr int kDim = 128, kSteps = kDim / 16, kHalfTile = kBlockSlots * 128;
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, queries = op.heads * op.perHead;
    // Chunk c (of 16 bytes) of row r lies at place c ^ (r mod 8) of its row; columns from 64 on are a tile of their own. Rows are eight apart from one step to the next and
    // chunks even, so an address is a constant part, an offset, and an exclusive or of the chunk.
    auto place = [](int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); };
    const int keyAt = place(lane % 8 + lane / 16 * 8, lane / 8 % 2), valueAt = 2 * kHalfTile + place(lane % 16, lane / 16);
    const float scale = op.scale * kLog2E;
    // Queries are on their way before the keys have come.
    open();
    Piece piece;
    auto skipTo = [&](int unit) {
        for (piece = ring.take(); !(piece.flags & kPieceEnd) && piece.at != unit; piece = ring.take()) ring.release();
    };
    int turn = 0;
    for (int unit = blockIdx.x + group * gridDim.x; unit < op.count * op.heads; unit += 2 * gridDim.x, turn++) {
        const StepTile tile = op.tiles[unit / op.heads];
        const int head = unit % op.heads, packed = tile.rows * op.perHead, part = packed > 16 ? warp * 16 : 0;
        // Nothing to do for this warp, which will pass by the pieces of this tile.
        if (packed > 16 ? part >= packed : turn % 4 != warp) continue;
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
        skipTo(unit);
        const int see0 = min(tile.keys, tile.limit + tile.step * row0), see1 = min(tile.keys, tile.limit + tile.step * row1);
        float o[kDim / 8][4] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
        for (bool more = true; more;) {
            const uint32_t keys = ring.data() + keyAt, values = ring.data() + valueAt;
            more = !(piece.flags & kPieceLast);
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
            ring.release();
            if (more) piece = ring.take();
        }
        // Read again rather than kept: registers are short.
        const StepTile& again = op.tiles[unit / op.heads];
        const AttendTile whole = {0, again.rows, 0, 0, again.slot};
        const AttendArgs args = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, op.partialO, op.partialLogSumExp, op.heads, op.perHead, op.scale, 0};
        storeRows<kDim>(args, whole, unit % op.heads, r0, row0, row1, again.rows * op.perHead, lane, max0, max1, sum0, sum1, o);
    }
    skipTo(-1);
    ring.release();
}

template <int N, int Stages> __device__ __forceinline__ void step(const StepArgs& a) {
    using Shape = StepShape<N, Stages>;
    extern __shared__ __align__(1024) char raw[];
    // The copy engine's swizzle counts rows from multiples of 1,024 bytes.
    char* shared = raw + (1024 - (sharedAddress(raw) & 1023)) % 1024;
    const uint32_t base = sharedAddress(shared);
    Ring<N, Stages> ring(base);
    letNextStart();
    if (threadIdx.x == 0) {
        for (; ring.phase == 0; ring.next()) {
            barrierInit(ring.weightsCome(), 1);
            barrierInit(ring.activationsCome(), 1);
            // By all that read what the stage holds.
            barrierInit(ring.used(), kStepConsumers + 1);
            barrierInit(ring.known(), 1);
        }
        ring.phase = 0;
        ring.open(-1);
        barrierInitFence();
    }
    __syncthreads();

    if (threadIdx.x >= kStepConsumers) {
        // The program and the weights were there before the kernels in front, activations were not.
        if (threadIdx.x == kStepConsumers) {
            fetchWeights<N, Stages>(a, ring);
        } else if (threadIdx.x == kStepConsumers + 32) {
            waitForEarlier();
            fetchActivations<N, Stages>(a, ring);
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
        if (op.kind == kStepProduct) multiply<N, Stages>(a.arrived, op.product, ring, reinterpret_cast<float*>(shared + Shape::kFactors));
        else if (op.kind == kStepAttend) attendTiles<N, Stages>(op.attend, ring, open);
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
            __threadfence();
            const int before = atomicAdd(a.arrived, 1);
            // Everyone has arrived for the last time, so nobody waits any more.
            if (before == static_cast<int>(gridDim.x) * a.count - 1) a.arrived[0] = a.arrived[kSumsArrived] = 0;
        }
        if (last) break;
    }
}
#endif

}  // namespace

#define STEP(N, Stages)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kStepThreads, 1) lriad_step_##N(const __grid_constant__ StepArgs a) {   \
        STEP_BODY(N, Stages)                                                                                             \
    }
#if __CUDA_ARCH__ >= 900
#define STEP_BODY(N, Stages) step<N, Stages>(a);
#else
#define STEP_BODY(N, Stages)
#endif
STEP(8, 6)
STEP(64, 5)
#undef STEP
#undef STEP_BODY
