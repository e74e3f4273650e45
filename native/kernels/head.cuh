// From logits to log-probs and draws. Every row's vocabulary is cut into `splits` parts, a block each; parts are put together in their order.
#pragma once
#include "common.cuh"
#include "philox.cuh"

constexpr int kHeadThreads = 256;

namespace {

// The one logarithm of all draws and the noise made of it: the operations of Philox.cs in the same order, so that the bits are the same too.
__device__ __forceinline__ float drawLog(float x) {
    const int shifted = __float_as_int(x) + (0x3F800000 - 0x3F3504F3);
    const float exponent = static_cast<float>((shifted >> 23) - 127);
    const float m = __fsub_rn(__int_as_float((shifted & 0x007FFFFF) + 0x3F3504F3), 1.0f);
    float p = 7.0376836292e-2f;
    p = __fmaf_rn(p, m, -1.1514610310e-1f);
    p = __fmaf_rn(p, m, 1.1676998740e-1f);
    p = __fmaf_rn(p, m, -1.2420140846e-1f);
    p = __fmaf_rn(p, m, 1.4249322787e-1f);
    p = __fmaf_rn(p, m, -1.6668057665e-1f);
    p = __fmaf_rn(p, m, 2.0000714765e-1f);
    p = __fmaf_rn(p, m, -2.4999993993e-1f);
    p = __fmaf_rn(p, m, 3.3333331174e-1f);
    const float square = __fmul_rn(m, m);
    float result = __fmul_rn(p, __fmul_rn(square, m));
    result = __fmaf_rn(exponent, -2.12194440e-4f, result);
    result = __fmaf_rn(square, -0.5f, result);
    result = __fadd_rn(m, result);
    return __fmaf_rn(exponent, 0.693359375f, result);
}

__device__ __forceinline__ float uniform(uint32_t word) {
    return fminf(__fmul_rn(__fadd_rn(static_cast<float>(static_cast<int>(word >> 1)), 0.5f), 4.656612873e-10f), 0.99999994f);
}

__device__ __forceinline__ float gumbel(uint32_t word) {
    const float v = uniform(word);
    const float exponential = v < 1.0f / 4096 ? __fmaf_rn(__fmul_rn(v, v), 0.5f, v) : -drawLog(__fsub_rn(1.0f, v));
    return -drawLog(exponential);
}

// The same to 0.001, for a few instructions.
__device__ __forceinline__ float roughGumbel(uint32_t word) {
    constexpr float kLogOf2 = 0.69314718f;
    const float v = uniform(word), exponential = v < 1.0f / 4096 ? __fmaf_rn(__fmul_rn(v, v), 0.5f, v) : -kLogOf2 * logarithm2(1.0f - v);
    return -kLogOf2 * logarithm2(exponential);
}
// How far a key may be from one with rough noise.
__device__ __forceinline__ float roughness(float key) { return 0.01f + fabsf(key) * 1e-6f; }

// Σ e^(z − max) and Σ e^(z − max)·(z − max) of two sets as those of their union.
__device__ __forceinline__ void join(HeadPart& a, float max, float sum, float weighted) {
    const float top = fmaxf(a.max, max);
    if (top == -INFINITY) return;
    const float fa = a.sum > 0 ? expf(a.max - top) : 0, fb = sum > 0 ? expf(max - top) : 0;
    a.weighted = fa * (a.weighted + a.sum * (a.sum > 0 ? a.max - top : 0)) + fb * (weighted + sum * (sum > 0 ? max - top : 0));
    a.sum = fa * a.sum + fb * sum;
    a.max = top;
}

// The larger key; the lower token among equals.
__device__ __forceinline__ void best(HeadPart& a, float key, int token) {
    if (token >= 0 && (a.token < 0 || key > a.key || (key == a.key && token < a.token))) {
        a.key = key;
        a.token = token;
    }
}

// All of a warp's sets: each is brought to the greatest maximum, and then they are added up.
__device__ __forceinline__ void joinWarp(HeadPart& part) {
    float top = part.max;
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, offset));
        best(part, __shfl_xor_sync(~0u, part.key, offset), __shfl_xor_sync(~0u, part.token, offset));
    }
    const float below = part.sum > 0 ? part.max - top : 0, fade = part.sum > 0 ? expf(below) : 0;
    part.weighted = warpSum(fade * (part.weighted + part.sum * below));
    part.sum = warpSum(fade * part.sum);
    part.max = top;
}

// What a block has found of its part of a row.
__device__ __forceinline__ void joinBlock(const HeadArgs& a, HeadPart part) {
    __shared__ HeadPart warps[kHeadThreads / 32];
    const int lane = threadIdx.x % 32;
    joinWarp(part);
    if (lane == 0) warps[threadIdx.x / 32] = part;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    part = lane < kHeadThreads / 32 ? warps[lane] : HeadPart{-INFINITY, 0, 0, -INFINITY, -1};
    joinWarp(part);
    if (lane == 0) a.parts[static_cast<int64_t>(blockIdx.x) * a.splits + blockIdx.y] = part;
}

