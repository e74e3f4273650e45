// The chain rule through norms, the feed-forward block, rotary and the head. Gradients of the residual stream are float32, those between two products bfloat16.
#pragma once
#include "common.cuh"
#include "norm.cuh"

constexpr int kBackwardThreads = 256;
// Rows that a list may name: what the head scores at a time.
constexpr int kNormGathered = 1024;

// dx = residual + J·dy, for y = x / rms(x) · weight; a block a row, a thread two chunks of eight columns as a rule, all of whose loads are under way together. With
// `gather` the rows of dy are those it names: a row of x named several times gets their sum, in order, and whoever comes first in the list adds it to dx.
extern "C" __global__ void __launch_bounds__(kNormThreads) lriad_norm_backward(const __grid_constant__ NormBackwardArgs a) {
    constexpr int kHeld = 2;
    __shared__ float sums[2][kNormThreads / 32];
    // Where else in the list the row stands, behind r; −1 of them where it stood in front.
    __shared__ short others[kNormGathered];
    __shared__ int same;
    const int r = blockIdx.x, chunks = a.columns / 8, first = threadIdx.x, step = blockDim.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    letNextStart();
    uint4 weights[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; i++) weights[i] = reinterpret_cast<const uint4*>(a.weight)[min(first + i * step, chunks - 1)];
    waitForEarlier();
    int row = r, more = 0;
    if (a.gather) {
        auto rowOf = [&](int i) { return *reinterpret_cast<const int*>(a.gather + static_cast<int64_t>(i) * a.gatherStride); };
        row = rowOf(r);
        if (warp == 0) {
            int found = 0;
            for (int from = 0; from < a.count && found >= 0; from += 32) {
                const int i = from + lane;
                const bool it = i < a.count && rowOf(i) == row;
                const uint32_t later = __ballot_sync(~0u, it && i > r);
                if (it && i > r) others[found + __popc(later & ((1u << lane) - 1))] = static_cast<short>(i);
                found = __any_sync(~0u, it && i < r) ? -1 : found + __popc(later);
            }
            if (lane == 0) same = found;
        }
        __syncthreads();
        more = same;
        if (more < 0) return;
    }

    const uint4 *x = reinterpret_cast<const uint4*>(a.x + static_cast<int64_t>(row) * a.columns), *dy = reinterpret_cast<const uint4*>(a.dy + static_cast<int64_t>(r) * a.columns);
    const float4* residual = reinterpret_cast<const float4*>(a.residual + static_cast<int64_t>(row) * a.columns);
    uint4 xs[kHeld], dys[kHeld];
    float4 lows[kHeld], highs[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
        const int c = min(first + i * step, chunks - 1);
        xs[i] = x[c];
        dys[i] = dy[c];
        lows[i] = residual[2 * c];
        highs[i] = residual[2 * c + 1];
    }
    // g = weight · dy.
    const auto gradient = [&](int c, uint4 raw, uint4 weight) {
        Eight g = Eight::of(raw);
        for (int i = 0; i < more; i++) {
            const Eight other = Eight::load(a.dy + static_cast<int64_t>(others[i]) * a.columns + c * 8);
#pragma unroll
            for (int j = 0; j < 8; j++) g.v[j] += other.v[j];
        }
        const Eight w = Eight::of(weight);
#pragma unroll
        for (int j = 0; j < 8; j++) g.v[j] *= w.v[j];
        return g;
    };
    Eight gradients[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; i++) gradients[i] = gradient(min(first + i * step, chunks - 1), dys[i], weights[i]);

    // work(c, columns 8c to 8c + 7 of x, of g, of the residual) for each of the thread's chunks.
    const auto each = [&](auto work) {
#pragma unroll
        for (int i = 0; i < kHeld; i++)
            if (first + i * step < chunks) work(first + i * step, Eight::of(xs[i]), gradients[i], lows[i], highs[i]);
        for (int c = first + kHeld * step; c < chunks; c += step)
            work(c, Eight::of(x[c]), gradient(c, dy[c], reinterpret_cast<const uint4*>(a.weight)[c]), residual[2 * c], residual[2 * c + 1]);
    };

    // With n = x / rms: dx = (g − n · mean(g · n)) / rms.
    float squares = 0, along = 0;
    each([&](int, const Eight& e, const Eight& g, float4, float4) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            squares += e.v[j] * e.v[j];
            along += g.v[j] * e.v[j];
        }
    });
    squares = warpSum(squares);
    along = warpSum(along);
    if (lane == 0) {
        sums[0][warp] = squares;
        sums[1][warp] = along;
    }
    __syncthreads();
    squares = along = 0;
    for (int w = 0; w < step / 32; w++) {
        squares += sums[0][w];
        along += sums[1][w];
    }
    const float inverse = rsqrtf(squares / a.columns + a.epsilon), mean = along * inverse / a.columns;
    float4* dx = reinterpret_cast<float4*>(a.dx + static_cast<int64_t>(row) * a.columns);
    each([&](int c, const Eight& e, const Eight& g, float4 low, float4 high) {
        Eight d;
        float* sum[8] = {&low.x, &low.y, &low.z, &low.w, &high.x, &high.y, &high.z, &high.w};
#pragma unroll
        for (int j = 0; j < 8; j++) d.v[j] = *sum[j] += inverse * (g.v[j] - e.v[j] * inverse * mean);
        dx[2 * c] = low;
        dx[2 * c + 1] = high;
        if (a.rounded) d.store(a.rounded + static_cast<int64_t>(row) * a.columns + c * 8);
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
