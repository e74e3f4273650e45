namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void ProjectQkvCore(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows, Tensor q, KvLayer kv, Tensor lowRank, View<uint> mask)
    {
        var (t, inputs, keys) = (x.Rows, x.Columns, weights.Key.Outputs);
        var normed = Borrow(Scratch.Normed, (long)t * inputs);
        var k = Borrow(Scratch.Key, (long)t * keys);
        var v = Borrow(Scratch.Value, (long)t * keys);
        var queries = (float*)q.Address;
        Normalize(x, weights.Norm, normed);
        Apply(weights.Query, new Left(normed, inputs), t, queries, q.Columns);
        Apply(weights.Key, new Left(normed, inputs), t, k, keys);
        Apply(weights.Value, new Left(normed, inputs), t, v, keys);
        if (adapter is not null)
        {
            var rank = adapter.Rank;
            var low = lowRank.IsEmpty ? Borrow(Scratch.LowRank, (long)t * 2 * rank) : (float*)lowRank.Address;
            AddLowRank(adapter.Query, 0, normed, inputs, dropout, rows, low, 2 * rank, queries, q.Columns);
            AddLowRank(adapter.Value, 1, normed, inputs, dropout, rows, low + rank, 2 * rank, v, keys);
        }

        Rotate(rotary, rows, kv, queries, q.Columns / kv.HeadDim, k, v, back: false);
    }

    /// <inheritdoc/>
    protected override void ProjectQkvBackwardCore(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows,
        Tensor lowRank, Tensor dq, KvLayer dKv, Tensor dy, Tensor dx, AdapterLayer? gradient, Tensor roundedDx, View<uint> mask)
    {
        var (t, inputs, keys) = (x.Rows, x.Columns, weights.Key.Outputs);
        var queries = Borrow(Scratch.Gradient, (long)t * dq.Columns);
        var k = Borrow(Scratch.Key, (long)t * keys);
        var v = Borrow(Scratch.Value, (long)t * keys);
        Buffer.MemoryCopy((void*)dq.Address, queries, dq.Length * sizeof(float), dq.Length * sizeof(float));
        Rotate(rotary, rows, dKv, queries, dq.Columns / dKv.HeadDim, k, v, back: true);

        // Gradient of the norm's output: through the three products, then through the adapter.
        var dNormed = Borrow(Scratch.Gradient2, (long)t * inputs);
        Multiply(new Left(queries, dq.Columns), Weight(weights.Query.Weight), default, dNormed, inputs, t, inputs, dq.Columns);
        Multiply(new Left(k, keys), Weight(weights.Key.Weight), new Start(null, dNormed, inputs), dNormed, inputs, t, inputs, keys);
        Multiply(new Left(v, keys), Weight(weights.Value.Weight), new Start(null, dNormed, inputs), dNormed, inputs, t, inputs, keys);
        if (adapter is not null)
        {
            var rank = adapter.Rank;
            var normed = Borrow(Scratch.Normed, (long)t * inputs);
            Normalize(x, weights.Norm, normed);
            var low = (float*)lowRank.Address;
            LowRankBackward(adapter.Query, gradient!.Query, 0, normed, inputs, dropout, rows, low, 2 * rank, queries, dq.Columns, dNormed);
            LowRankBackward(adapter.Value, gradient.Value, 1, normed, inputs, dropout, rows, low + rank, 2 * rank, v, keys, dNormed);
        }

        NormalizeBackward(x, weights.Norm, dNormed, (float*)dy.Address, (float*)dx.Address);
    }

    // t = A·dropout(x̂) for rows with the adapter on, 0 for the others; y += B·t.
    private void AddLowRank(LowRank factors, int projection, float* normed, int inputs, Dropout dropout, View<TokenRow> rows, float* low, int lowStride, float* y, int outputs)
    {
        var (t, rank) = (rows.Length, factors.A.Rows);
        var dropped = Drop(projection, normed, inputs, dropout, rows);
        Multiply(new Left(dropped, inputs), TransposedWeight(factors.A), default, low, lowStride, t, rank, inputs);
        SwitchOff(rows, low, lowStride, rank);
        Multiply(new Left(low, lowStride), TransposedWeight(factors.B), new Start(null, y, outputs), y, outputs, t, outputs, rank);
    }

    private void LowRankBackward(
        LowRank factors, LowRank gradient, int projection, float* normed, int inputs, Dropout dropout, View<TokenRow> rows,
        float* low, int lowStride, float* dy, int outputs, float* dNormed)
    {
        var (t, rank) = (rows.Length, factors.A.Rows);
        var dropped = Drop(projection, normed, inputs, dropout, rows);
        var dB = (float*)gradient.B.Address;
        Multiply(new Left(dy, 1, outputs), new Right(low, lowStride, false, false), new Start(null, dB, rank), dB, rank, outputs, rank, t);

        var dLow = Borrow(Scratch.LowRank, (long)t * rank);
        Multiply(new Left(dy, outputs), Weight(factors.B), default, dLow, rank, t, rank, outputs);
        SwitchOff(rows, dLow, rank, rank);
        var dA = (float*)gradient.A.Address;
        Multiply(new Left(dLow, 1, rank), new Right(dropped, inputs, false, false), new Start(null, dA, inputs), dA, inputs, rank, inputs, t);

        if (dropout.Probability == 0)
        {
            Multiply(new Left(dLow, rank), Weight(factors.A), new Start(null, dNormed, inputs), dNormed, inputs, t, inputs, rank);
            return;
        }

        var dDropped = Borrow(Scratch.Gradient3, (long)t * inputs);
        Multiply(new Left(dLow, rank), Weight(factors.A), default, dDropped, inputs, t, inputs, rank);
        var job = new DropJob { Dropout = dropout, Projection = projection, X = dDropped, Y = dNormed, Rows = (TokenRow*)rows.Address, Count = t, Columns = inputs, Add = true };
        RunDrop(ref job);
    }

    private static void SwitchOff(View<TokenRow> rows, float* low, int stride, int rank)
    {
        var row = (TokenRow*)rows.Address;
        for (var i = 0; i < rows.Length; i++)
        {
            if (row[i].Adapter == 0)
            {
                new Span<float>(low + ((long)i * stride), rank).Clear();
            }
        }
    }

    private float* Drop(int projection, float* normed, int inputs, Dropout dropout, View<TokenRow> rows)
    {
        if (dropout.Probability == 0)
        {
            return normed;
        }

        var dropped = Borrow(Scratch.Dropped, (long)rows.Length * inputs);
        var job = new DropJob { Dropout = dropout, Projection = projection, X = normed, Y = dropped, Rows = (TokenRow*)rows.Address, Count = rows.Length, Columns = inputs };
        RunDrop(ref job);
        return dropped;
    }

    private void RunDrop(ref DropJob job)
    {
        job.Mask = Borrow(Scratch.Mask, (long)_threads.Count * job.Columns);
        fixed (DropJob* state = &job)
        {
            ForRows(job.Count, &DropTask, state);
        }
    }

    private struct DropJob
    {
        public Dropout Dropout;
        public int Projection;
        public float* X;
        public float* Y;
        public float* Mask;
        public TokenRow* Rows;
        public int Count;
        public int Columns;
        public bool Add;
    }

    private static void DropTask(void* state, int task, int worker)
    {
        ref var job = ref *(DropJob*)state;
        var mask = new Span<float>(job.Mask + ((long)worker * job.Columns), job.Columns);
        for (var row = task * RowsPerTask; row < Math.Min(job.Count, (task + 1) * RowsPerTask); row++)
        {
            Philox.DropoutMask(job.Dropout, job.Projection, job.Rows[row].DropoutId, job.Rows[row].DropoutPosition, mask);
            float* x = job.X + ((long)row * job.Columns), y = job.Y + ((long)row * job.Columns);
            for (var i = 0; i < mask.Length; i++)
            {
                y[i] = job.Add ? y[i] + (x[i] * mask[i]) : x[i] * mask[i];
            }
        }
    }
}
