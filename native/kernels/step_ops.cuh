// The small operations between the products of a step program (step.cuh): what adds partial sums up and makes the next product's activations of them.
#pragma once
#include "attend.cuh"
#include "copy.cuh"

constexpr int kStepConsumers = 256, kStepTile = 256;

namespace {

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ int loadAcquire(const int* from) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}
__device__ __forceinline__ void consumersMeet() { namedBarrier<1, kStepConsumers>(); }
// Between ordinary accesses to global memory and those of the copy engine. For all of memory it would wait until every write is there, which is left to who tells of them.
__device__ __forceinline__ void proxyFence() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
// Tells that what the block has written before it met is there; how often that has been told before.
__device__ __forceinline__ int arrive(int* arrived) {
    int before;
    asm volatile("atom.add.release.gpu.global.s32 %0, [%1], 1;" : "=r"(before) : "l"(arrived) : "memory");
    return before;
}

// Until all blocks have finished the operations before this one; or, of what else they count, so many.
__device__ __forceinline__ void waitForPhase(const int* arrived, int phase) {
    const int wanted = phase * static_cast<int>(gridDim.x);
    // Some seconds: better an error than a GPU that hangs.
    for (int polls = 0; loadAcquire(arrived) < wanted; polls++)
        if (polls == 1 << 24) __trap();
}

// The segments that hold an output's sums.
struct Segments { int first, end; };
__device__ __forceinline__ Segments segmentsOf(const Sums& sums, int output) {
    if (!sums.partials) return {};
    return {sums.tileSegment[output / kStepTile], sums.tileSegment[output / kStepTile + 1]};
}

// Some neighbouring outputs of one row, added up over their segments; several loads are under way at a time.
template <int N, int Width, class Vector> struct Gather {
    int first, end;
    const float* from;

    __device__ __forceinline__ Gather(const Sums& sums, const Segments& segments, int row, int output)
        : first(segments.first), end(segments.end), from(sums.partials + static_cast<int64_t>(row) * kStepTile + output % kStepTile) {}
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
};

// What a norm has left for row r: Σ x², and behind it A · (x · weight) of every row of A; Count of these values from the index-th on, none past the last. A lane's part of them.
template <int Count> __device__ __forceinline__ void statsOf(const Sums& sums, int r, int index, int last, float (&values)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; i++) values[i] = 0;
    for (int tile = threadIdx.x % 32; tile < sums.statTiles; tile += 32) {
        const float* from = sums.stats + (static_cast<int64_t>(r) * sums.statTiles + tile) * sums.statWidth;
#pragma unroll
        for (int i = 0; i < Count; i++) values[i] += index + i <= last ? __ldcg(from + index + i) : 0;
    }
}

// Units of work are dealt to the warps of all blocks, one after another. What an operation reads that no operation before it has written is asked for before `open`, which
// waits for those: it is called once, on the way through the first unit, by every warp.
template <class Prepare, class Open, class Work> __device__ __forceinline__ void warpUnits(int units, Prepare prepare, Open open, Work work) {
    int unit = blockIdx.x + threadIdx.x / 32 * gridDim.x;
    auto first = prepare(min(unit, units - 1));
    open();
    for (; unit < units; unit += gridDim.x * (kStepConsumers / 32)) {
        work(unit, first);
        if (unit + static_cast<int>(gridDim.x) * (kStepConsumers / 32) < units) first = prepare(unit + gridDim.x * (kStepConsumers / 32));
    }
}

