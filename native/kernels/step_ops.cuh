// The small operations between the products of a step program (step.cuh): what adds partial sums up and makes the next product's activations of them.
#pragma once
#include "attend.cuh"
#include "copy.cuh"

// Outputs of a tile whose sums the next operation adds up; what sums of a row take, since other tiles have up to four boxes of 72; columns that norms leave the sums of.
constexpr int kStepConsumers = 256, kStepTile = 128, kStepMostRows = 72, kStepPitch = 4 * kStepMostRows, kStepColumns = 256;

namespace {

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ int loadAcquire(const int* from) {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}
__device__ __forceinline__ void consumersMeet() { namedBarrier<1, kStepConsumers>(); }
__device__ __forceinline__ void groupMeets(int group) { group == 0 ? namedBarrier<2, kStepConsumers / 2>() : namedBarrier<3, kStepConsumers / 2>(); }
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
    // Some seconds: better an error than a GPU that hangs. (Not a trap: where there is one, threads do not get the registers that others have given back.)
    for (int polls = 0; loadAcquire(arrived) < wanted; polls++)
        if (polls == 1 << 24) asm volatile("st.global.u32 [%0], 0;" ::"l"(0ull));
}

// The segments that hold an output's sums.
struct Segments { int first, end; };
__device__ __forceinline__ Segments segmentsOf(const Sums& sums, int output) {
    if (!sums.partials) return {};
    return {sums.tileSegment[output / kStepTile], sums.tileSegment[output / kStepTile + 1]};
}

// Four neighbouring outputs of a tile, of one row, added up over their segments; several loads are under way at a time.
template <int N, int Width> struct Gather {
    int first, end;
    const float* from;

    __device__ __forceinline__ Gather(const Sums& sums, const Segments& segments, int row, int output)
        : first(segments.first), end(segments.end), from(sums.partials + static_cast<int64_t>(row) * kStepPitch + output) {}
    // The first Width of them can be asked for before anything is done with them.
    __device__ __forceinline__ void load(float4 (&some)[Width]) const {
#pragma unroll
        for (int i = 0; i < Width; i++) some[i] = first + i < end ? of(first + i) : float4{};
    }
    // All of them, the loaded ones first.
    __device__ __forceinline__ float4 add(const float4 (&some)[Width]) const {
        float4 sum = {};
        auto more = [&](float4 x) { sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w}; };
#pragma unroll
        for (int i = 0; i < Width; i++) more(some[i]);
#pragma unroll 1
        for (int segment = first + Width; segment < end; segment++) more(of(segment));
        return sum;
    }

private:
    __device__ __forceinline__ float4 of(int segment) const { return __ldcg(reinterpret_cast<const float4*>(from + static_cast<int64_t>(segment) * N * kStepPitch)); }
};

