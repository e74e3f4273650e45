namespace LrIad.Engine.Compute.Cpu;

internal sealed unsafe partial class CpuBackend
{
    private struct RotaryJob
    {
        public float* Cos;
        public float* Sin;
        public int* Axis;
        public TokenRow* Rows;
        public int Count;
        public float* Q;
        public int QueryHeads;
        public float* K;
        public float* V;
        public float* Data;
        public int Heads;
        public int HeadDim;
        public bool Back;
    }

    /// <summary>
    /// Forward: turns q and k in place and writes k and v to their rows' slots. Back: reads the gradients of k and v from the slots and turns those of q and k back.
    /// </summary>
    private void Rotate(Rotary rotary, View<TokenRow> rows, KvLayer kv, float* q, int queryHeads, float* k, float* v, bool back)
    {
        var table = _rotaryTables.GetValue(rotary, static key => new RotaryTable(key));
        var row = (TokenRow*)rows.Address;
        var largest = 0;
        for (var i = 0; i < rows.Length; i++)
        {
            largest = Math.Max(largest, Math.Max(row[i].Position0, Math.Max(row[i].Position1, row[i].Position2)));
        }

        table.Reach(largest);
        fixed (float* cos = table.Cos, sin = table.Sin)
        fixed (int* axis = rotary.Axis)
        {
            var job = new RotaryJob
            {
                Cos = cos,
                Sin = sin,
                Axis = axis,
                Rows = row,
                Count = rows.Length,
                Q = q,
                QueryHeads = queryHeads,
                K = k,
                V = v,
                Data = (float*)kv.Data.Address,
                Heads = kv.Heads,
                HeadDim = kv.HeadDim,
                Back = back,
            };
            ForRows(rows.Length, &RotaryTask, &job);
        }
    }

    private static void RotaryTask(void* state, int task, int worker)
    {
        ref var job = ref *(RotaryJob*)state;
        var (heads, dim) = (job.Heads, job.HeadDim);
        var half = dim / 2;
        var cos = stackalloc float[half];
        var sin = stackalloc float[half];
        for (var r = task * RowsPerTask; r < Math.Min(job.Count, (task + 1) * RowsPerTask); r++)
        {
            var row = job.Rows[r];
            for (var i = 0; i < half; i++)
            {
                var position = job.Axis[i] switch { 0 => row.Position0, 1 => row.Position1, _ => row.Position2 };
                cos[i] = job.Cos[(position * half) + i];
                sin[i] = job.Back ? -job.Sin[(position * half) + i] : job.Sin[(position * half) + i];
            }

            for (var h = 0; h < job.QueryHeads; h++)
            {
                Turn(job.Q + ((((long)r * job.QueryHeads) + h) * dim), cos, sin, half);
            }

            // [block][K|V][head][slot in block][column]
            var block = job.Data + ((long)(row.Slot / KvLayer.BlockSize) * KvLayer.BlockColumns(heads, dim)) + ((long)(row.Slot % KvLayer.BlockSize) * dim);
            for (var h = 0; h < heads; h++)
            {
                float* k = job.K + ((((long)r * heads) + h) * dim), v = job.V + ((((long)r * heads) + h) * dim);
                float* slotK = block + ((long)h * KvLayer.BlockSize * dim), slotV = slotK + ((long)heads * KvLayer.BlockSize * dim);
                if (job.Back)
                {
                    new ReadOnlySpan<float>(slotK, dim).CopyTo(new Span<float>(k, dim));
                    new ReadOnlySpan<float>(slotV, dim).CopyTo(new Span<float>(v, dim));
                    Turn(k, cos, sin, half);
                }
                else
                {
                    Turn(k, cos, sin, half);
                    new ReadOnlySpan<float>(k, dim).CopyTo(new Span<float>(slotK, dim));
                    new ReadOnlySpan<float>(v, dim).CopyTo(new Span<float>(slotV, dim));
                }
            }
        }
    }

    private static void Turn(float* head, float* cos, float* sin, int half)
    {
        for (var i = 0; i < half; i++)
        {
            var (a, b) = (head[i], head[i + half]);
            head[i] = MathF.FusedMultiplyAdd(a, cos[i], -(b * sin[i]));
            head[i + half] = MathF.FusedMultiplyAdd(b, cos[i], a * sin[i]);
        }
    }
}
