// The chain rule through norms, the feed-forward block, rotary and the head. Gradients of the residual stream are float32, those between two products bfloat16.
#pragma once
#include "common.cuh"

constexpr int kBackwardThreads = 256;
// Rows that a list may name: what the head scores at a time.
constexpr int kNormGathered = 1024;

// A row, which a warp holds in registers as far as that goes: 4,096 columns.
struct HeldRow {
    static constexpr int kHeld = 16;
    const uint4* x;
    int chunks, lane;
    uint4 held[kHeld];

    __device__ __forceinline__ HeldRow(const bf16* row, int chunks, int lane) : x(reinterpret_cast<const uint4*>(row)), chunks(chunks), lane(lane) {
#pragma unroll
        for (int i = 0; i < kHeld; i++) held[i] = lane + i * 32 < chunks ? x[lane + i * 32] : uint4{};
    }

    // work(c, columns 8c to 8c + 7), a thread every 32nd c.
    template <typename Work> __device__ __forceinline__ void each(Work work) const {
#pragma unroll
        for (int i = 0; i < kHeld; i++)
            if (lane + i * 32 < chunks) work(lane + i * 32, Eight::of(held[i]));
        for (int c = lane + kHeld * 32; c < chunks; c += 32) work(c, Eight::of(x[c]));
    }
};

// dx = residual + J·dy, for y = x / rms(x) · weight; a warp a row. With `gather` the rows of dy are those it names: a row of x named several times gets their
// sum, in order, and whoever comes first in the list adds it to dx.
extern "C" __global__ void __launch_bounds__(128) lriad_norm_backward(const __grid_constant__ NormBackwardArgs a) {
    const int r = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, chunks = a.columns / 8;
    letNextStart();
    waitForEarlier();
    if (r >= a.count) return;
    auto rowOf = [&](int i) { return a.gather ? *reinterpret_cast<const int*>(a.gather + static_cast<int64_t>(i) * a.gatherStride) : i; };
    const int row = rowOf(r);
    // Where else in the list the row stands, behind r.
    __shared__ short others[4][kNormGathered];
    short* mine = others[threadIdx.x / 32];
    int same = 0;
    for (int from = 0; a.gather && from < a.count; from += 32) {
        const int i = from + lane;
        const bool it = i < a.count && rowOf(i) == row;
        if (__any_sync(~0u, it && i < r)) return;
        const uint32_t later = __ballot_sync(~0u, it && i > r);
        if (it && i > r) mine[same + __popc(later & ((1u << lane) - 1))] = static_cast<short>(i);
        same += __popc(later);
    }
    __syncwarp();

    auto gradient = [&](int c) {
        Eight g = Eight::load(a.dy + static_cast<int64_t>(r) * a.columns + c * 8);
        for (int i = 0; i < same; i++) {
            const Eight more = Eight::load(a.dy + static_cast<int64_t>(mine[i]) * a.columns + c * 8);
#pragma unroll
            for (int j = 0; j < 8; j++) g.v[j] += more.v[j];
        }
        const Eight w = Eight::load(a.weight + c * 8);
#pragma unroll
        for (int j = 0; j < 8; j++) g.v[j] *= w.v[j];
        return g;
    };
    const HeldRow held(a.x + static_cast<int64_t>(row) * a.columns, chunks, lane);

    // With n = x / rms and g = weight · dy: dx = (g − n · mean(g · n)) / rms.
    float squares = 0, along = 0;
    held.each([&](int c, const Eight& e) {
        const Eight g = gradient(c);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            squares += e.v[j] * e.v[j];
            along += g.v[j] * e.v[j];
        }
    });
    const float inverse = rsqrtf(warpSum(squares) / a.columns + a.epsilon);
    const float mean = warpSum(along) * inverse / a.columns;
    const float* residual = a.residual + static_cast<int64_t>(row) * a.columns;
    float* dx = a.dx + static_cast<int64_t>(row) * a.columns;
    held.each([&](int c, const Eight& e) {
        const Eight g = gradient(c);
        float4 low = *reinterpret_cast<const float4*>(residual + c * 8), high = *reinterpret_cast<const float4*>(residual + c * 8 + 4);
        float* sums[8] = {&low.x, &low.y, &low.z, &low.w, &high.x, &high.y, &high.z, &high.w};
#pragma unroll
        for (int j = 0; j < 8; j++) *sums[j] += inverse * (g.v[j] - e.v[j] * inverse * mean);
        *reinterpret_cast<float4*>(dx + c * 8) = low;
        *reinterpret_cast<float4*>(dx + c * 8 + 4) = high;
    });
}

