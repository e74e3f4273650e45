// A decode step as one kernel: a program of operations on at most 64 rows, with a barrier over the whole GPU between them.
//
// A decode step is nothing but reading the weights once. So one thread a block does nothing else: it asks the copy engine for the weights of the block's share of one
// product after another, as far ahead as there is room, without regard to what the others are doing. A second thread fetches the activations that belong to the
// weights, as soon as the operation that makes them is over. Two warpgroups multiply, and do the small operations between the products while weights pile up.
//
// Who multiplies what depends on the shape of the weights alone and partial sums are added in a fixed order: a row's result does not depend on its neighbours.
#pragma once
#include "attend.cuh"
#include "copy.cuh"
#include "wgmma.cuh"

constexpr int kStepConsumers = 256, kStepThreads = kStepConsumers + 64, kStepTile = 256, kStepDepth = 64, kStepKeysValues = 2 * kBlockSlots * 128 * 2;

namespace {

template <int N, int Stages> struct StepShape {
    static constexpr int kWeights = kStepTile * kStepDepth * 2, kX = N * kStepDepth * 2, kStage = kWeights + kX;
    // Stages; keys and values of a warpgroup each, which the other operations use as scratch; barriers; the operation at hand and the next one; sums of the warps.
    static constexpr int kScratch = Stages * kStage, kBarriers = kScratch + 2 * kStepKeysValues, kOps = kBarriers + (Stages * 16 + 15) / 16 * 16;
    static constexpr int kSums = kOps + 2 * static_cast<int>(sizeof(StepOp)), kBytes = kSums + 8 * 8 * 4 + 1024;
    static_assert(kBytes <= 227 * 1024);
};

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ int loadAcquire(const int* from) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}
__device__ __forceinline__ void consumersMeet() { namedBarrier<1, kStepConsumers>(); }
__device__ __forceinline__ void groupMeets(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 2) : "memory"); }
// Between ordinary accesses to global memory and those of the copy engine.
__device__ __forceinline__ void proxyFence() { asm volatile("fence.proxy.async;" ::: "memory"); }

// Until all blocks have finished the operations before this one.
__device__ __forceinline__ void waitForPhase(const int* arrived, int phase) {
    const int wanted = phase * static_cast<int>(gridDim.x);
    // Some seconds: better an error than a GPU that hangs.
    for (int polls = 0; loadAcquire(arrived) < wanted; polls++)
        if (polls == 1 << 24) __trap();
}

// Some neighbouring outputs of one row, added up over their segments; several loads are under way at a time.
template <int N, int Width, class Vector> struct Gather {
    int first, end;
    const float* from;

    __device__ __forceinline__ Gather(const Sums& sums, int row, int output) {
        const int tile = output / kStepTile;
        first = sums.tileSegment[tile];
        end = sums.tileSegment[tile + 1];
        from = sums.partials + static_cast<int64_t>(row) * kStepTile + output % kStepTile;
    }
    // The first Width of them can be asked for before anything is done with them.
    __device__ __forceinline__ void load(Vector (&some)[Width], int segment) const {
#pragma unroll
        for (int i = 0; i < Width; i++)
            some[i] = segment + i < end ? __ldcg(reinterpret_cast<const Vector*>(from + static_cast<int64_t>(segment + i) * N * kStepTile)) : Vector{};
    }
    __device__ __forceinline__ static void add(Vector& sum, const Vector (&some)[Width]) {
#pragma unroll
        for (int i = 0; i < Width; i++) {
            sum.x += some[i].x;
            sum.y += some[i].y;
            if constexpr (sizeof(Vector) == 16) { sum.z += some[i].z; sum.w += some[i].w; }
        }
    }
    __device__ __forceinline__ void rest(Vector& sum) const {
        for (int segment = first + Width; segment < end; segment += Width) {
            Vector some[Width];
            load(some, segment);
            add(sum, some);
        }
    }
    __device__ __forceinline__ Vector all() const {
        Vector some[Width], sum = {};
        load(some, first);
        add(sum, some);
        rest(sum);
        return sum;
    }
};

