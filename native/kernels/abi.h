// What C# and the kernels agree on: one plain argument struct a kernel, all fields 4 or 8 bytes wide. Kernels.cs in src/Engine/Compute/Cuda mirrors
// them; `lriad_abi` at the end of lriad.cu lists their sizes, which are compared when the module loads.
#pragma once
#include <cuda_bf16.h>
#include <cstdint>

using bf16 = __nv_bfloat16;

// What the copy engine knows of a matrix: CUtensorMap, which differs between versions of CUDA in its alignment alone.
struct alignas(128) TensorMap { uint64_t opaque[16]; };

// Mirrors of src/Engine/Compute/Operands.cs.
struct TokenRow { int position[3]; int slot; int adapter; uint32_t dropoutId, dropoutPosition; int reserved; };
struct LogProbRow { int row, target; float temperature; int top; };
struct SampleRow { int row; float temperature; int topK; float topP; uint32_t seedLow, seedHigh, sample, position; int mask, top; };

// x[t] = table[ids[t]], or features[-ids[t] - 1]. Columns divisible by 8.
struct EmbedArgs { const int* ids; const bf16* table; const bf16* features; bf16* x; int columns; int reserved; };

struct ConvertArgs { const float* from; bf16* to; int64_t count; };
// pixels[p, c, frame, i] = values[c, levels[p, c, i]].
struct PixelsArgs { const uint8_t* levels; const float* values; bf16* pixels; int patches, area, frames, reserved; };

// y[r] = norm(x[row r]); row r is r itself or, where `gather` is given, the int at gather + r · gatherStride bytes.
struct NormArgs {
    const bf16 *x, *weight, *bias;
    bf16* y;
    const char* gather;
    int count, columns, layerNorm, gatherStride;
    float epsilon;
    int reserved;
};

// Training (backward.cuh). dx[row r] = residual[row r] + the norm's J · dy[r], also rounded where that is wanted; RMS norms.
struct NormBackwardArgs {
    const bf16 *x, *weight, *dy;
    const float* residual;
    float* dx;
    bf16* rounded;
    const char* gather;
    int count, columns, gatherStride;
    float epsilon;
};
struct GatedSiluBackwardArgs { const bf16 *gateUp, *dh; bf16* dGateUp; int rows, columns; };
struct QkvBackwardArgs {
    const bf16* dq;
    const float* dKv;
    bf16* dQkv;
    const TokenRow* rows;
    const int* axis;
    const float* frequency;
    int heads, perHead, headDim, reserved;
};
struct HeadBackwardArgs { const float* logits; const LogProbRow* targets; const float *logSumExp, *dLogProb; bf16* dLogits; int vocabulary, reserved; };

// The adapter over many rows (adapter.cuh). Masks are bits, [rows, (columns + 31) / 32] words, or none.
struct DropoutArgs { const TokenRow* rows; uint32_t* mask; uint32_t keyLow, keyHigh, counter, step, threshold; int words; };
// Element (j, c) of a factor lies at j · rowStride + c · columnStride; it meets columns [offset, offset + columns) of x.
struct LowRankSide { const float* factor; const uint32_t* mask; int offset, columns, rowStride, columnStride; };
struct LowRankArgs { LowRankSide sides[2]; const bf16* x; const TokenRow* rows; float* out; int count, stride, rank; float scale; };
struct FactorSide { float* gradient; const uint32_t* mask; int64_t firstPartial; int offset, columns, rowStride, columnStride; };
struct FactorGradientArgs { FactorSide sides[2]; const bf16* x; const float* s; float* partials; int count, stride, rank, splitRows, splits; float scale; };
struct LowRankBackwardArgs { bf16* dx; const float *s, *queryA, *valueA; const uint32_t *queryMask, *valueMask; int count, columns, rank; float scale; };

// Low-rank update, rotary and the way into the cache, from rows of q | k | v.
struct QkvArgs {
    const bf16* qkv;
    bf16 *q, *kv;
    const TokenRow* rows;
    const int* axis;
    const float* frequency;
    const float *lowRank, *queryB, *valueB;
    int heads, perHead, headDim, rank;
};
// The same in blocks of `strip` of the rows.
struct QkvAdapterArgs { QkvArgs qkv; int count, strip; };

// Attention. A tile is some consecutive query rows, all of which go through the same runs of keys.
struct AttendTile { int row, rows, firstRun, runs, slot; };
// Row j of the tile sees the first min(keys, limit + step · j) keys of a run.
struct AttendRun { int firstBlock, keys, limit, step; };
struct AttendMerge { int row, firstPart, parts; };

