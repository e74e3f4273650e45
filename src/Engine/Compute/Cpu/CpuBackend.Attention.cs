using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

/// <remarks>
/// Attention. A task is a tile of query rows of one group and one key-value head. It goes through the group's items in list order and, in each, through
/// blocks of 64 keys, keeping a running maximum, sum and output (online soft-max). Keys that a row must not see get probability 0, which adds nothing
/// to the last bit; so a row comes out the same when it is computed alone, a token at a time, as in a pass over the whole completion.
/// </remarks>
internal sealed unsafe partial class CpuBackend
{
    private const int TileRows = 32;
    private const int Keys = KvLayer.BlockSize;

    private struct AttentionTile
    {
        public int FirstItem;
        public int Items;
        public int FirstRow;
        public int Rows;
    }

    private struct AttentionJob
    {
        public AttentionItem* Items;
        public int* Blocks;
        public AttentionTile* Tiles;
        public float* Q;
        public float* Data;
        public float* O;
        public float* LogSumExp;
        public float* DO;
        public float* DQ;
        public float* DData;
        public float* Scratch;
        public long ScratchFloats;
        public float** MatMulScratch;
        public int Columns;
        public int Heads;
        public int HeadDim;
        public int QueryHeads;
        public float Scale;
    }

    /// <inheritdoc/>
    protected override void AttendCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp)
    {
        var job = NewAttentionJob(q, kv, work, o, logSumExp, matrices: 2);
        var tiles = FindTiles(work, TileRows, out job.Tiles);
        _threads.Run(tiles * kv.Heads, &AttendTask, &job);
    }

    /// <inheritdoc/>
    protected override void AttendBackwardCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, Tensor dO, Tensor dq, KvLayer dKv)
    {
        var job = NewAttentionJob(q, kv, work, o, logSumExp, matrices: 3);
        job.DO = (float*)dO.Address;
        job.DQ = (float*)dq.Address;
        job.DData = (float*)dKv.Data.Address;
        var blocks = (int*)work.Blocks.Address;
        for (var i = 0; i < work.Blocks.Length; i++)
        {
            Clear(dKv.Data.Slice(blocks[i], 1));
        }

        // A whole group is one task here: its rows add to the same keys' gradients, in a fixed order.
        var groups = FindTiles(work, int.MaxValue, out job.Tiles);
        _threads.Run(groups * kv.Heads, &AttendBackwardTask, &job);
    }

    private AttentionJob NewAttentionJob(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, int matrices)
    {
        var queryHeads = q.Columns / kv.HeadDim / kv.Heads;
        var rows = (long)TileRows * queryHeads;
        var floats = rows * ((matrices * kv.HeadDim) + (2 * Keys) + 2);
        return new AttentionJob
        {
            Items = (AttentionItem*)work.Items.Address,
            Blocks = (int*)work.Blocks.Address,
            Q = (float*)q.Address,
            Data = (float*)kv.Data.Address,
            O = (float*)o.Address,
            LogSumExp = (float*)logSumExp.Address,
            Scratch = Borrow(Scratch.Attention, _threads.Count * floats),
            ScratchFloats = floats,
            MatMulScratch = _matMulScratch,
            Columns = q.Columns,
            Heads = kv.Heads,
            HeadDim = kv.HeadDim,
            QueryHeads = queryHeads,
            Scale = 1f / MathF.Sqrt(kv.HeadDim),
        };
    }

    /// <summary>Cuts each group's rows into tiles.</summary>
    private int FindTiles(AttentionWork work, int tileRows, out AttentionTile* tiles)
    {
        var items = (AttentionItem*)work.Items.Address;
        var capacity = 0L;
        for (var i = 0; i < work.Items.Length; i++)
        {
            capacity += 2 + (items[i].Rows / tileRows);
        }

        tiles = (AttentionTile*)Borrow(Scratch.Partials, Math.Max(1, capacity) * sizeof(AttentionTile) / sizeof(float));
        var count = 0;
        for (int first = 0, end; first < work.Items.Length; first = end)
        {
            var (from, to) = (int.MaxValue, 0);
            for (end = first; end < work.Items.Length && items[end].Group == items[first].Group; end++)
            {
                from = Math.Min(from, items[end].FirstRow);
                to = Math.Max(to, items[end].FirstRow + items[end].Rows);
            }

            for (var row = from; row < to; row += Math.Min(tileRows, to - row))
            {
                tiles[count++] = new AttentionTile { FirstItem = first, Items = end - first, FirstRow = row, Rows = Math.Min(tileRows, to - row) };
            }
        }

        return count;
    }

    private static void AttendTask(void* state, int task, int worker)
    {
        ref var job = ref *(AttentionJob*)state;
        var (tile, head) = (job.Tiles[task / job.Heads], task % job.Heads);
        var (dim, perRow) = (job.HeadDim, job.QueryHeads);
        var rows = tile.Rows * perRow;
        var q = job.Scratch + (worker * job.ScratchFloats);
        var o = q + ((long)rows * dim);
        var scores = o + ((long)rows * dim);
        var max = scores + ((long)rows * Keys);
        var sum = max + rows;
        Gather(job, job.Q, tile.FirstRow, tile.Rows, head, job.Scale, q);
        new Span<float>(o, rows * dim).Clear();
        new Span<float>(max, rows).Fill(float.NegativeInfinity);
        new Span<float>(sum, rows).Clear();

        for (var i = tile.FirstItem; i < tile.FirstItem + tile.Items; i++)
        {
            var item = job.Items[i];
            var first = Math.Max(item.FirstRow, tile.FirstRow);
            var count = Math.Min(item.FirstRow + item.Rows, tile.FirstRow + tile.Rows) - first;
            if (count <= 0)
            {
                continue;
            }

            var at = (first - tile.FirstRow) * perRow;
            var largest = Visible(item, first + count - 1);
            for (var key = 0; key < largest; key += Keys)
            {
                var keys = Math.Min(Keys, largest - key);
                var k = Block(job, job.Data, item, key, head);
                AttentionBlock.Scores(job.MatMulScratch[worker], q + ((long)at * dim), k, scores + ((long)at * Keys), count * perRow, keys, dim);
                for (var r = 0; r < count * perRow; r++)
                {
                    var visible = Math.Clamp(Visible(item, first + (r / perRow)) - key, 0, keys);
                    AttentionBlock.OnlineSoftMax(scores + ((long)(at + r) * Keys), visible, ref max[at + r], ref sum[at + r], o + ((long)(at + r) * dim), dim);
                }

                AttentionBlock.AddValues(job.MatMulScratch[worker], scores + ((long)at * Keys), k + ((long)job.Heads * Keys * dim), o + ((long)at * dim), count * perRow, keys, dim);
            }
        }

        for (var r = 0; r < rows; r++)
        {
            var (row, column) = (tile.FirstRow + (r / perRow), (head * perRow) + (r % perRow));
            job.LogSumExp[((long)row * job.Columns / dim) + column] = max[r] + MathF.Log(sum[r]);
            AttentionBlock.Scale(o + ((long)r * dim), 1f / sum[r], job.O + ((long)row * job.Columns) + (column * dim), dim);
        }
    }

    /// <summary>How many of the item's keys a row sees.</summary>
    private static int Visible(AttentionItem item, int row) => item.Causal == 0 ? item.Keys : item.Keys - item.Rows + 1 + row - item.FirstRow;

    private static float* Block(in AttentionJob job, float* data, AttentionItem item, int key, int head) =>
        data + ((long)job.Blocks[item.FirstBlock + (key / Keys)] * KvLayer.BlockColumns(job.Heads, job.HeadDim)) + ((long)head * Keys * job.HeadDim);

    private static void Gather(in AttentionJob job, float* from, int firstRow, int rows, int head, float scale, float* to)
    {
        var width = job.QueryHeads * job.HeadDim;
        for (var r = 0; r < rows; r++)
        {
            AttentionBlock.Scale(from + ((long)(firstRow + r) * job.Columns) + (head * width), scale, to + ((long)r * width), width);
        }
    }

    private static void AttendBackwardTask(void* state, int task, int worker)
    {
        ref var job = ref *(AttentionJob*)state;
        var (group, head) = (job.Tiles[task / job.Heads], task % job.Heads);
        for (var row = group.FirstRow; row < group.FirstRow + group.Rows; row++)
        {
            new Span<float>(job.DQ + ((long)row * job.Columns) + (head * job.QueryHeads * job.HeadDim), job.QueryHeads * job.HeadDim).Clear();
        }

        for (var i = group.FirstItem; i < group.FirstItem + group.Items; i++)
        {
            var item = job.Items[i];
            for (var row = item.FirstRow; row < item.FirstRow + item.Rows; row += TileRows)
            {
                ItemBackward(job, item, row, Math.Min(TileRows, item.FirstRow + item.Rows - row), head, worker);
            }
        }
    }

    private static void ItemBackward(in AttentionJob job, AttentionItem item, int firstRow, int tileRows, int head, int worker)
    {
        var (dim, perRow) = (job.HeadDim, job.QueryHeads);
        var matMul = job.MatMulScratch[worker];
        var rows = tileRows * perRow;
        var q = job.Scratch + (worker * job.ScratchFloats);
        var dO = q + ((long)rows * dim);
        var dq = dO + ((long)rows * dim);
        var p = dq + ((long)rows * dim);
        var dp = p + ((long)rows * Keys);
        var delta = dp + ((long)rows * Keys);
        Gather(job, job.Q, firstRow, tileRows, head, job.Scale, q);
        Gather(job, job.DO, firstRow, tileRows, head, 1f, dO);
        new Span<float>(dq, rows * dim).Clear();
        for (var r = 0; r < rows; r++)
        {
            var o = job.O + ((long)(firstRow + (r / perRow)) * job.Columns) + (((head * perRow) + (r % perRow)) * dim);
            delta[r] = Dot(o, dO + ((long)r * dim), dim);
        }

        var largest = Visible(item, firstRow + tileRows - 1);
        for (var key = 0; key < largest; key += Keys)
        {
            var keys = Math.Min(Keys, largest - key);
            float* k = Block(job, job.Data, item, key, head), v = k + ((long)job.Heads * Keys * dim);
            float* dk = Block(job, job.DData, item, key, head), dv = dk + ((long)job.Heads * Keys * dim);
            MatMul.Block(matMul, new Left(q, dim), new Right(k, dim, true, false), default, p, Keys, rows, keys, dim);
            MatMul.Block(matMul, new Left(dO, dim), new Right(v, dim, true, false), default, dp, Keys, rows, keys, dim);
            for (var r = 0; r < rows; r++)
            {
                var row = firstRow + (r / perRow);
                var visible = Math.Clamp(Visible(item, row) - key, 0, keys);
                var logSumExp = job.LogSumExp[((long)row * job.Columns / dim) + (head * perRow) + (r % perRow)];
                ScoreGradient(p + ((long)r * Keys), dp + ((long)r * Keys), visible, keys, logSumExp, delta[r]);
            }

            MatMul.Block(matMul, new Left(p, 1, Keys), new Right(dO, dim, false, false), new Start(null, dv, dim), dv, dim, keys, dim, rows);
            MatMul.Block(matMul, new Left(dp, 1, Keys), new Right(q, dim, false, false), new Start(null, dk, dim), dk, dim, keys, dim, rows);
            MatMul.Block(matMul, new Left(dp, Keys), new Right(k, dim, false, false), new Start(null, dq, dim), dq, dim, rows, dim, keys);
        }

        for (var r = 0; r < rows; r++)
        {
            float* from = dq + ((long)r * dim), to = job.DQ + ((long)(firstRow + (r / perRow)) * job.Columns) + (((head * perRow) + (r % perRow)) * dim);
            for (var i = 0; i < dim; i += Eight(dim, i))
            {
                StoreUpTo8(Vector256.FusedMultiplyAdd(LoadUpTo8(from + i, dim - i), Vector256.Create(job.Scale), LoadUpTo8(to + i, dim - i)), to + i, dim - i);
            }
        }
    }

    // p = exp(s − lse), ds = p·(dp − delta), both 0 where the row does not see the key.
    private static void ScoreGradient(float* p, float* dp, int visible, int keys, float logSumExp, float delta)
    {
        for (var j = 0; j < visible; j += Eight(visible, j))
        {
            var probability = VectorMath.Exp(LoadUpTo8(p + j, visible - j) - Vector256.Create(logSumExp));
            StoreUpTo8(probability * (LoadUpTo8(dp + j, visible - j) - Vector256.Create(delta)), dp + j, visible - j);
            StoreUpTo8(probability, p + j, visible - j);
        }

        new Span<float>(p + visible, keys - visible).Clear();
        new Span<float>(dp + visible, keys - visible).Clear();
    }

    private static float Dot(float* a, float* b, int count)
    {
        var sums = Vector256<float>.Zero;
        var i = 0;
        for (; i + 8 <= count; i += 8)
        {
            sums = Vector256.FusedMultiplyAdd(Vector256.Load(a + i), Vector256.Load(b + i), sums);
        }

        var sum = Vector256.Sum(sums);
        for (; i < count; i++)
        {
            sum = MathF.FusedMultiplyAdd(a[i], b[i], sum);
        }

        return sum;
    }
}