__device__ __forceinline__ float4 loadBf16x4(const bf16* from) {
    const uint2 raw = __ldcg(reinterpret_cast<const uint2*>(from));
    const float2 a = unpack(raw.x), b = unpack(raw.y);
    return {a.x, a.y, b.x, b.y};
}

// Sums over the consumers of several values at once; every thread gets them.
template <int Count> __device__ __forceinline__ void consumerSums(float (&values)[Count], float* scratch) {
    static_assert(Count <= 8);
#pragma unroll
    for (int i = 0; i < Count; i++) values[i] = warpSum(values[i]);
    consumersMeet();
    if (threadIdx.x % 32 == 0)
#pragma unroll
        for (int i = 0; i < Count; i++) scratch[threadIdx.x / 32 * 8 + i] = values[i];
    consumersMeet();
#pragma unroll
    for (int i = 0; i < Count; i++) {
        values[i] = 0;
        for (int warp = 0; warp < kStepConsumers / 32; warp++) values[i] += scratch[warp * 8 + i];
    }
}

// A block a row: x' = x + sums, and its norm; the row of floats in `scratch` is each thread's own.
template <int N> __device__ __forceinline__ void residual(const ResidualOp& op, float* scratch, float* sums) {
    constexpr int kWidth = 12;
    const int units = op.columns / 4;
    for (int r = blockIdx.x; r < op.count; r += gridDim.x) {
        const int row = op.gather ? *reinterpret_cast<const int*>(op.gather + static_cast<int64_t>(r) * op.gatherStride) : r;
        const int64_t at = static_cast<int64_t>(row) * op.columns;
        float squares[1] = {};
        auto take = [&](int u, float4 value) {
            const uint2 rounded = {pack(value.x, value.y), pack(value.z, value.w)};
            if (op.result) *reinterpret_cast<uint2*>(op.result + at + u * 4) = rounded;
            const float2 a = unpack(rounded.x), b = unpack(rounded.y);
            if (op.y) reinterpret_cast<float4*>(scratch)[u] = {a.x, a.y, b.x, b.y};
            squares[0] += a.x * a.x + a.y * a.y + b.x * b.x + b.y * b.y;
        };
        if (op.sums.partials) {
            // Two at a time, so that enough is under way.
            for (int u = threadIdx.x; u < units; u += 2 * kStepConsumers) {
                const int v = u + kStepConsumers, w = v < units ? v : u;
                const Gather<N, kWidth, float4> gu(op.sums, row, u * 4), gw(op.sums, row, w * 4);
                float4 some[kWidth], others[kWidth];
                gu.load(some, gu.first);
                gw.load(others, gw.first);
                float4 value = loadBf16x4(op.x + at + u * 4), other = loadBf16x4(op.x + at + w * 4);
                float4 sum = {}, otherSum = {};
                gu.add(sum, some);
                gw.add(otherSum, others);
                gu.rest(sum);
                gw.rest(otherSum);
                take(u, {value.x + sum.x, value.y + sum.y, value.z + sum.z, value.w + sum.w});
                if (v < units) take(v, {other.x + otherSum.x, other.y + otherSum.y, other.z + otherSum.z, other.w + otherSum.w});
            }
        } else {
            for (int u = threadIdx.x; u < units; u += kStepConsumers) take(u, loadBf16x4(op.x + at + u * 4));
        }
        if (!op.y) continue;
        consumerSums(squares, sums);
        const float inverse = rsqrtf(squares[0] / op.columns + op.epsilon);
        for (int u = threadIdx.x; u < units; u += kStepConsumers) {
            float4 value = reinterpret_cast<float4*>(scratch)[u];
            const uint2 raw = *reinterpret_cast<const uint2*>(op.weight + u * 4);
            const float2 a = unpack(raw.x), b = unpack(raw.y);
            const uint2 rounded = {pack(value.x * inverse * a.x, value.y * inverse * a.y), pack(value.z * inverse * b.x, value.w * inverse * b.y)};
            *reinterpret_cast<uint2*>(op.y + static_cast<int64_t>(r) * op.columns + u * 4) = rounded;
            const float2 c = unpack(rounded.x), d = unpack(rounded.y);
            reinterpret_cast<float4*>(scratch)[u] = {c.x, c.y, d.x, d.y};
        }
        if (op.rank == 0) continue;
        const bool on = op.rows[r].adapter != 0;
        for (int first = 0; first < 2 * op.rank; first += 8) {
            float dots[8] = {};
            for (int u = threadIdx.x; on && u < units; u += kStepConsumers) {
                const float4 value = reinterpret_cast<float4*>(scratch)[u];
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const int factor = first + j;
                    if (factor >= 2 * op.rank) continue;
                    const float* a = factor < op.rank ? op.queryA + static_cast<int64_t>(factor) * op.columns : op.valueA + static_cast<int64_t>(factor - op.rank) * op.columns;
                    const float4 f = *reinterpret_cast<const float4*>(a + u * 4);
                    dots[j] += value.x * f.x + value.y * f.y + value.z * f.z + value.w * f.w;
                }
            }
            consumerSums(dots, sums);
            if (static_cast<int>(threadIdx.x) < 8 && first + static_cast<int>(threadIdx.x) < 2 * op.rank) {
                float mine = 0;
#pragma unroll
                for (int j = 0; j < 8; j++) mine = j == static_cast<int>(threadIdx.x) ? dots[j] : mine;
                op.lowRank[static_cast<int64_t>(r) * 2 * op.rank + first + threadIdx.x] = mine;
            }
        }
    }
}