struct AttendArgs {
    const bf16 *q, *kv;
    const int* blocks;
    const AttendTile* tiles;
    const AttendRun* runs;
    bf16* o;
    float *logSumExp, *partialO, *partialLogSumExp;
    int heads, perHead;
    float scale;
    int reserved;
};

struct AttendMergeArgs {
    const AttendMerge* merges;
    const int* parts;
    const float *partialO, *partialLogSumExp;
    bf16* o;
    float* logSumExp;
    int heads, headDim;
};

// The backward of attention, from the keys' side. A tile is a page of keys or two, all of which are seen by the rows of the same runs; results go to blocks of `dKv`, or
// to slots of `partials`, which have the same form, where several tiles share the rows. Of pages that are not there, both are negative.
struct KeyTile { int block[2], slot[2], firstRun, runs; };
// Row j of the run sees the first min(keys, limit + step · j) keys of the tile.
struct RowRun { int row, rows, keys, limit, step; };
struct KeyMerge { int block, firstSlot, slots; };

struct AttendBackwardArgs {
    const bf16 *q, *kv, *dO;
    const float* logSumExp;
    const int* blocks;
    const AttendTile* tiles;
    const AttendRun* runs;
    const KeyTile* keyTiles;
    const RowRun* rowRuns;
    float2* stats;                          // [heads, rows, perHead] of log2 Σ 2^score and Σ p dp
    bf16* dq;
    float *dKv, *partials;
    int rows, heads, perHead;
    float scale;
};

struct KeyMergeArgs { const KeyMerge* merges; const float* partials; float* dKv; int64_t blockFloats; };

// h = silu(gate) · up, from rows of gate | up.
struct GatedSiluArgs { const bf16* gateUp; bf16* h; int rows, columns; };
// h = activation(x): quick GELU, or GELU by erf.
struct GeluArgs { const bf16* x; bf16* h; int64_t count; int quick; int reserved; };

// What the head's logits say about a row, gathered in parts.
struct HeadPart { float max, sum, weighted, key; int token; };
struct HeadArgs {
    const float* logits;
    const LogProbRow* targets;
    const SampleRow* samples;
    const int* options;
    HeadPart* parts;
    float* floor;
    int* lastTied;
    int* token;
    float *logProb, *entropy, *logSumExp, *optionLogProb;
    const uint32_t* masks;                  // [masks, (vocabulary + 31) / 32]
    int* topToken;                          // [rows, topCount]
    float* topLogProb;
    int vocabulary, splits, optionCount, topCount;
};

struct ReadArgs { const uint4* from; int* sink; int64_t count; };


// Attention of tiles of 128 packed rows, or fewer. `q` and `qRest` are maps of [rows, heads, perHead, columns], their boxes tileRows rows of one head; `kv` and `kvRest` of
// [blocks of the cache x 2 x heads x 64, columns], their boxes 64 rows. The former fetch 64 columns from the first on, the latter what is left from column 64 on.
struct WideArgs {
    TensorMap q, qRest, kv, kvRest;
    const int* blocks;
    const AttendTile* tiles;
    const AttendRun* runs;
    bf16* o;
    float* logSumExp;
    int tileCount, heads, perHead, tileRows;
    float scale;
    int reserved[17];
};

// The same for tiles of 128 packed rows, and for tiles of 128 keys. `q` and `dO` are maps as above, their boxes `boxRows` rows: those of a tile or, for tiles of keys, as many
// as 64 packed rows hold, which it takes at a time. `units` are tiles times heads.
struct BackwardWideArgs {
    TensorMap q, dO, kv;
    AttendBackwardArgs args;
    int units, boxRows, reserved[32];
};

// A large product (product.cuh), y = activation(x · Wᵀ + bias). `x` is the map of [rows, inputs], boxes of 128 rows, or of 64 where the blocks of a cluster have the same rows
// (`across`) and not the same outputs; `w` that of W as [outputs / 32, 4, 8, inputs] with the middle two exchanged, boxes of 96 rows. Gated: W's rows are `outputs` of the gate,
// then as many of what is gated, and there is no bias; where there is a gateUp both go there too.
enum ProductActivation { kQuickGelu, kGatedSilu };
struct ProductArgs {
    TensorMap x, w;
    const bf16* bias;
    bf16 *y, *gateUp;
    int rows, outputs, depth, activation;   // depth: pieces of 64 inputs
    int rowTiles, columnTiles, across;      // of the cluster
    int band;                               // row tiles whose x stays in the cache
    int reserved[18];
};

