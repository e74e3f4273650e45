// What top-k and top-p leave of a row's vocabulary.
#pragma once
#include "head.cuh"

namespace {

// Adds to a sum of 64 bits in two words: an atomic addition of 64 bits in shared memory is a loop.
__device__ __forceinline__ void addTo(uint32_t* low, uint32_t* high, unsigned long long x) {
    const uint32_t before = atomicAdd(low, static_cast<uint32_t>(x)), carry = before + static_cast<uint32_t>(x) < before, above = static_cast<uint32_t>(x >> 32) + carry;
    if (above > 0) atomicAdd(high, above);
}

// The smallest logit that top-k, then top-p leave, and the last token of those that have exactly this logit and stay (the lowest ids stay). Radix descent over
// the bits of the logits, by count for top-k and by mass in fixed point for top-p, so that no sum depends on an order. What a mask forbids counts as a logit of -inf.
template <bool kMasked>
__device__ __forceinline__ void truncate(const HeadArgs& a) {
    letNextStart();
    waitForEarlier();
    // Several counters a bin, so that the threads of a warp do not wait for each other.
    constexpr int kCopies = 16, kTogether = 8;
    __shared__ uint32_t low[256 * kCopies], high[256 * kCopies];
    __shared__ unsigned long long bins[256], above, wanted;
    __shared__ uint32_t prefix;
    __shared__ float scratch[32];
    const int r = blockIdx.x, vocabulary = a.vocabulary;
    const SampleRow row = a.samples[r];
    const float* logits = a.logits + static_cast<int64_t>(r) * vocabulary;
    const bool byCount = row.topK > 0 && row.topK < vocabulary, byMass = row.topP < 1.0f;
    if (row.temperature == 0 || (!byCount && !byMass)) {
        if (threadIdx.x == 0) { a.floor[r] = -INFINITY; a.lastTied[r] = vocabulary; }
        return;
    }

    const float inverse = inverseTemperature(a, r);
    const uint32_t* mask = kMasked ? maskOf(a, row) : nullptr;
    // Some logits are under way together.
    auto each = [&](int from, int to, auto visit) {
        for (int first = from + threadIdx.x; first < to; first += kTogether * 1024) {
            float z[kTogether];
#pragma unroll
            for (int j = 0; j < kTogether; j++) {
                const int i = first + j * 1024;
                z[j] = i < to && !(kMasked && mask && !(mask[i / 32] >> i % 32 & 1)) ? __fmul_rn(logits[i], inverse) : -INFINITY;
            }
#pragma unroll
            for (int j = 0; j < kTogether; j++)
                if (first + j * 1024 < to) visit(z[j]);
        }
    };
    float max = -INFINITY;
    each(0, vocabulary, [&](float z) { max = fmaxf(max, z); });
    for (int offset = 16; offset > 0; offset >>= 1) max = fmaxf(max, __shfl_xor_sync(~0u, max, offset));
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = max;
    __syncthreads();
    for (int warp = 0; warp < 32; warp++) max = fmaxf(max, scratch[warp]);

    // In units of 2^-40; what is further below than e^-28 is less than one.
    auto mass = [&](float z) { return z - max < -28 ? 0ull : static_cast<unsigned long long>(exp(static_cast<double>(z - max)) * 1099511627776.0); };
    // Of the values not below `least` (of those equal to it only `equals` tokens): the value at which as many units of weight are reached from above as are wanted of all.
    auto descend = [&](bool count, uint32_t least, unsigned long long equals, auto wantedOf) {
        if (threadIdx.x == 0) { prefix = 0; above = 0; }
        for (int shift = 24; shift >= 0; shift -= 8) {
            for (int i = threadIdx.x; i < 256 * kCopies; i += 1024) low[i] = high[i] = 0;
            __syncthreads();
            const uint32_t head = prefix;
            each(0, vocabulary, [&](float z) {
                const uint32_t bits = sortable(z);
                if (bits <= least || (shift < 24 && bits >> (shift + 8) != head)) return;
                const int at = (bits >> shift & 255) * kCopies + threadIdx.x % kCopies;
                if (count) atomicAdd(low + at, 1u);
                else addTo(low + at, high + at, mass(z));
            });
            __syncthreads();
            if (threadIdx.x < 256) {
                unsigned long long sum = 0;
                for (int copy = 0; copy < kCopies; copy++) sum += static_cast<unsigned long long>(high[threadIdx.x * kCopies + copy]) << 32 | low[threadIdx.x * kCopies + copy];
                bins[threadIdx.x] = sum;
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                // The floor itself was left out above: it counts as often as it stays.
                if (least != 0 && (shift == 24 || least >> (shift + 8) == head)) {
                    const uint32_t bits = least & 0x80000000u ? least & 0x7fffffffu : ~least;
                    bins[least >> shift & 255] += equals * (count ? 1ull : mass(__uint_as_float(bits)));
                }
                if (shift == 24) {
                    unsigned long long all = 0;
                    for (int bin = 0; bin < 256; bin++) all += bins[bin];
                    wanted = wantedOf(all);
                }
                int bin = 255;
                while (bin > 0 && above + bins[bin] < wanted) above += bins[bin--];
                while (bins[bin] == 0 && bin < 255) above -= bins[++bin];
                prefix = head << 8 | bin;
            }
            __syncthreads();
        }
    };

    uint32_t least = 0;
    unsigned long long stay = ~0ull;
    if (byCount) {
        descend(true, 0, 0, [&](unsigned long long) { return static_cast<unsigned long long>(row.topK); });
        least = prefix;
        stay = row.topK - above;
        __syncthreads();
    }
    if (byMass) {
        descend(false, least, byCount ? stay : 0, [&](unsigned long long all) {
            const unsigned long long part = static_cast<unsigned long long>(ceil(static_cast<double>(all) * row.topP));
            return part == 0 ? 1 : part;
        });
        const auto value = [](uint32_t bits) { return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits); };
        const unsigned long long one = mass(value(prefix)), need = one == 0 ? 1 : (wanted - above + one - 1) / one;
        stay = prefix == least && byCount && stay < need ? stay : need;
        least = prefix;
        __syncthreads();
    }

    // Of the tokens at the floor the first `stay` remain: all as a rule; else find the last of them, a bit of its id at a time.
    __shared__ int found, zeros;
    if (threadIdx.x == 0) found = zeros = 0;
    __syncthreads();
    int top = 1;
    auto countTied = [&](int from, int to) {
        int tied = 0;
        each(from, to, [&](float z) { tied += sortable(z) == least; });
        if (tied > 0) atomicAdd(&zeros, tied);
    };
    countTied(0, vocabulary);
    __syncthreads();
    if (static_cast<unsigned long long>(zeros) > stay)
        while (top < vocabulary) top <<= 1;
    else if (threadIdx.x == 0) found = vocabulary;
    __syncthreads();
    for (int bit = top >> 1; bit > 0; bit >>= 1) {
        if (threadIdx.x == 0) zeros = 0;
        __syncthreads();
        const int first = found;
        countTied(first, min(first + bit, vocabulary));
        __syncthreads();
        if (static_cast<unsigned long long>(zeros) < stay) {
            stay -= zeros;
            if (threadIdx.x == 0) found = first + bit;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        a.floor[r] = __uint_as_float(least & 0x80000000u ? least & 0x7fffffffu : ~least);
        a.lastTied[r] = found;
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(1024) lriad_head_truncate(const __grid_constant__ HeadArgs a) { truncate<false>(a); }
extern "C" __global__ void __launch_bounds__(1024) lriad_head_truncate_masked(const __grid_constant__ HeadArgs a) { truncate<true>(a); }