// From dh, h = silu(gate) · up, to rows of dgate | dup.
extern "C" __global__ void __launch_bounds__(kBackwardThreads) lriad_gated_silu_backward(const __grid_constant__ GatedSiluBackwardArgs a) {
    letNextStart();
    waitForEarlier();
    // Several at a time are under way.
    constexpr int kTogether = 2;
    const int chunks = a.columns / 8;
    const int64_t count = static_cast<int64_t>(a.rows) * chunks, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; first < count; first += kTogether * step) {
        uint4 gates[kTogether], ups[kTogether], dhs[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const int64_t i = min(first + k * step, count - 1), row = i / chunks, from = row * 2 * a.columns + (i - row * chunks) * 8;
            gates[k] = *reinterpret_cast<const uint4*>(a.gateUp + from);
            ups[k] = *reinterpret_cast<const uint4*>(a.gateUp + from + a.columns);
            dhs[k] = *reinterpret_cast<const uint4*>(a.dh + i * 8);
        }
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const int64_t i = first + k * step, row = i / chunks, to = row * 2 * a.columns + (i - row * chunks) * 8;
            if (i >= count) continue;
            Eight gate = Eight::of(gates[k]), up = Eight::of(ups[k]);
            const Eight dh = Eight::of(dhs[k]);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float g = gate.v[j], sigmoid = __fdividef(1.0f, 1 + __expf(-g)), silu = g * sigmoid;
                gate.v[j] = dh.v[j] * up.v[j] * (sigmoid + silu * (1 - sigmoid));
                up.v[j] = dh.v[j] * silu;
            }
            gate.store(a.dGateUp + to);
            up.store(a.dGateUp + to + a.columns);
        }
    }
}

// Back through rotary, to rows of dq | dk | dv with respect to the products: a block a row, a head's columns i and i + headDim/2 turn back together.
extern "C" __global__ void __launch_bounds__(384) lriad_qkv_backward(const __grid_constant__ QkvBackwardArgs a) {
    __shared__ float cosine[128], sine[128];
    letNextStart();
    const TokenRow& row = a.rows[blockIdx.x];
    const int half = a.headDim / 2, units = half / 8, queries = a.heads * a.perHead, plane = a.heads * 64 * a.headDim;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float s, c;
        turn(row.position[a.axis[i]] * a.frequency[i], s, c);
        cosine[i] = c;
        sine[i] = s;
    }
    waitForEarlier();
    __syncthreads();

    const bf16* dq = a.dq + static_cast<int64_t>(blockIdx.x) * queries * a.headDim;
    const float* slot = a.dKv + static_cast<int64_t>(row.slot / 64) * 2 * plane + (row.slot % 64) * a.headDim;
    bf16* out = a.dQkv + static_cast<int64_t>(blockIdx.x) * (queries + 2 * a.heads) * a.headDim;
    for (int u = threadIdx.x; u < (queries + 2 * a.heads) * units; u += blockDim.x) {
        const int head = u / units, i = (u - head * units) * 8;
        const bool query = head < queries, value = head >= queries + a.heads;
        Eight lower, upper;
        if (query) {
            lower = Eight::load(dq + head * a.headDim + i);
            upper = Eight::load(dq + head * a.headDim + i + half);
        } else {
            const float* from = slot + (value ? plane : 0) + (head - queries - (value ? a.heads : 0)) * 64 * a.headDim + i;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                lower.v[j] = from[j];
                upper.v[j] = from[half + j];
            }
        }
        if (!value) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float x = lower.v[j];
                lower.v[j] = x * cosine[i + j] + upper.v[j] * sine[i + j];
                upper.v[j] = upper.v[j] * cosine[i + j] - x * sine[i + j];
            }
        }
        lower.store(out + head * a.headDim + i);
        upper.store(out + head * a.headDim + i + half);
    }
}

// dlogit = dlogp · (1[target] − soft-max) / temperature, in bfloat16.
extern "C" __global__ void __launch_bounds__(kBackwardThreads) lriad_head_backward(const __grid_constant__ HeadBackwardArgs a) {
    letNextStart();
    waitForEarlier();
    const int r = blockIdx.x;
    const LogProbRow row = a.targets[r];
    const float inverse = __fdiv_rn(1.0f, row.temperature), scale = a.dLogProb[r] * inverse, logSumExp = a.logSumExp[r];
    const float4* logits = reinterpret_cast<const float4*>(a.logits + static_cast<int64_t>(r) * a.vocabulary);
    bf16* out = a.dLogits + static_cast<int64_t>(r) * a.vocabulary;
    for (int c = blockIdx.y * blockDim.x + threadIdx.x; c < a.vocabulary / 8; c += gridDim.y * blockDim.x) {
        const float4 low = logits[2 * c], high = logits[2 * c + 1];
        const float z[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        Eight e;
#pragma unroll
        for (int j = 0; j < 8; j++) e.v[j] = scale * ((c * 8 + j == row.target ? 1.0f : 0.0f) - __expf(z[j] * inverse - logSumExp));
        e.store(out + c * 8);
    }
}
