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
// A warpgroup has two boxes of a piece: Outputs outputs, either box a half of them, or the same 64 over 128 inputs. The left operand are 64 rows of x: with N = 8 the same
// eight again and again.
template <int N, int Outputs, class Open> __device__ __forceinline__ void multiply(int* arrived, const ProductOp& op, Ring<N>& ring, XRing<N>& xs, float* factors, Open open) {
    constexpr int kDeep = Outputs == 64 ? 2 : 1, kSteps = kStepDepth / 16;
    bool begun = false, told = op.finish == kFinishNothing;
    auto tell = [&]() {
        told = true;
        factorsOf<N>(op, factors);
        consumersMeet();
        if (threadIdx.x == 0) arrive(arrived + kSumsArrived);
    };
    for (Piece piece = ring.take(); !(piece.flags & kPieceEnd); piece = ring.take()) {
        begun = true;
        float c[Outputs / 2] = {};
        while (true) {
            const uint32_t weights = ring.data() + threadIdx.x / 128 * (Outputs * kDeep) * 128;
            XRing<N> used = xs;
#pragma unroll
            for (int box = 0; box < kDeep; box++, xs.next()) {
                // With the activations all operations before are over.
                barrierWait(xs.come(), xs.phase);
                if (!told && piece.segment < 0) tell();
                matmulFence();
#pragma unroll
                for (int k = 0; k < kSteps; k++) {
                    const uint64_t left = operand(xs.data() + k * 32, N == 8 ? 0 : 1024, 0, kSwizzle128), right = operand(weights + box * 64 * 128 + k * 32, 1024, 0, kSwizzle128);
                    if constexpr (Outputs == 64) matmul64(c, left, right, 1);
                    else if constexpr (Outputs == 128) matmul128(c, left, right, 1);
                    else matmul144(c, left, right, 1);
                }
                matmulCommit();
            }
            matmulWait<0>();
            ring.release();
            for (; used.stage != xs.stage; used.next()) barrierArrive(used.used());
            if (piece.flags & kPieceLast) break;
            piece = ring.take();
        }
        if (piece.segment < 0) finishWhole<N, Outputs>(op, factors, ~piece.segment, c);
        else leaveSums<N, Outputs>(op, piece.segment, c);
    }
    ring.release();
    if (!begun) open();
    if (!told) tell();
}

template <int N> __device__ __forceinline__ void runOps(const StepArgs& a, char* shared, Ring<N>& ring, XRing<N>& xs) {
    using Shape = StepShape<N>;
    float* factors = reinterpret_cast<float*>(shared + Shape::kFactors);
    auto fetchOp = [&](int p) {
        if (p < a.count && threadIdx.x < sizeof(StepOp) / 16)
            copyAsync(ring.base + Shape::kOps + p % 2 * static_cast<int>(sizeof(StepOp)) + threadIdx.x * 16, reinterpret_cast<const char*>(a.ops + p) + threadIdx.x * 16, true);
        copyCommit();
    };
    fetchOp(0);
    copyWait<0>();
    consumersMeet();
    for (int p = 0; p < a.count; p++) {
        const StepOp& op = *reinterpret_cast<const StepOp*>(shared + Shape::kOps + p % 2 * sizeof(StepOp));
        fetchOp(p + 1);
        auto open = [&]() {
            if (threadIdx.x == 0) waitForPhase(a.arrived, p);
            consumersMeet();
        };
        if (op.kind == kStepProduct) {
            if (op.product.finish == kFinishNothing) multiply<N, 64>(a.arrived, op.product, ring, xs, factors, open);
            else if (op.product.boxRows == 64) multiply<N, 128>(a.arrived, op.product, ring, xs, factors, open);
            else multiply<N, 144>(a.arrived, op.product, ring, xs, factors, open);
            if (op.product.shared > 0 && op.product.finish != kFinishNothing) {
                if (threadIdx.x == 0) waitForPhase(a.arrived + kSumsArrived, op.product.round + 1);
                consumersMeet();
                finishShared<N>(op.product, factors);
            }
        } else if (op.kind == kStepAttend) attendTiles(op.attend, ring, open);
        else if (op.kind == kStepResidual) residual<N>(op.residual, open);
        else if (op.kind == kStepRotate) rotate<N>(op.rotate, open);
        else if (op.kind == kStepMerge) merge<N>(op.merge, open);
        else embed(op.embed.args, op.embed.rows, open);
        // What the copy engine of others reads next.
        if (op.kind != kStepProduct || op.product.finish == kFinishGated) proxyFence();
        copyWait<0>();
        // Who comes first past the meeting overwrites the operation.
        consumersMeet();
        if (threadIdx.x == 0) {
            // Once everyone has arrived for the last time nobody waits any more.
            if (arrive(a.arrived) == static_cast<int>(gridDim.x) * a.count - 1) a.arrived[0] = a.arrived[kSumsArrived] = 0;
        }
    }
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
        // Used by all that read what the stage holds.
        for (; ring.phase == 0; ring.next()) {
            barrierInit(ring.come(), 1);
            barrierInit(ring.used(), kStepConsumers);
        }
        for (; xs.phase == 0; xs.next()) {
            barrierInit(xs.come(), 1);
            barrierInit(xs.used(), kStepConsumers);
        }
        ring.open(-1);
        barrierInit(ring.ahead(), 1);
        barrierInitFence();
    }
    ring.phase = xs.phase = 0;
    __syncthreads();

    if (threadIdx.x >= kStepConsumers) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
        // The program and the weights were there before the kernels in front, activations were not.
        if (threadIdx.x == kStepConsumers) {
            fetchWeights(a, ring);
        } else if (threadIdx.x == kStepConsumers + 32) {
            waitForEarlier();
            fetchActivations(a, ring, xs);
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
        waitForEarlier();
        runOps<N>(a, shared, ring, xs);
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