// What a norm has left for row r: Σ x², and behind it A · (x · weight) of every row of A; Count of these values from the index-th on, none past the last. What `Lanes` lanes
// have of it together, each.
template <int Lanes, int Count> __device__ __forceinline__ void statsOf(const Sums& sums, int r, int index, int last, float (&values)[Count]) {
#pragma unroll
    for (int i = 0; i < Count; i++) values[i] = 0;
    for (int tile = threadIdx.x % Lanes; tile < sums.statTiles; tile += Lanes) {
        const float* from = sums.stats + (static_cast<int64_t>(r) * sums.statTiles + tile) * sums.statWidth;
#pragma unroll
        for (int i = 0; i < Count; i++) values[i] += index + i <= last ? __ldcg(from + index + i) : 0;
    }
}
template <int Lanes> __device__ __forceinline__ float lanesSum(float value) {
#pragma unroll
    for (int offset = Lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

// Units of work are dealt to the warps of all blocks, one after another. What an operation reads that no operation before it has written is asked for before `open`, which
// waits for those: it is called once, on the way through the first unit, by every warp. (Every call stands here once: a program's code should stay in the instruction cache.)
template <class Prepare, class Open, class Work> __device__ __forceinline__ void warpUnits(int units, Prepare prepare, Open open, Work work) {
    bool opened = false;
    for (int unit = blockIdx.x + threadIdx.x / 32 * gridDim.x; !opened || unit < units; unit += gridDim.x * (kStepConsumers / 32)) {
        const auto prepared = prepare(min(unit, units - 1));
        if (!opened) open();
        opened = true;
        if (unit < units) work(unit, prepared);
    }
}

// A warp a row and tile of 256 columns.
template <int N, class Open> __device__ __forceinline__ void residual(const ResidualOp& op, Open open) {
    // Loads of so many segments, and of so many rows of A, are under way together.
    constexpr int kWidth = 8, kRanks = 8;
    const int tiles = (op.columns + kStepColumns - 1) / kStepColumns, lane = threadIdx.x % 32;
    struct Prepared { Segments segments[2]; uint2 weights[2]; bool adapter; };
    auto columnOf = [&](int unit, int half) { return unit % tiles * kStepColumns + half * kStepTile + lane * 4; };
    auto prepare = [&](int unit) {
        Prepared p = {{segmentsOf(op.sums, columnOf(unit, 0)), columnOf(unit, 1) < op.columns ? segmentsOf(op.sums, columnOf(unit, 1)) : Segments{}}, {}, op.rank > 0 && op.rows[unit / tiles].adapter != 0};
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (op.y && columnOf(unit, half) < op.columns) p.weights[half] = *reinterpret_cast<const uint2*>(op.weight + columnOf(unit, half));
        return p;
    };
    warpUnits(op.count * tiles, prepare, open, [&](int unit, const Prepared& prepared) {
        const int r = unit / tiles, row = op.gather ? *reinterpret_cast<const int*>(op.gather + static_cast<int64_t>(r) * op.gatherStride) : r;
        const Gather<N, kWidth> lower(op.sums, prepared.segments[0], row, lane * 4), upper(op.sums, prepared.segments[1], row, lane * 4);
        float4 some[kWidth], others[kWidth];
        lower.load(some);
        upper.load(others);
        uint2 x[2] = {};
#pragma unroll
        for (int half = 0; half < 2; half++)
            if (columnOf(unit, half) < op.columns) x[half] = __ldcg(reinterpret_cast<const uint2*>(op.x + static_cast<int64_t>(row) * op.columns + columnOf(unit, half)));
        const float4 value[2] = {lower.add(some), upper.add(others)};
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

// Half a warp a row and head of q | k | v: norm, bias, low-rank update, rotary, cache.
template <int N, class Open> __device__ __forceinline__ void rotate(const RotateOp& op, Open open) {
    constexpr int kDim = 128, kHalf = kDim / 2, kLanes = 16, kWidth = 6, kRanks = 2;
    const int queries = op.heads * op.perHead, all = queries + 2 * op.heads, pairs = (all + 1) / 2, plane = op.heads * kBlockSlots * kDim, column = threadIdx.x % kLanes * 4;
    const int keyOutput = (queries * kDim + kStepTile - 1) / kStepTile * kStepTile, valueOutput = keyOutput + (op.heads * kDim + kStepTile - 1) / kStepTile * kStepTile;
    struct Place { int row, kind, head; bool there; };
    auto place = [&](int unit) {
        const int row = unit / pairs, part = (unit - row * pairs) * 2 + threadIdx.x / kLanes % 2, kind = part < queries ? 0 : part < queries + op.heads ? 1 : 2;
        const bool there = part < all;
        return Place{row, kind, there ? part - (kind == 0 ? 0 : kind == 1 ? queries : queries + op.heads) : 0, there};
    };
    auto outputOf = [&](const Place& at) { return (at.kind == 0 ? 0 : at.kind == 1 ? keyOutput : valueOutput) + at.head * kDim; };
    struct Prepared { Segments segments; float cosine[4], sine[4]; uint2 lowerBias, upperBias; bool adapter; };
    auto prepare = [&](int unit) {
        const Place at = place(unit);
        Prepared p = {segmentsOf(op.sums, outputOf(at)), {1, 1, 1, 1}, {}, {}, {}, at.kind != 1 && op.rank > 0 && op.rows[at.row].adapter != 0};
        if (at.kind != 2) {
            const int4 axis = *reinterpret_cast<const int4*>(op.axis + column);
            const float4 frequency = *reinterpret_cast<const float4*>(op.frequency + column);
            const int* position = op.rows[at.row].position;
            turn(position[axis.x] * frequency.x, p.sine[0], p.cosine[0]);
            turn(position[axis.y] * frequency.y, p.sine[1], p.cosine[1]);
            turn(position[axis.z] * frequency.z, p.sine[2], p.cosine[2]);
            turn(position[axis.w] * frequency.w, p.sine[3], p.cosine[3]);
        }
        const bf16* bias = at.kind == 0 ? op.bias[0] : at.kind == 1 ? op.bias[1] : op.bias[2];
        if (bias) {
            p.lowerBias = *reinterpret_cast<const uint2*>(bias + at.head * kDim + column);
            p.upperBias = *reinterpret_cast<const uint2*>(bias + at.head * kDim + column + kHalf);
        }
        return p;
    };
    warpUnits(op.count * pairs, prepare, open, [&](int unit, const Prepared& prepared) {
        const Place at = place(unit);
        const int output = outputOf(at) % kStepTile + column;
        const Gather<N, kWidth> lowerSums(op.sums, prepared.segments, at.row, output), upperSums(op.sums, prepared.segments, at.row, output + kHalf);
        float4 some[kWidth], others[kWidth];
        lowerSums.load(some);
        upperSums.load(others);
        float squares[1], low[kRanks], b[2][4][kRanks];
        statsOf<kLanes>(op.sums, at.row, 0, 0, squares);
        // A · x and B, some columns at a time; past the last one A · x is zero.
        auto loadLow = [&](int first) {
            const int before = at.kind == 0 ? 1 : 1 + op.rank;
            const float* from = (at.kind == 0 ? op.queryB : op.valueB) + static_cast<int64_t>(at.head * kDim + column) * op.rank;
            statsOf<kLanes>(op.sums, at.row, before + first, before + op.rank - 1, low);
#pragma unroll
            for (int i = 0; i < kRanks; i++)
#pragma unroll
                for (int side = 0; side < 2; side++)
#pragma unroll
                    for (int c = 0; c < 4; c++) b[side][c][i] = from[(side * kHalf + c) * op.rank + min(first + i, op.rank - 1)];
        };
        if (prepared.adapter) loadLow(0);
        const float4 sums[2] = {lowerSums.add(some), upperSums.add(others)};
        const float total = lanesSum<kLanes>(squares[0]), factor = op.sums.stats ? rsqrtf(total * op.sums.inverseColumns + op.sums.epsilon) : 1.0f;
        float x[2][4] = {{sums[0].x, sums[0].y, sums[0].z, sums[0].w}, {sums[1].x, sums[1].y, sums[1].z, sums[1].w}};
        // Both halves of the warp, since lanes are told of each other's; a half without an adapter adds nothing.
        if (__any_sync(~0u, prepared.adapter)) {
#pragma unroll 1
            for (int first = 0; first < op.rank; first += kRanks) {
                if (first > 0 && prepared.adapter) loadLow(first);
#pragma unroll
                for (int i = 0; i < kRanks; i++) {
                    const float t = lanesSum<kLanes>(prepared.adapter ? low[i] : 0);
                    if (!prepared.adapter) continue;
#pragma unroll
                    for (int side = 0; side < 2; side++)
#pragma unroll
                        for (int c = 0; c < 4; c++) x[side][c] += b[side][c][i] * t;
                }
            }
        }
        const float2 bias[2][2] = {{unpack(prepared.lowerBias.x), unpack(prepared.lowerBias.y)}, {unpack(prepared.upperBias.x), unpack(prepared.upperBias.y)}};
        float turned[2][4];
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const float lower = x[0][c] * factor + (c % 2 ? bias[0][c / 2].y : bias[0][c / 2].x), upper = x[1][c] * factor + (c % 2 ? bias[1][c / 2].y : bias[1][c / 2].x);
            turned[0][c] = lower * prepared.cosine[c] - upper * prepared.sine[c];
            turned[1][c] = upper * prepared.cosine[c] + lower * prepared.sine[c];
        }
        if (!at.there) return;
        const int slot = op.rows[at.row].slot;
        bf16* to = at.kind == 0 ? op.q + (static_cast<int64_t>(at.row) * queries + at.head) * kDim
                                : op.kv + (static_cast<int64_t>(slot / kBlockSlots) * 2 + (at.kind == 2)) * plane + (at.head * kBlockSlots + slot % kBlockSlots) * kDim;
#pragma unroll
        for (int side = 0; side < 2; side++)
            *reinterpret_cast<uint2*>(to + column + side * kHalf) = {pack(turned[side][0], turned[side][1]), pack(turned[side][2], turned[side][3])};
    });
}

__device__ __forceinline__ float gated(float gate, float value) { return __fdividef(gate, 1 + __expf(-gate)) * value; }

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

// What a thread has of a warpgroup's outputs: two neighbours of every eight, of row `row` and of the row eight further on. With N = 8 all groups of eight rows are the same, and
// each writes some of the outputs.
template <int N> struct Accumulated {
    int row, column;
    __device__ __forceinline__ Accumulated() : row(N == 8 ? threadIdx.x / 4 % 8 : threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4), column(threadIdx.x % 4 * 2) {}
    __device__ __forceinline__ int rowOf(int side) const { return N == 8 ? row : row + side * 8; }
    __device__ __forceinline__ bool mine(int eight, int side) const { return N > 8 || eight % 8 == threadIdx.x / 32 % 4 * 2 + side; }
};

// Results of a tile that the block had to itself, or its sums as they are.
template <int N, int Outputs> __device__ __forceinline__ void finishWhole(const ProductOp& op, const float* factors, int tile, const float (&c)[Outputs / 2]) {
    const Accumulated<N> at;
    const int group = threadIdx.x / 128;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int row = at.rowOf(side);
        if (row >= op.rows) continue;
        const float factor = factors[row];
        if (op.finish == kFinishGated) {
#pragma unroll
            for (int n = 0; n < Outputs / 16; n++) {
                const int column = (tile * 2 + group) * (Outputs / 2) + n * 8 + at.column, i = n * 4 + side * 2, up = i + Outputs / 4;
                if (at.mine(n, side) && column < op.columns)
                    *reinterpret_cast<uint32_t*>(static_cast<bf16*>(op.y) + static_cast<int64_t>(row) * op.columns + column) = pack(gated(c[i] * factor, c[up] * factor), gated(c[i + 1] * factor, c[up + 1] * factor));
            }
        } else {
#pragma unroll
            for (int n = 0; n < Outputs / 8; n++) {
                const int column = (tile * 2 + group) * Outputs + n * 8 + at.column, i = n * 4 + side * 2;
                if (at.mine(n, side) && column < op.columns)
                    *reinterpret_cast<float2*>(static_cast<float*>(op.y) + static_cast<int64_t>(row) * op.columns + column) = {c[i] * factor, c[i + 1] * factor};
            }
        }
    }
}

template <int N, int Outputs> __device__ __forceinline__ void leaveSums(const ProductOp& op, int segment, const float (&c)[Outputs / 2]) {
    const Accumulated<N> at;
    float* to = op.sums.partials + static_cast<int64_t>(segment) * N * kStepPitch + threadIdx.x / 128 * Outputs + at.column;
#pragma unroll
    for (int side = 0; side < 2; side++)
#pragma unroll
        for (int n = 0; n < Outputs / 8; n++)
            if (at.mine(n, side) && at.rowOf(side) < op.rows) *reinterpret_cast<float2*>(to + at.rowOf(side) * kStepPitch + n * 8) = {c[n * 4 + side * 2], c[n * 4 + side * 2 + 1]};
}

// Results of the tiles that blocks share. A warp a row and half of a tile: two boxes.
template <int N> __device__ __forceinline__ void finishShared(const ProductOp& op, const float* factors) {
    constexpr int kWidth = 10;
    const int lane = threadIdx.x % 32, box = op.boxRows;
    for (int unit = blockIdx.x + threadIdx.x / 32 * gridDim.x; unit < op.rows * op.shared * 2; unit += gridDim.x * (kStepConsumers / 32)) {
        const int row = unit / (2 * op.shared), half = unit - row * 2 * op.shared, shared = half / 2, output = half % 2 * 2 * box + lane * 4;
        if (lane * 4 >= box) continue;
        const Segments segments = {op.sums.tileSegment[shared], op.sums.tileSegment[shared + 1]};
        const Gather<N, kWidth> lower(op.sums, segments, row, output), upper(op.sums, segments, row, output + box);
        float4 some[kWidth], others[kWidth];
        lower.load(some);
        upper.load(others);
        const float f = factors[row];
        float4 a = lower.add(some), b = upper.add(others);
        a = {a.x * f, a.y * f, a.z * f, a.w * f};
        b = {b.x * f, b.y * f, b.z * f, b.w * f};
        const int pair = (op.whole * gridDim.x + shared) * 2 + half % 2, column = pair * (op.finish == kFinishGated ? box : 2 * box) + lane * 4;
        const int64_t to = static_cast<int64_t>(row) * op.columns + column;
        if (op.finish == kFinishGated) {
            if (column < op.columns) *reinterpret_cast<uint2*>(static_cast<bf16*>(op.y) + to) = {pack(gated(a.x, b.x), gated(a.y, b.y)), pack(gated(a.z, b.z), gated(a.w, b.w))};
        } else {
            if (column < op.columns) *reinterpret_cast<float4*>(static_cast<float*>(op.y) + to) = a;
            if (column + box < op.columns) *reinterpret_cast<float4*>(static_cast<float*>(op.y) + to + box) = b;
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

// A warp a row and some heads: where there are many rows, so many that all fit at once.
template <int N, class Open> __device__ __forceinline__ void merge(const MergeOp& op, Open open) {
    constexpr int kHeads = N == 8 ? 1 : 2;
    const int perRow = (op.args.heads + kHeads - 1) / kHeads;
    warpUnits(op.merges * perRow, [&](int unit) { return MergeList(op.args, op.args.merges[unit / perRow]); }, open,
              [&](int unit, const MergeList& list) { mergeRow<kHeads>(op.args, list, unit % perRow * kHeads); });
}
#endif

}  // namespace