// Step programs (step.cuh): operations on at most 64 rows, one after another in one kernel.
//
// A product leaves float32 partial sums, which the operation behind it adds up, or finishes its results itself. A piece of weights is four boxes of 64 inputs. Sums that stay
// are of tiles of 128 outputs, with two boxes of 64 outputs, for 128 inputs at a time; matrices of one product start tiles of their own. Tiles of a product that finishes its
// results have four boxes of 64 or 72 outputs: gated, two of the gate and, each behind its own, two of what is gated. Of these every block has `whole` to itself. The pieces of
// the tiles that are left, the last ones, form a line that is cut into equal runs, one a block; where a run or a tile ends a segment does. A segment's sums are
// [rows of x, 288]; those of tile t of these are segments tileSegment[t] ... tileSegment[t + 1] - 1, to be added in this order.
//
// A norm's factor 1 / |x| comes after the product: what is multiplied is x · weight, and the squares of x, tile by tile of 256 columns, wait in `stats` for who adds the
// sums up. With an adapter A · (x · weight) waits there too: a tile of a row has 1 + 2 · rank values.
struct Sums {
    float* partials;
    const int* tileSegment;
    const float* stats;                     // [rows of x, statTiles, statWidth]; none where there was no norm
    int statTiles, statWidth;
    float inverseColumns, epsilon;
};

// What becomes of the sums: they stay; silu(gate) · up goes to y as bfloat16; they go to y as floats.
enum ProductFinish { kFinishNothing, kFinishGated, kFinishFloats };
struct ProductOp {
    const TensorMap *weights[3], *x;
    const int *firstPiece, *firstSegment;   // of block b; firstPiece has one more
    Sums sums;                              // where the sums go; the norm of x
    void* y;                                // [rows, columns]
    int secondTile, thirdTile;              // where the second and the third matrix begin
    int depth, rows;                        // pieces a tile, rows of x
    int finish, columns;
    int whole, shared;                      // tiles that a block has to itself; tiles that are left
    int round, boxRows;                     // products of the program that finished before; outputs of a box: 64 or 72
};
// x' = x + sums (where there are any); where there is a y, y = x' · weight and its stats.
struct ResidualOp {
    Sums sums;
    const bf16 *x, *weight;
    bf16 *result, *y;
    float* stats;
    const char* gather;
    const TokenRow* rows;
    const float *queryA, *valueA;
    int count, columns, gatherStride, rank;
};
struct RotateOp {
    Sums sums;
    const bf16* bias[3];
    bf16 *q, *kv;
    const TokenRow* rows;
    const int* axis;
    const float* frequency;
    const float *queryB, *valueB;
    int count, heads, perHead, rank;
};
// Some rows, 64 with all query heads of a key-value head at most, and 128 keys or fewer: row j sees the first min(keys, limit + step · j) of them. Results are parts, for
// slots from `slot` on. `fresh`: whether the operation before it makes some of the keys: none; the last one, which the tile's only row sees; or who knows which (-1).
struct StepTile { int row, rows, slot, keys, limit, step, blocks[2], fresh; };
struct AttendOp {
    const TensorMap* kv;                    // [blocks of the cache x 2 x heads x 64, 128], boxes of 64 x 64
    const bf16 *cache, *q;
    const StepTile* tiles;
    float *partialO, *partialLogSumExp;
    int count, heads, perHead;
    float scale;
};
struct MergeOp { AttendMergeArgs args; int merges, reserved; };
// The same tiles for rows that are too many for a program (attend_part.cuh): `q` is a map of [rows, heads, perHead, 128], boxes of boxRows rows and 64 columns, as many rows as
// 64 with their query heads hold; `kv` one of [blocks of the cache x 2 x heads x 64, 128], boxes of 64 x 64.
struct PartArgs {
    TensorMap q, kv;
    const StepTile* tiles;
    float *partialO, *partialLogSumExp;
    int count, heads, perHead, boxRows;
    float scale;
    int reserved[21];
};
struct EmbedOp { EmbedArgs args; int rows, reserved; };

enum StepKind { kStepProduct, kStepResidual, kStepRotate, kStepAttend, kStepMerge, kStepEmbed };
struct alignas(16) StepOp {
    int kind, index;
    union {
        ProductOp product;
        ResidualOp residual;
        RotateOp rotate;
        AttendOp attend;
        MergeOp merge;
        EmbedOp embed;
        char bytes[136];
    };
};
// `arrived` counts operations that a block has finished, and kSumsArrived further on those that it has left its sums of; zeros, and zeros again when the kernel has finished.
constexpr int kSumsArrived = 32;
struct StepArgs { const StepOp* ops; int* arrived; int count, reserved; };