// A warp a row and tile of 256 columns.
template <int N, class Open> __device__ __forceinline__ void residual(const ResidualOp& op, Open open) {
    // Loads of so many segments, and of so many rows of A, are under way together.
    constexpr int kWidth = 12, kRanks = 8;
    const int tiles = (op.columns + kStepTile - 1) / kStepTile, lane = threadIdx.x % 32;
    struct Prepared { Segments segments; uint2 weights[2]; bool adapter; };
    auto columnOf = [&](int unit, int half) { return unit % tiles * kStepTile + half * 128 + lane * 4; };
    auto prepare = [&](int unit) {
        Prepared p = {segmentsOf(op.sums, unit % tiles * kStepTile), {}, op.rank > 0 && op.rows[unit / tiles].adapter != 0};
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (op.y && columnOf(unit, half) < op.columns) p.weights[half] = *reinterpret_cast<const uint2*>(op.weight + columnOf(unit, half));
        return p;
    };
    warpUnits(op.count * tiles, prepare, open, [&](int unit, const Prepared& prepared) {
        const int r = unit / tiles, row = op.gather ? *reinterpret_cast<const int*>(op.gather + static_cast<int64_t>(r) * op.gatherStride) : r;
        const Gather<N, kWidth, float4> lower(op.sums, prepared.segments, row, columnOf(unit, 0)), upper(op.sums, prepared.segments, row, columnOf(unit, 1));
        float4 some[kWidth], others[kWidth], value[2] = {};
        lower.load(some, lower.first);
        upper.load(others, upper.first);
        uint2 x[2] = {};
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (columnOf(unit, half) < op.columns) x[half] = __ldcg(reinterpret_cast<const uint2*>(op.x + static_cast<int64_t>(row) * op.columns + columnOf(unit, half)));
        lower.add(value[0], some);
        upper.add(value[1], others);
        lower.rest(value[0]);
        upper.rest(value[1]);
        float squares = 0;
        float4 multiplied[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float2 a = unpack(x[half].x), b = unpack(x[half].y);
            const uint2 rounded = {pack(a.x + value[half].x, a.y + value[half].y), pack(b.x + value[half].z, b.y + value[half].w)};
            const float2 c = unpack(rounded.x), d = unpack(rounded.y), e = unpack(prepared.weights[half].x), f = unpack(prepared.weights[half].y);
            squares += c.x * c.x + c.y * c.y + d.x * d.x + d.y * d.y;
            const uint2 weighted = {pack(c.x * e.x, c.y * e.y), pack(d.x * f.x, d.y * f.y)};
            const float2 g = unpack(weighted.x), h = unpack(weighted.y);
            multiplied[half] = {g.x, g.y, h.x, h.y};
            if (columnOf(unit, half) >= op.columns) continue;
            if (op.result) *reinterpret_cast<uint2*>(op.result + static_cast<int64_t>(row) * op.columns + columnOf(unit, half)) = rounded;
            if (op.y) *reinterpret_cast<uint2*>(op.y + static_cast<int64_t>(r) * op.columns + columnOf(unit, half)) = weighted;
        }
        if (!op.y) return;
        float* stats = op.stats + static_cast<int64_t>(unit) * (1 + 2 * op.rank);
        squares = warpSum(squares);
        if (lane == 0) stats[0] = squares;
        if (!prepared.adapter) return;
#pragma unroll 1
        for (int first = 0; first < 2 * op.rank; first += kRanks) {
            float dots[kRanks] = {};
#pragma unroll
            for (int i = 0; i < kRanks; i++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int factor = first + i;
                    if (factor >= 2 * op.rank || columnOf(unit, half) >= op.columns) continue;
                    const float* a = factor < op.rank ? op.queryA + static_cast<int64_t>(factor) * op.columns : op.valueA + static_cast<int64_t>(factor - op.rank) * op.columns;
                    const float4 f = *reinterpret_cast<const float4*>(a + columnOf(unit, half)), m = multiplied[half];
                    dots[i] += m.x * f.x + m.y * f.y + m.z * f.z + m.w * f.w;
                }
#pragma unroll
            for (int i = 0; i < kRanks; i++) {
                dots[i] = warpSum(dots[i]);
                if (lane == 0 && first + i < 2 * op.rank) stats[1 + first + i] = dots[i];
            }
        }
    });
}

