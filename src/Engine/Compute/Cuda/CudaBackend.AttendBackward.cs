using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

// The backward of attention; native/kernels/attend_backward.cuh.
internal sealed unsafe partial class CudaBackend
{
    private const int BackwardHeadDim = 128;

    private readonly ConditionalWeakTable<AttentionWork, BackwardPlan> _backwardPlans = [];

    /// <inheritdoc/>
    protected override void AttendBackwardCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, Tensor dO, Tensor dq, KvLayer dKv)
    {
        ArgumentNullException.ThrowIfNull(work);
        Activation(q, nameof(q));
        if (kv.HeadDim != BackwardHeadDim)
        {
            throw new NotSupportedException($"The CUDA backend trains through heads of {BackwardHeadDim} columns, as the decoder has them; these have {kv.HeadDim}.");
        }

        var (heads, blockFloats) = (q.Columns / kv.HeadDim, KvLayer.BlockColumns(kv.Heads, kv.HeadDim));
        var perHead = heads / kv.Heads;
        var plan = _backwardPlans.GetValue(work, _ => new BackwardPlan());
        var wide = _kernels.AttendBackwardWide;
        plan.Make(this, work, perHead, wide is null ? AttentionPlanner.TileRows : AttendWideKernel.Rows, wide is null ? 1 : 2);
        var stats = Borrow(Scratch.BackwardStats, (long)q.Rows * heads * 2 * sizeof(float));
        var partials = plan.Slots == 0 ? 0 : Borrow(Scratch.PartialKv, (long)plan.Slots * blockFloats * sizeof(float));
        var args = new AttendBackwardArgs(
            q.Address, kv.Data.Address, dO.Address, logSumExp.Address, work.Blocks.Address, plan.Tiles, plan.Runs, plan.KeyTiles, plan.RowRuns, stats, dq.Address,
            dKv.Data.Address, partials, q.Rows, kv.Heads, perHead, 1 / MathF.Sqrt(kv.HeadDim));
        if (wide is null)
        {
            _kernels.AttendBackwardStats.Launch(Stream, args, plan.TileCount, kv.Heads, 128);
            _kernels.AttendBackwardRows.Launch(Stream, args, plan.TileCount, kv.Heads, 128);
            _kernels.AttendBackwardKeys.Launch(Stream, args, plan.KeyTileCount, kv.Heads, 128);
        }
        else
        {
            var rows = Wide(plan.TileCount, AttendWideKernel.Rows / perHead);
            LaunchWide(wide.Stats, rows);
            LaunchWide(wide.Rows, rows);
            LaunchWide(wide.Keys, Wide(plan.KeyTileCount, BackwardWideKernels.StepRows / perHead));
        }

        if (plan.MergeCount > 0)
        {
            _kernels.AttendBackwardMerge.Launch(Stream, new KeyMergeArgs(plan.Merges, partials, dKv.Data.Address, blockFloats), plan.MergeCount, blockFloats / 1024, 256);
        }

        BackwardWideArgs Wide(int tiles, int boxRows) => new()
        {
            Q = TensorMap.Queries(q.Address, q.Rows, kv.Heads, perHead, kv.HeadDim, boxRows, 64),
            DO = TensorMap.Queries(dO.Address, q.Rows, kv.Heads, perHead, kv.HeadDim, boxRows, 64),
            Kv = TensorMap.Tiles(kv.Data.Address, checked((int)(kv.Data.Length / kv.HeadDim)), kv.HeadDim, KvLayer.BlockSize),
            Args = args,
            Units = tiles * kv.Heads,
            BoxRows = boxRows,
        };

        void LaunchWide(CudaKernel kernel, in BackwardWideArgs wideArgs) =>
            kernel.Launch(Stream, wideArgs, Math.Min(wideArgs.Units, _context.Multiprocessors), 1, AttendWideKernel.Threads);
    }

    /// <summary>A work list planned for the backward pass, in device memory. All layers go by it.</summary>
    private sealed class BackwardPlan
    {
        private readonly AttentionPlanner _rows = new();
        private readonly BackwardPlanner _keys = new();
        private Storage? _storage;
        private (int Version, int PerHead) _made = (-1, 0);

        public nint Tiles { get; private set; }

        public nint Runs { get; private set; }

        public nint KeyTiles { get; private set; }

        public nint RowRuns { get; private set; }

        public nint Merges { get; private set; }

        public int TileCount => _rows.Tiles.Count;

        public int KeyTileCount => _keys.Tiles.Count;

        public int MergeCount => _keys.Merges.Count;

        public int Slots => _keys.Slots;

        public void Make(CudaBackend backend, AttentionWork work, int perHead, int tileRows, int pages)
        {
            if (_made == (work.Version, perHead))
            {
                return;
            }

            ArgumentOutOfRangeException.ThrowIfGreaterThan(perHead, AttentionPlanner.TileRows);
            _rows.PlanRows(work.HostItems, tileRows / perHead);
            _keys.Plan(work.HostItems, work.HostBlocks, perHead, pages);
            var lists = new[] { Bytes(_rows.Tiles), Bytes(_rows.Runs), Bytes(_keys.Tiles), Bytes(_keys.Runs), Bytes(_keys.Merges) };
            var total = lists.Sum(list => list.Length);
            if (_storage is null || _storage.Bytes < total)
            {
                _storage?.Dispose();
                _storage = null;
                _storage = backend.CreateStorage(Math.Max(4096, 2L * total), "attention plans");
            }

            backend.Upload<byte>([.. lists[0], .. lists[1], .. lists[2], .. lists[3], .. lists[4]], new View<byte>(_storage, 0, total));
            var at = lists.Select((_, i) => _storage.Address + lists.Take(i).Sum(list => list.Length)).ToArray();
            (Tiles, Runs, KeyTiles, RowRuns, Merges, _made) = (at[0], at[1], at[2], at[3], at[4], (work.Version, perHead));
        }

        private static byte[] Bytes<T>(List<T> list)
            where T : unmanaged => MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(list)).ToArray();
    }
}
