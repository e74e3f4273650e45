using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

internal sealed unsafe partial class CudaBackend
{
    private readonly ConditionalWeakTable<AttentionWork, AttentionPlan> _plans = [];

    /// <inheritdoc/>
    protected override void AttendCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp)
    {
        ArgumentNullException.ThrowIfNull(work);
        Activation(q, nameof(q));
        var (kernel, wide) = kv.HeadDim switch
        {
            128 => (_kernels.Attend128, _kernels.AttendWide128),
            80 => (_kernels.Attend80, _kernels.AttendWide80),
            _ => throw new NotSupportedException($"The CUDA backend attends with heads of 80 or 128 columns, as Qwen2-VL has them; these have {kv.HeadDim}."),
        };
        var heads = q.Columns / kv.HeadDim;
        var few = kv.HeadDim == 128 && _program.Takes(q.Rows);
        var part = kv.HeadDim == 128 ? _kernels.AttendPart : null;
        var plan = Plan(work, heads / kv.Heads, few ? 0 : wide is null ? AttentionPlanner.TileRows : AttendWideKernel.Rows, part is not null);
        var (partialO, partialSum) = plan.Slots == 0
            ? (0, 0)
            : (Borrow(Scratch.PartialO, (long)plan.Slots * q.Columns * sizeof(float)), Borrow(Scratch.PartialLogSumExp, (long)plan.Slots * heads * sizeof(float)));
        var (perHead, scale) = (heads / kv.Heads, 1 / MathF.Sqrt(kv.HeadDim));
        var merge = new AttendMergeArgs(plan.Merges, plan.Parts, partialO, partialSum, o.Address, logSumExp.Address, heads, kv.HeadDim);
        if (few)
        {
            _program.Begin(q.Rows);
            var map = _program.Map(kv.Data.Address, checked((int)(kv.Data.Length / kv.HeadDim)), kv.HeadDim, KvLayer.BlockSize);
            _program.Add(StepKind.Attend).Attend = new AttendOp(map, kv.Data.Address, q.Address, plan.Tiles, partialO, partialSum, plan.TileCount, kv.Heads, perHead, scale);
            _program.Add(StepKind.Merge).Merge = new MergeOp(merge, plan.MergeCount);
            return;
        }

        var slots = checked((int)(kv.Data.Length / kv.HeadDim));
        if (wide is not null && plan.Slots == 0)
        {
            var (tileRows, rest) = (AttendWideKernel.Rows / perHead, kv.HeadDim - 64);
            var wideArgs = new WideArgs
            {
                Q = TensorMap.Queries(q.Address, q.Rows, kv.Heads, perHead, kv.HeadDim, tileRows, 64),
                QRest = TensorMap.Queries(q.Address, q.Rows, kv.Heads, perHead, kv.HeadDim, tileRows, rest),
                Kv = TensorMap.Tiles(kv.Data.Address, slots, kv.HeadDim, KvLayer.BlockSize),
                KvRest = TensorMap.Tiles(kv.Data.Address, slots, kv.HeadDim, KvLayer.BlockSize, rest),
                Blocks = work.Blocks.Address,
                Tiles = plan.Tiles,
                Runs = plan.Runs,
                O = o.Address,
                LogSumExp = logSumExp.Address,
                TileCount = plan.TileCount,
                Heads = kv.Heads,
                PerHead = perHead,
                TileRows = tileRows,
                Scale = scale,
            };
            wide.Kernel.Launch(Stream, wideArgs, Math.Min(plan.TileCount * kv.Heads, _context.Multiprocessors), 1, AttendWideKernel.Threads);
        }
        else if (part is not null)
        {
            var boxRows = AttentionPlanner.TileRows / perHead;
            var partArgs = new PartArgs
            {
                Q = TensorMap.Queries(q.Address, q.Rows, kv.Heads, perHead, kv.HeadDim, boxRows, 64),
                Kv = TensorMap.Tiles(kv.Data.Address, slots, kv.HeadDim, KvLayer.BlockSize),
                Tiles = plan.Tiles,
                PartialO = partialO,
                PartialLogSumExp = partialSum,
                Count = plan.TileCount,
                Heads = kv.Heads,
                PerHead = perHead,
                BoxRows = boxRows,
                Scale = scale,
            };
            part.Kernel.Launch(Stream, partArgs, Math.Min(plan.TileCount * kv.Heads, _context.Multiprocessors), 1, AttendPartKernel.Threads);
        }
        else
        {
            var args = new AttendArgs(
                q.Address, kv.Data.Address, work.Blocks.Address, plan.Tiles, plan.Runs, o.Address, logSumExp.Address, partialO, partialSum, kv.Heads, perHead, scale);
            kernel.Launch(Stream, args, plan.TileCount, kv.Heads, 128);
        }

        if (plan.MergeCount > 0)
        {
            _kernels.AttendMerge.Launch(Stream, merge, plan.MergeCount, (heads + 3) / 4, 128);
        }
    }

    // A work list is planned when its first layer is computed; the others go by the same plan. No wide rows: for programs, everything in parts. Parts are told of their pages of
    // keys themselves (`paged`) where Hopper's kernels go by them.
    private AttentionPlan Plan(AttentionWork work, int perHead, int wideRows, bool paged)
    {
        var plan = _plans.GetValue(work, _ => new AttentionPlan());
        if ((plan.Version, plan.PerHead, plan.WideRows, plan.Paged) != (work.Version, perHead, wideRows, paged))
        {
            if (plan.UsedIn == _program.Runs)
            {
                // What has been gathered goes by the old plan.
                _program.Run();
            }

            plan.Make(this, work, perHead, wideRows, paged);
        }

        plan.UsedIn = _program.Runs;

        return plan;
    }

    /// <summary>A planned work list in device memory.</summary>
    private sealed class AttentionPlan
    {
        private readonly AttentionPlanner _planner = new();
        private readonly List<StepTile> _stepTiles = [];
        private readonly Dictionary<int, int> _freshKeys = [];
        private int[] _host = [];
        private Storage? _storage;

        public int Version { get; private set; }

        public int PerHead { get; private set; }

        public int WideRows { get; private set; }

        public bool Paged { get; private set; }

        /// <summary>The program that last went by it.</summary>
        public int UsedIn { get; set; } = -1;

        public nint Tiles { get; private set; }

        public nint Runs { get; private set; }

        public nint Merges { get; private set; }

        public nint Parts { get; private set; }

        public int TileCount => _planner.Tiles.Count;

        public int MergeCount => _planner.Merges.Count;

        public int Slots => _planner.Slots;

        public void Make(CudaBackend backend, AttentionWork work, int perHead, int wideRows, bool paged)
        {
            _planner.Plan(work.HostItems, perHead, wideRows);
            _stepTiles.Clear();
            var pages = paged && Slots > 0;
            if (pages)
            {
                var known = FindFresh(work);
                foreach (var tile in _planner.Tiles)
                {
                    var (firstBlock, keys, limit, step) = _planner.Runs[tile.FirstRun];
                    var blocks = work.HostBlocks.Slice(firstBlock, (keys + KvLayer.BlockSize - 1) / KvLayer.BlockSize);
                    var count = FreshIn(blocks[0]) + (blocks.Length > 1 ? FreshIn(blocks[1]) : 0);
                    var last = count == 1 && step == 1 && limit == keys && tile.Rows == 1;
                    _stepTiles.Add(new StepTile(tile.Row, tile.Rows, tile.Slot, keys, limit, step, blocks[0], blocks[^1], !known ? -1 : count == 0 ? 0 : last ? 1 : -1));
                }
            }

            var total = (pages ? Ints<StepTile>(_stepTiles) : Ints<AttendTile>(_planner.Tiles) + Ints<AttendRun>(_planner.Runs)) + Ints<AttendMerge>(_planner.Merges) + _planner.Parts.Count;
            if (_storage is null || _storage.Bytes < (long)total * sizeof(int))
            {
                _storage?.Dispose();
                _storage = backend.CreateStorage(Math.Max(4096L, (long)total * 2 * sizeof(int)), "attention plans");
                _host = new int[_storage.Bytes / sizeof(int)];
            }

            var at = 0;
            Tiles = pages ? Add(_stepTiles) : Add(_planner.Tiles);
            Runs = pages ? 0 : Add(_planner.Runs);
            Merges = Add(_planner.Merges);
            Parts = Add(_planner.Parts);

            fixed (int* from = _host)
            {
                backend._stream.Upload((nint)from, _storage.Address, (long)total * sizeof(int));
            }

            (Version, PerHead, WideRows, Paged) = (work.Version, perHead, wideRows, paged);

            nint Add<T>(List<T> list)
                where T : unmanaged
            {
                var ints = MemoryMarshal.Cast<T, int>(CollectionsMarshal.AsSpan(list));
                ints.CopyTo(_host.AsSpan(at));
                at += ints.Length;
                return _storage.Address + ((at - ints.Length) * sizeof(int));
            }
        }

        // Keys that the rows themselves bring, by blocks: known where each row's is the last one that it sees of some item.
        private bool FindFresh(AttentionWork work)
        {
            _freshKeys.Clear();
            var (rows, bringing) = (0, 0);
            foreach (ref readonly var item in work.HostItems)
            {
                rows = Math.Max(rows, item.FirstRow + item.Rows);
                for (var key = item.Keys - (item.Causal * item.Rows); key < item.Keys; key++, bringing++)
                {
                    CollectionsMarshal.GetValueRefOrAddDefault(_freshKeys, work.HostBlocks[item.FirstBlock + (key / KvLayer.BlockSize)], out _)++;
                }
            }

            return rows == bringing;
        }

        private int FreshIn(int block) => _freshKeys.GetValueOrDefault(block);

        private static int Ints<T>(List<T> list)
            where T : unmanaged => list.Count * sizeof(T) / sizeof(int);
    }
}