// Sine and cosine, to some 1e-6, of any angle that a position times a frequency makes: whole turns come off first.
__device__ __forceinline__ void turn(float angle, float& sine, float& cosine) {
    const float turns = rintf(angle * 0.15915494f);
    angle = fmaf(turns, -6.28125f, angle);
    angle = fmaf(turns, -1.9353072e-3f, angle);
    __sincosf(angle, &sine, &cosine);
}

// A warp a row and head of q | k | v: bias, low-rank update, rotary, cache.
template <int N> __device__ __forceinline__ void rotate(const RotateOp& op) {
    constexpr int kDim = 128, kHalf = kDim / 2, kWidth = 10;
    const int queries = op.heads * op.perHead, all = queries + 2 * op.heads, lane = threadIdx.x % 32, plane = op.heads * kBlockSlots * kDim;
    const int keyOutput = (queries * kDim + kStepTile - 1) / kStepTile * kStepTile, valueOutput = keyOutput + (op.heads * kDim + kStepTile - 1) / kStepTile * kStepTile;
    for (int w = blockIdx.x + threadIdx.x / 32 * gridDim.x; w < op.count * all; w += gridDim.x * (kStepConsumers / 32)) {
        const int r = w / all, part = w - r * all, kind = part < queries ? 0 : part < queries + op.heads ? 1 : 2;
        const int head = kind == 0 ? part : kind == 1 ? part - queries : part - queries - op.heads;
        const int column = head * kDim + lane * 2, output = (kind == 0 ? 0 : kind == 1 ? keyOutput : valueOutput) + column;
        const Gather<N, kWidth, float2> lowerSums(op.sums, r, output), upperSums(op.sums, r, output + kHalf);
        float2 some[kWidth], others[kWidth], lower = {}, upper = {};
        lowerSums.load(some, lowerSums.first);
        upperSums.load(others, upperSums.first);
        const TokenRow& row = op.rows[r];
        float2 cosine = {1, 1}, sine = {};
        if (kind != 2) {
            const int2 axis = *reinterpret_cast<const int2*>(op.axis + lane * 2);
            const float2 frequency = *reinterpret_cast<const float2*>(op.frequency + lane * 2);
            turn(row.position[axis.x] * frequency.x, sine.x, cosine.x);
            turn(row.position[axis.y] * frequency.y, sine.y, cosine.y);
        }
        lowerSums.add(lower, some);
        upperSums.add(upper, others);
        lowerSums.rest(lower);
        upperSums.rest(upper);
        if (op.bias[kind]) {
            const float2 a = unpack(*reinterpret_cast<const uint32_t*>(op.bias[kind] + column)), b = unpack(*reinterpret_cast<const uint32_t*>(op.bias[kind] + column + kHalf));
            lower.x += a.x; lower.y += a.y; upper.x += b.x; upper.y += b.y;
        }
        if (kind != 1 && op.rank > 0 && row.adapter) {
            const float* t = op.lowRank + static_cast<int64_t>(r) * 2 * op.rank + (kind == 0 ? 0 : op.rank);
            const float* b = (kind == 0 ? op.queryB : op.valueB) + static_cast<int64_t>(column) * op.rank;
            for (int j = 0; j < op.rank; j++) {
                const float s = __ldcg(t + j);
                lower.x += b[j] * s;
                lower.y += b[op.rank + j] * s;
                upper.x += b[kHalf * op.rank + j] * s;
                upper.y += b[(kHalf + 1) * op.rank + j] * s;
            }
        }
        const uint32_t first = pack(lower.x * cosine.x - upper.x * sine.x, lower.y * cosine.y - upper.y * sine.y);
        const uint32_t second = pack(upper.x * cosine.x + lower.x * sine.x, upper.y * cosine.y + lower.y * sine.y);
        bf16* to = kind == 0 ? op.q + (static_cast<int64_t>(r) * queries + head) * kDim
                             : op.kv + (static_cast<int64_t>(row.slot / kBlockSlots) * 2 + (kind == 2)) * plane + (head * kBlockSlots + row.slot % kBlockSlots) * kDim;
        *reinterpret_cast<uint32_t*>(to + lane * 2) = first;
        *reinterpret_cast<uint32_t*>(to + lane * 2 + kHalf) = second;
    }
}