// A warp a row and head of q | k | v: norm, bias, low-rank update, rotary, cache.
template <int N, class Open> __device__ __forceinline__ void rotate(const RotateOp& op, Open open) {
    constexpr int kDim = 128, kHalf = kDim / 2, kWidth = 10, kRanks = 4;
    const int queries = op.heads * op.perHead, all = queries + 2 * op.heads, lane = threadIdx.x % 32, plane = op.heads * kBlockSlots * kDim;
    const int keyOutput = (queries * kDim + kStepTile - 1) / kStepTile * kStepTile, valueOutput = keyOutput + (op.heads * kDim + kStepTile - 1) / kStepTile * kStepTile;
    struct Place { int row, kind, head; };
    auto place = [&](int unit) {
        const int row = unit / all, part = unit - row * all, kind = part < queries ? 0 : part < queries + op.heads ? 1 : 2;
        return Place{row, kind, part - (kind == 0 ? 0 : kind == 1 ? queries : queries + op.heads)};
    };
    auto outputOf = [&](const Place& at) { return (at.kind == 0 ? 0 : at.kind == 1 ? keyOutput : valueOutput) + at.head * kDim + lane * 2; };
    struct Prepared { Segments segments; float2 cosine, sine, lowerBias, upperBias; bool adapter; };
    auto prepare = [&](int unit) {
        const Place at = place(unit);
        Prepared p = {segmentsOf(op.sums, outputOf(at)), {1, 1}, {}, {}, {}, at.kind != 1 && op.rank > 0 && op.rows[at.row].adapter != 0};
        if (at.kind != 2) {
            const int2 axis = *reinterpret_cast<const int2*>(op.axis + lane * 2);
            const float2 frequency = *reinterpret_cast<const float2*>(op.frequency + lane * 2);
            turn(op.rows[at.row].position[axis.x] * frequency.x, p.sine.x, p.cosine.x);
            turn(op.rows[at.row].position[axis.y] * frequency.y, p.sine.y, p.cosine.y);
        }
        const bf16* bias = at.kind == 0 ? op.bias[0] : at.kind == 1 ? op.bias[1] : op.bias[2];
        if (bias) {
            p.lowerBias = unpack(*reinterpret_cast<const uint32_t*>(bias + at.head * kDim + lane * 2));
            p.upperBias = unpack(*reinterpret_cast<const uint32_t*>(bias + at.head * kDim + lane * 2 + kHalf));
        }
        return p;
    };
    warpUnits(op.count * all, prepare, open, [&](int unit, const Prepared& prepared) {
        const Place at = place(unit);
        const Gather<N, kWidth, float2> lowerSums(op.sums, prepared.segments, at.row, outputOf(at)), upperSums(op.sums, prepared.segments, at.row, outputOf(at) + kHalf);
        float2 some[kWidth], others[kWidth], lower = {}, upper = {};
        lowerSums.load(some, lowerSums.first);
        upperSums.load(others, upperSums.first);
        float squares[1], low[kRanks], b[4][kRanks];
        statsOf(op.sums, at.row, 0, 0, squares);
        // A · x and B, some columns at a time; past the last one A · x is zero.
        auto loadLow = [&](int first) {
            const int before = at.kind == 0 ? 1 : 1 + op.rank;
            const float* from = (at.kind == 0 ? op.queryB : op.valueB) + static_cast<int64_t>(at.head * kDim + lane * 2) * op.rank;
            statsOf(op.sums, at.row, before + first, before + op.rank - 1, low);
#pragma unroll
            for (int i = 0; i < kRanks; i++)
#pragma unroll
                for (int output = 0; output < 4; output++) b[output][i] = from[(output / 2 * kHalf + output % 2) * op.rank + min(first + i, op.rank - 1)];
        };
        if (prepared.adapter) loadLow(0);
        lowerSums.add(lower, some);
        upperSums.add(upper, others);
        lowerSums.rest(lower);
        upperSums.rest(upper);
        const float factor = op.sums.stats ? rsqrtf(warpSum(squares[0]) * op.sums.inverseColumns + op.sums.epsilon) : 1.0f;
        if (prepared.adapter) {
#pragma unroll 1
            for (int first = 0; first < op.rank; first += kRanks) {
                if (first > 0) loadLow(first);
#pragma unroll
                for (int i = 0; i < kRanks; i++) {
                    const float t = warpSum(low[i]);
                    lower.x += b[0][i] * t;
                    lower.y += b[1][i] * t;
                    upper.x += b[2][i] * t;
                    upper.y += b[3][i] * t;
                }
            }
        }
        lower = {lower.x * factor + prepared.lowerBias.x, lower.y * factor + prepared.lowerBias.y};
        upper = {upper.x * factor + prepared.upperBias.x, upper.y * factor + prepared.upperBias.y};
        const float2 cosine = prepared.cosine, sine = prepared.sine;
        const uint32_t first = pack(lower.x * cosine.x - upper.x * sine.x, lower.y * cosine.y - upper.y * sine.y);
        const uint32_t second = pack(upper.x * cosine.x + lower.x * sine.x, upper.y * cosine.y + lower.y * sine.y);
        const int slot = op.rows[at.row].slot;
        bf16* to = at.kind == 0 ? op.q + (static_cast<int64_t>(at.row) * queries + at.head) * kDim
                                : op.kv + (static_cast<int64_t>(slot / kBlockSlots) * 2 + (at.kind == 2)) * plane + (at.head * kBlockSlots + slot % kBlockSlots) * kDim;
        *reinterpret_cast<uint32_t*>(to + lane * 2) = first;
        *reinterpret_cast<uint32_t*>(to + lane * 2 + kHalf) = second;
    });
}

__device__ __forceinline__ float gated(float gate, float value) { return gate / (1 + __expf(-gate)) * value; }

// The norm's factors of all rows, for a product that finishes its results. Read after the next meeting.
template <int N> __device__ __forceinline__ void factorsOf(const ProductOp& op, float* factors) {
    constexpr int kTogether = 4;
    const int row = threadIdx.x / kTogether;
    if (row >= N) return;
    float squares = 0;
    if (op.sums.stats && row < op.rows)
        for (int tile = threadIdx.x % kTogether; tile < op.sums.statTiles; tile += kTogether) squares += __ldcg(op.sums.stats + (static_cast<int64_t>(row) * op.sums.statTiles + tile) * op.sums.statWidth);
#pragma unroll
    for (int offset = 1; offset < kTogether; offset *= 2) squares += __shfl_xor_sync(~0u, squares, offset);
    if (threadIdx.x % kTogether == 0) factors[row] = op.sums.stats ? rsqrtf(squares * op.sums.inverseColumns + op.sums.epsilon) : 1.0f;
}

