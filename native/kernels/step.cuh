// A decode step as one kernel: a program of operations on at most 64 rows, with a barrier over the whole GPU between them.
//
// A decode step is nothing but reading the weights (and the cache) once. So one thread a block does nothing else: it asks the copy engine for the weights of the block's
// share of one product after another, as far ahead as there is room, without regard to what the others are doing. A second thread fetches the activations that belong to
// the weights, as soon as the operation that makes them is over. Two warpgroups multiply, and do the small operations between the products while weights pile up.
//
// Who multiplies what depends on the shape of the weights alone and partial sums are added in a fixed order: a row's result does not depend on its neighbours.
#pragma once
#include "step_attend.cuh"
#include "wgmma.cuh"

namespace {

#if __CUDA_ARCH__ >= 900
template <int N, class Open> __device__ __forceinline__ void multiply(int* arrived, const ProductOp& op, Ring<N>& ring, XRing<N>& xs, float* factors, Open open) {
    // A warpgroup has 64 rows of each half of a tile: of the gate and of what is gated.
    const int lane = threadIdx.x % 32, output = threadIdx.x / 128 * 64 + threadIdx.x / 32 % 4 * 16, rows = op.rows;
    float* to = op.sums.partials + output + lane / 4;
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
            barrierInit(xs.used(), kStepConsumers / 32);
        }
        ring.open(-1);
        barrierInitFence();
    }
    ring.phase = xs.phase = 0;
    __syncthreads();

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
}
#endif

}  // namespace

#define STEP(N)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(kStepThreads, 1) lriad_step_##N(const __grid_constant__ StepArgs a) {   \
        STEP_BODY(N)                                                                                                     \
    }
#if __CUDA_ARCH__ >= 900
#define STEP_BODY(N) step<N>(a);
#else
#define STEP_BODY(N)
#endif
STEP(8)
STEP(64)
#undef STEP
#undef STEP_BODY