// A warpgroup a tile and key-value head, as lriad_attend_128 has it, but with one stage of keys and one of values that are fetched while the other is used.
__device__ __forceinline__ void attendTile(const AttendArgs& a, const AttendTile& tile, int head, uint32_t keys, int group) {
    constexpr int kDim = 128, kChunks = kDim / 8, kSteps = kDim / 16;
    const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32, packed = tile.rows * a.perHead, queries = a.heads * a.perHead;
    const uint32_t values = keys + kStepKeysValues / 2;
    const int64_t plane = static_cast<int64_t>(a.heads) * kBlockSlots * kDim;
    // Chunk c of row r lies at place c ^ (r mod 8) of its row. Rows are eight apart from one step to the next and chunks even, so an address is a constant part, an offset, and
    // an exclusive or of the chunk.
    auto place = [](int row, int chunk) { return row * (kDim * 2) + ((chunk ^ (row & 7)) << 4); };
    const int copyTo = place(thread / kChunks, thread % kChunks), keyAt = place(lane % 8 + lane / 16 * 8, lane / 8 % 2), valueAt = place(lane % 16, lane / 16);
    auto fetch = [&](const KeyWalk& walk, bool value) {
        if (!walk.done()) {
            const int block = a.blocks[walk.run->firstBlock + walk.first / kBlockSlots], there = walk.run->keys - walk.first;
            const bf16* from = a.kv + (static_cast<int64_t>(block) * 2 + value) * plane + static_cast<int64_t>(head) * kBlockSlots * kDim;
#pragma unroll
            for (int i = 0; i < kBlockSlots * kChunks / 128; i++) {
                const int key = i * (128 / kChunks) + thread / kChunks;
                copyAsync((value ? values : keys) + copyTo + i * 128 * 16, from + (i * 128 + thread) * 8, key < there);
            }
        }
        copyCommit();
    };
    KeyWalk walk{a.runs + tile.firstRun, tile.runs, 0};
    fetch(walk, false);
    fetch(walk, true);

    const int r0 = warp * 16 + lane / 4, row0 = r0 / a.perHead, row1 = (r0 + 8) / a.perHead;
    uint32_t q[kSteps][4];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int p = r0 + side * 8, row = side ? row1 : row0;
        const bf16* from = a.q + (static_cast<int64_t>(tile.row + row) * queries + head * a.perHead + (p - row * a.perHead)) * kDim + lane % 4 * 2;
#pragma unroll
        for (int k = 0; k < kSteps; k++)
#pragma unroll
            for (int half = 0; half < 2; half++) q[k][half * 2 + side] = p < packed ? __ldcg(reinterpret_cast<const uint32_t*>(from + k * 16 + half * 8)) : 0;
    }

    const float scale = a.scale * kLog2E;
    float o[kDim / 8][4] = {}, max0 = -INFINITY, max1 = -INFINITY, sum0 = 0, sum1 = 0;
    while (!walk.done()) {
        const auto [see0, see1] = walk.seen(row0, row1);
        // By halves of a block, for want of registers.
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (half == 0) {
                copyWait<1>();
                groupMeets(group);
            }
            float s[4][4] = {};
#pragma unroll
            for (int k = 0; k < kSteps; k++)
#pragma unroll
                for (int n = 0; n < 4; n += 2) {
                    uint32_t b[4];
                    loadMatrix4(b, ((keys + keyAt) ^ k << 5) + (half * 4 + n) * 8 * kDim * 2);
                    multiplyAdd(s[n], q[k], b[0], b[1]);
                    multiplyAdd(s[n + 1], q[k], b[2], b[3]);
                }
            if (half == 1) {
                groupMeets(group);
                KeyWalk ahead = walk;
                ahead.next();
                fetch(ahead, false);
            }
            softMaxBlock<32, kDim>(s, see0 - half * 32, see1 - half * 32, lane, scale, max0, max1, sum0, sum1, o);
            if (half == 0) {
                copyWait<0>();
                groupMeets(group);
            }
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const uint32_t p[4] = {pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]), pack(s[2 * k + 1][0], s[2 * k + 1][1]), pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
                for (int n = 0; n < kDim / 8; n += 2) {
                    uint32_t b[4];
                    loadMatrix4Transposed(b, ((values + valueAt) ^ n << 4) + (half * 2 + k) * 16 * kDim * 2);
                    multiplyAdd(o[n], p, b[0], b[1]);
                    multiplyAdd(o[n + 1], p, b[2], b[3]);
                }
            }
        }
        groupMeets(group);
        walk.next();
        fetch(walk, true);
    }
    storeRows<kDim>(a, tile, head, r0, row0, row1, packed, lane, max0, max1, sum0, sum1, o);
    copyWait<0>();
}