// Bits that sort as the floats do.
__device__ __forceinline__ uint32_t sortable(float x) {
    const uint32_t bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float inverseTemperature(const HeadArgs& a, int r) {
    const float temperature = a.samples ? a.samples[r].temperature : a.targets[r].temperature;
    return temperature == 0 ? 1.0f : __fdiv_rn(1.0f, temperature);
}

// What a row's mask allows, a bit a token; null where it allows everything.
__device__ __forceinline__ const uint32_t* maskOf(const HeadArgs& a, const SampleRow& row) {
    return row.mask < 0 ? nullptr : a.masks + static_cast<int64_t>(row.mask) * ((a.vocabulary + 31) / 32);
}

__device__ __forceinline__ int topWanted(const HeadArgs& a, int r) { return min(min(a.topCount, a.vocabulary), a.samples ? a.samples[r].top : a.targets[r].top); }

}  // namespace

// Maximum, Σ e, Σ e·z and the winner of the draw of one part of a row's vocabulary.
extern "C" __global__ void __launch_bounds__(kHeadThreads) lriad_head_parts(const __grid_constant__ HeadArgs a) {
    letNextStart();
    waitForEarlier();
    const int r = blockIdx.x, split = blockIdx.y, lane = threadIdx.x % 32;
    const float* logits = a.logits + static_cast<int64_t>(r) * a.vocabulary;
    const float inverse = inverseTemperature(a, r);
    const SampleRow row = a.samples[r];
    const bool draw = row.temperature != 0;
    const float floor = draw ? a.floor[r] : -INFINITY;
    const int lastTied = draw ? a.lastTied[r] : 0;
    const uint32_t* mask = maskOf(a, row);

    // Words of the generator come four at a time, for tokens eight apart.
    const int groups = (a.vocabulary + 31) / 32, from = static_cast<int>(static_cast<int64_t>(groups) * split / a.splits) * 8, to = static_cast<int>(static_cast<int64_t>(groups) * (split + 1) / a.splits) * 8;
    const auto firstOf = [](int u) { return u / 8 * 32 + u % 8; };
    const auto load = [&](int u, float (&z)[4]) {
#pragma unroll
        for (int j = 0; j < 4; j++) z[j] = u < to && firstOf(u) + j * 8 < a.vocabulary ? logits[firstOf(u) + j * 8] : -INFINITY;
    };
    const auto noise = [&](int u, uint32_t (&words)[4]) {
        const uint4 w = philox(row.seedLow, row.seedHigh, make_uint4(u, row.position, row.sample, 0));
        words[0] = w.x; words[1] = w.y; words[2] = w.z; words[3] = w.w;
    };
    // Bit 8 · j says whether the j-th of u's tokens may be drawn.
    const auto allowedOf = [&](int u) { return mask ? mask[u / 8] >> u % 8 : ~0u; };
    const auto roughKey = [&](float z, int token, uint32_t word, bool allowed) {
        const float key = z + roughGumbel(word);
        return allowed && (z > floor || (z == floor && token <= lastTied)) ? key : -INFINITY;
    };

    HeadPart part = {-INFINITY, 0, 0, -INFINITY, -1};
    float next[4], top = -INFINITY;
    load(from + threadIdx.x, next);
    for (int u = from + threadIdx.x; u < to; u += kHeadThreads) {
        const uint32_t allowed = allowedOf(u);
        float z[4], max = part.max;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            z[j] = __fmul_rn(next[j], inverse);
            max = fmaxf(max, z[j]);
        }
        // Under way while these are dealt with.
        load(u + kHeadThreads, next);
        if (max > part.max) {
            if (part.sum > 0) {
                const float fade = expf(part.max - max);
                part.weighted = fade * (part.weighted + part.sum * (part.max - max));
                part.sum *= fade;
            }
            part.max = max;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            // What is not there adds nothing, also where nothing is there yet.
            const float below = fmaxf(z[j] - part.max, -1e30f), e = z[j] == -INFINITY ? 0 : power2(below * kLog2E);
            part.sum += e;
            part.weighted += e * below;
        }
        if (draw) {
            uint32_t words[4];
            noise(u, words);
#pragma unroll
            for (int j = 0; j < 4; j++) top = fmaxf(top, roughKey(z[j], firstOf(u) + j * 8, words[j], allowed >> j * 8 & 1));
        } else {
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (allowed >> j * 8 & 1) best(part, z[j], firstOf(u) + j * 8 < a.vocabulary ? firstOf(u) + j * 8 : -1);
        }
    }
    if (draw) {
        // The winner's key is no less than this: of the others nothing need be known, and few threads are left to look once more.
        __shared__ float tops[kHeadThreads / 32];
        float least = top;
#pragma unroll
        for (int offset = 16; offset > 0; offset >>= 1) least = fmaxf(least, __shfl_xor_sync(~0u, least, offset));
        if (lane == 0) tops[threadIdx.x / 32] = least;
        __syncthreads();
        for (int warp = 0; warp < kHeadThreads / 32; warp++) least = fmaxf(least, tops[warp]);
        least -= roughness(least);
        if (top > -INFINITY && top + roughness(top) >= least)
            for (int u = from + threadIdx.x; u < to; u += kHeadThreads) {
                float z[4];
                uint32_t words[4];
                load(u, z);
                noise(u, words);
                const uint32_t allowed = allowedOf(u);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    z[j] = __fmul_rn(z[j], inverse);
                    const float key = roughKey(z[j], firstOf(u) + j * 8, words[j], allowed >> j * 8 & 1);
                    if (key > -INFINITY && key + roughness(key) >= least) best(part, __fadd_rn(z[j], gumbel(words[j])), firstOf(u) + j * 8);
                }
            }
    }
    joinBlock(a, part);
}