// Results of a tile that the block had to itself, from the accumulators of a warp's rows of the weights, m · 128 and up to 15 behind `output`.
template <int N> __device__ __forceinline__ void finishWhole(const ProductOp& op, const float* factors, int tile, int output, const float (&c)[2][N / 2]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N / 2; i += 2) {
        const int row = i / 4 * 8 + lane % 4 * 2, further = i / 2 % 2 * 8;
        const float factor0 = factors[row], factor1 = factors[row + 1];
        if (op.finish == kFinishGated) {
            // Neighbouring rows of the weights, which eight threads have, into one.
            const int column = tile * (kStepTile / 2) + output + further + lane % 4 * 2, to = i / 4 * 8 + lane / 4;
            const uint32_t h = transpose(pack(gated(c[0][i] * factor0, c[1][i] * factor0), gated(c[0][i + 1] * factor1, c[1][i + 1] * factor1)));
            if (to < op.rows && column < op.columns) *reinterpret_cast<uint32_t*>(static_cast<bf16*>(op.y) + static_cast<int64_t>(to) * op.columns + column) = h;
        } else {
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const int column = tile * kStepTile + m * 128 + output + further + lane / 4;
                float* to = static_cast<float*>(op.y) + static_cast<int64_t>(row) * op.columns + column;
                if (row < op.rows && column < op.columns) to[0] = c[m][i] * factor0;
                if (row + 1 < op.rows && column < op.columns) to[op.columns] = c[m][i + 1] * factor1;
            }
        }
    }
}

// Results of the tiles that blocks share. A warp a row and tile.
template <int N> __device__ __forceinline__ void finishShared(const ProductOp& op, const float* factors) {
    constexpr int kWidth = 10;
    const int lane = threadIdx.x % 32;
    for (int unit = blockIdx.x + threadIdx.x / 32 * gridDim.x; unit < op.rows * op.shared; unit += gridDim.x * (kStepConsumers / 32)) {
        const int row = unit / op.shared, shared = unit - row * op.shared, tile = op.whole * gridDim.x + shared, output = shared * kStepTile + lane * 4;
        const Segments segments = segmentsOf(op.sums, output);
        const Gather<N, kWidth, float4> lower(op.sums, segments, row, output), upper(op.sums, segments, row, output + 128);
        float4 some[kWidth], others[kWidth], a = {}, b = {};
        lower.load(some, lower.first);
        upper.load(others, upper.first);
        const float f = factors[row];
        lower.add(a, some);
        upper.add(b, others);
        lower.rest(a);
        upper.rest(b);
        a = {a.x * f, a.y * f, a.z * f, a.w * f};
        b = {b.x * f, b.y * f, b.z * f, b.w * f};
        const int column = tile * (op.finish == kFinishGated ? kStepTile / 2 : kStepTile) + lane * 4;
        const int64_t to = static_cast<int64_t>(row) * op.columns + column;
        if (op.finish == kFinishGated) {
            if (column < op.columns) *reinterpret_cast<uint2*>(static_cast<bf16*>(op.y) + to) = {pack(gated(a.x, b.x), gated(a.y, b.y)), pack(gated(a.z, b.z), gated(a.w, b.w))};
        } else {
            if (column < op.columns) *reinterpret_cast<float4*>(static_cast<float*>(op.y) + to) = a;
            if (column + 128 < op.columns) *reinterpret_cast<float4*>(static_cast<float*>(op.y) + to + 128) = b;
        }
    }
}

template <class Open> __device__ __forceinline__ void embed(const EmbedArgs& a, int rows, Open open) {
    const int chunks = a.columns / 8;
    open();
    for (int i = blockIdx.x * kStepConsumers + threadIdx.x; i < rows * chunks; i += gridDim.x * kStepConsumers) {
        const int row = i / chunks, c = i - row * chunks, id = a.ids[row];
        const bf16* from = id >= 0 ? a.table + static_cast<int64_t>(id) * a.columns : a.features + static_cast<int64_t>(-id - 1) * a.columns;
        reinterpret_cast<uint4*>(a.x + static_cast<int64_t>(row) * a.columns)[c] = reinterpret_cast<const uint4*>(from)[c];
    }
}

template <class Open> __device__ __forceinline__ void merge(const MergeOp& op, Open open) {
    const int heads = op.args.heads;
    warpUnits(op.merges * heads, [&](int unit) { return MergeList(op.args, op.args.merges[unit / heads]); }, open, [&](int unit, const MergeList& list) { mergeRow(op.args, list, unit % heads); });
}
#endif

}  // namespace