template <int N> __device__ __forceinline__ void silu(const SiluOp& op) {
    constexpr int kWidth = 3;
    const int chunks = op.columns / 4, up = (op.columns + kStepTile - 1) / kStepTile * kStepTile;
    for (int i = blockIdx.x * kStepConsumers + threadIdx.x; i < op.rows * chunks; i += gridDim.x * kStepConsumers) {
        const int row = i / chunks, column = (i - row * chunks) * 4;
        const Gather<N, kWidth, float4> gates(op.sums, row, column), ups(op.sums, row, up + column);
        float4 some[kWidth], others[kWidth], g = {}, u = {};
        gates.load(some, gates.first);
        ups.load(others, ups.first);
        gates.add(g, some);
        ups.add(u, others);
        gates.rest(g);
        ups.rest(u);
        auto gated = [](float gate, float value) { return gate / (1 + __expf(-gate)) * value; };
        *reinterpret_cast<uint2*>(op.h + static_cast<int64_t>(row) * op.columns + column) = {pack(gated(g.x, u.x), gated(g.y, u.y)), pack(gated(g.z, u.z), gated(g.w, u.w))};
    }
}

template <int N> __device__ __forceinline__ void storeSums(const StoreOp& op) {
    const int chunks = op.columns / 4;
    for (int i = blockIdx.x * kStepConsumers + threadIdx.x; i < op.rows * chunks; i += gridDim.x * kStepConsumers) {
        const int row = i / chunks, column = (i - row * chunks) * 4;
        *reinterpret_cast<float4*>(op.y + row * op.stride + column) = Gather<N, 4, float4>(op.sums, row, column).all();
    }
}