// The likeliest tokens of the rows that ask for them, one after another. Each thread holds the best of its own tokens that has not been taken; the one whose token is
// taken looks for its next.
extern "C" __global__ void __launch_bounds__(1024) lriad_head_top(const __grid_constant__ HeadArgs a) {
    letNextStart();
    waitForEarlier();
    __shared__ uint64_t warps[32];
    const int r = blockIdx.x, vocabulary = a.vocabulary, wanted = topWanted(a, r);
    const float* logits = a.logits + static_cast<int64_t>(r) * vocabulary;
    const float inverse = inverseTemperature(a, r);

    // Larger logits have larger keys, lower tokens among equals (adding 0 makes the zeros equal); 0 is less than any.
    const auto next = [&](uint64_t below) {
        uint64_t mine = 0;
#pragma unroll 4
        for (int i = threadIdx.x; i < vocabulary; i += 1024) {
            const uint64_t key = static_cast<uint64_t>(sortable(__fadd_rn(__fmul_rn(logits[i], inverse), 0.0f))) << 32 | ~static_cast<uint32_t>(i);
            if (key < below && key > mine) mine = key;
        }
        return mine;
    };
    uint64_t mine = wanted > 0 ? next(~0ull) : 0;
    for (int n = 0; n < wanted; n++) {
        uint64_t best = mine;
        for (int offset = 16; offset > 0; offset >>= 1) best = max(best, __shfl_xor_sync(~0u, best, offset));
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
        __syncthreads();
        best = warps[threadIdx.x % 32];
        for (int offset = 16; offset > 0; offset >>= 1) best = max(best, __shfl_xor_sync(~0u, best, offset));
        if (threadIdx.x == 0) a.topToken[static_cast<int64_t>(r) * a.topCount + n] = static_cast<int>(~static_cast<uint32_t>(best));
        if (best == mine) mine = next(mine);
        __syncthreads();
    }
}

// The parts of a row together, always in the same order. A warp a row.
extern "C" __global__ void __launch_bounds__(32) lriad_head_finish(const __grid_constant__ HeadArgs a) {
    letNextStart();
    waitForEarlier();
    const int r = blockIdx.x;
    const float* logits = a.logits + static_cast<int64_t>(r) * a.vocabulary;
    HeadPart part = {-INFINITY, 0, 0, -INFINITY, -1};
    for (int split = threadIdx.x; split < a.splits; split += 32) {
        const HeadPart other = a.parts[static_cast<int64_t>(r) * a.splits + split];
        join(part, other.max, other.sum, other.weighted);
        best(part, other.key, other.token);
    }
    joinWarp(part);
    const float logSumExp = part.max + logf(part.sum), inverse = inverseTemperature(a, r);
    for (int i = threadIdx.x; i < a.optionCount; i += 32)
        a.optionLogProb[static_cast<int64_t>(r) * a.optionCount + i] = __fmul_rn(logits[a.options[i]], inverse) - logSumExp;
    for (int i = threadIdx.x; i < topWanted(a, r); i += 32) {
        const int64_t at = static_cast<int64_t>(r) * a.topCount + i;
        a.topLogProb[at] = __fmul_rn(logits[a.topToken[at]], inverse) - logSumExp;
    }
    if (threadIdx.x != 0) return;
    const int token = a.samples ? part.token : a.targets[r].target;
    if (a.token) a.token[r] = token;
    a.logProb[r] = token < 0 ? NAN : __fmul_rn(logits[token], inverse) - logSumExp;
    a.entropy[r] = logf(part.sum) - part.weighted / part.sum;
    if (a.logSumExp) a.logSumExp[r] = logSumExp;
}