__device__ __forceinline__ void embed(const EmbedArgs& a, int rows) {
    const int chunks = a.columns / 8;
    for (int i = blockIdx.x * kStepConsumers + threadIdx.x; i < rows * chunks; i += gridDim.x * kStepConsumers) {
        const int row = i / chunks, c = i - row * chunks, id = a.ids[row];
        const bf16* from = id >= 0 ? a.table + static_cast<int64_t>(id) * a.columns : a.features + static_cast<int64_t>(-id - 1) * a.columns;
        reinterpret_cast<uint4*>(a.x + static_cast<int64_t>(row) * a.columns)[c] = reinterpret_cast<const uint4*>(from)[c];
    }
}

// Where a thread is in the ring of stages.
template <int Stages> struct Ring {
    int stage = 0, phase = 0;
    __device__ __forceinline__ void next() {
        if (++stage == Stages) { stage = 0; phase ^= 1; }
    }
};

template <int N, int Stages> __device__ __forceinline__ void multiply(const ProductOp op, uint32_t base, uint32_t full, uint32_t empty, Ring<Stages>& ring) {
    using Shape = StepShape<N, Stages>;
    const int group = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, end = op.firstPiece[blockIdx.x + 1];
    int piece = op.firstPiece[blockIdx.x], segment = op.firstSegment[blockIdx.x];
    for (; piece < end; segment++) {
        const int to = min(end, (piece / op.depth + 1) * op.depth);
        float c[2][N / 2] = {};
        for (; piece < to; piece++, ring.next()) {
            barrierWait(full + ring.stage * 8, ring.phase);
            const uint32_t weights = base + ring.stage * Shape::kStage + group * 128 * 128, x = base + ring.stage * Shape::kStage + Shape::kWeights;
            matmulFence();
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int k = 0; k < kStepDepth / 16; k++) {
                    const uint64_t w = operand(weights + m * 64 * 128 + k * 32, 1024, 0, kSwizzle128), b = operand(x + k * 32, 1024, 0, kSwizzle128);
                    if constexpr (N == 8) matmul8(c[m], w, b, 1);
                    else matmul64(c[m], w, b, 1);
                }
            matmulCommit();
            matmulWait<0>();
            if (lane == 0) barrierArrive(empty + ring.stage * 8);
        }
        float* to32 = op.partials + static_cast<int64_t>(segment) * N * kStepTile + group * 128 + warp * 16 + lane / 4;
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
                if (row < op.rows) to32[row * kStepTile + m * 64 + i / 2 % 2 * 8] = c[m][i];
            }
    }
}

template <int N, int Stages> __device__ __forceinline__ void step(const StepArgs& a) {
    using Shape = StepShape<N, Stages>;
    extern __shared__ __align__(1024) char raw[];
    // The copy engine's swizzle counts rows from multiples of 1,024 bytes.
    char* shared = raw + (1024 - (sharedAddress(raw) & 1023)) % 1024;
    const uint32_t base = sharedAddress(shared), full = base + Shape::kBarriers, empty = full + Stages * 8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    letNextStart();
    if (threadIdx.x == 0) {
        for (int s = 0; s < Stages; s++) {
            barrierInit(full + s * 8, 2);
            barrierInit(empty + s * 8, kStepConsumers / 32);
        }
        barrierInitFence();
    }
    __syncthreads();

    if (warp >= kStepConsumers / 32) {
        if (lane != 0) return;
        const bool weights = warp == kStepConsumers / 32;
        const uint64_t once = evictFirst(), often = evictLast();
        // The program and the weights were there before the kernels in front.
        if (!weights) waitForEarlier();
        Ring<Stages> ring;
        for (int p = 0; p < a.count; p++) {
            if (a.ops[p].kind != kStepProduct) continue;
            const ProductOp op = a.ops[p].product;
            int piece = op.firstPiece[blockIdx.x];
            const int end = op.firstPiece[blockIdx.x + 1];
            if (piece == end) continue;
            if (!weights) {
                waitForPhase(a.arrived, p);
                proxyFence();
            }
            for (; piece < end; piece++, ring.next()) {
                const uint32_t stage = base + ring.stage * Shape::kStage, barrier = full + ring.stage * 8;
                const int tile = piece / op.depth, column = (piece - tile * op.depth) * kStepDepth;
                barrierWait(empty + ring.stage * 8, ring.phase ^ 1);
                if (weights) {
                    const int matrix = (tile >= op.secondTile) + (tile >= op.thirdTile), firstTile = matrix == 0 ? 0 : matrix == 1 ? op.secondTile : op.thirdTile;
                    barrierExpect(barrier, Shape::kWeights);
                    copyTile(stage, matrix == 0 ? op.weights[0] : matrix == 1 ? op.weights[1] : op.weights[2], column, (tile - firstTile) * kStepTile, barrier, once);
                } else {
                    barrierExpect(barrier, Shape::kX);
                    copyTile(stage + Shape::kWeights, op.x, column, 0, barrier, often);
                }
            }
        }
        return;
    }

    waitForEarlier();
    Ring<Stages> ring;
    auto fetchOp = [&](int p) {
        if (p < a.count && threadIdx.x < sizeof(StepOp) / 16)
            copyAsync(base + Shape::kOps + p % 2 * static_cast<int>(sizeof(StepOp)) + threadIdx.x * 16, reinterpret_cast<const char*>(a.ops + p) + threadIdx.x * 16, true);
        copyCommit();
    };
    fetchOp(0);
    copyWait<0>();
    consumersMeet();
    const int group = threadIdx.x / 128;
    for (int p = 0; p < a.count; p++) {
        const StepOp& op = *reinterpret_cast<const StepOp*>(shared + Shape::kOps + p % 2 * sizeof(StepOp));
        fetchOp(p + 1);
        if (op.kind == kStepProduct) {
            multiply<N, Stages>(op.product, base, full, empty, ring);
            // Activations come when the operations before this one are over; who has nothing to multiply has not waited for them yet.
            if (threadIdx.x == 0) waitForPhase(a.arrived, p);
        } else {
            if (threadIdx.x == 0) waitForPhase(a.arrived, p);
            consumersMeet();
            if (op.kind == kStepResidual) {
                residual<N>(op.residual, reinterpret_cast<float*>(shared + Shape::kScratch), reinterpret_cast<float*>(shared + Shape::kSums));
            } else if (op.kind == kStepRotate) {
                rotate<N>(op.rotate);
            } else if (op.kind == kStepAttend) {
                const AttendArgs& args = op.attend.args;
                for (int unit = blockIdx.x + group * gridDim.x; unit < op.attend.tiles * args.heads; unit += 2 * gridDim.x)
                    attendTile(args, args.tiles[unit / args.heads], unit % args.heads, base + Shape::kScratch + group * kStepKeysValues, group);
            } else if (op.kind == kStepMerge) {
                const AttendMergeArgs& args = op.merge.args;
                for (int unit = blockIdx.x + warp * gridDim.x; unit < op.merge.merges * args.heads; unit += gridDim.x * (kStepConsumers / 32))
                    mergeRow(args, args.merges[unit / args.heads], unit % args.heads, lane);
            } else if (op.kind == kStepSilu) {
                silu<N>(op.silu);
            } else if (op.kind == kStepEmbed) {
                embed(op.embed.args, op.embed.rows);
            } else {
                storeSums<N>(op.store);
            }
            proxyFence();
        }
        copyWait<0>();
        consumersMeet();
        if (threadIdx.x == 0) {
            __threadfence();
            const int before = atomicAdd(a.arrived, 1);
            // Everyone has arrived for the last time, so nobody waits any more.
            if (before == static_cast<int>(gridDim.x) * a.count - 1) *a.arrived = 0;
        }
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
STEP(8, 4)
STEP(64, 4)
#undef STEP
#undef STEP_BODY
