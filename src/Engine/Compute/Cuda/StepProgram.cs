using System.Runtime.InteropServices;
using LrIad.Interop;

namespace LrIad.Engine.Compute.Cuda;

/// <summary>
/// Operations on few rows, gathered until something else is to be done and then run as one kernel (native/kernels/step.cuh), which streams the weights of all of them
/// without a gap. A decode step is one such program, and as a rule the same as the one before: then nothing is uploaded.
/// </summary>
internal sealed unsafe class StepProgram : IDisposable
{
    private const int MapsTogether = 1024;

    /// <summary>Operations that a GPU with nothing to do is given at once; it works on them while the rest is being gathered.</summary>
    private const int FirstOperations = 48;

    private readonly CudaContext _context;
    private readonly StepKernel[] _kernels;
    private readonly Func<long, string, Storage> _create;
    private readonly Dictionary<(nint Address, int Rows, int Columns, int BoxRows), nint> _maps = [];
    private readonly Dictionary<(int Tiles, int Depth), Cut> _cuts = [];
    private readonly List<Storage> _kept = [];
    private readonly Storage? _arrived;
    private StepOp[] _ops = new StepOp[512];
    private readonly Sent _firstSent = new();
    private readonly Sent _restSent = new();
    private Storage? _partials;
    private Storage? _stats;
    private StepKernel? _kernel;
    private Pending? _pending;
    private int _count;
    private int _finished;
    private nint _bringing;
    private int _freeMaps;
    private nint _nextMap;

    /// <param name="context">The GPU.</param>
    /// <param name="kernels">The kernels, from the fewest rows up; none where the GPU cannot.</param>
    /// <param name="create">Takes memory.</param>
    public StepProgram(CudaContext context, StepKernel[] kernels, Func<long, string, Storage> create)
    {
        (_context, _kernels, _create) = (context, kernels, create);
        if (kernels.Length > 0)
        {
            // Zero when made; every run leaves it zero.
            Keep(_arrived = create(256, "step programs"));
        }
    }

    /// <summary>Whether there is anything to run.</summary>
    public bool IsEmpty => _count == 0 && _pending is null;

    /// <summary>Whether the GPU has nothing to do.</summary>
    public bool Idle { get; set; }

    /// <summary>Programs run so far: tells whether something that was gathered earlier has been run by now.</summary>
    public int Runs { get; private set; }

    private int Blocks => _context.Multiprocessors;

    /// <summary>Whether products of these sizes can be part of a program.</summary>
    public bool Takes(int rows, params ReadOnlySpan<int> inputs)
    {
        if (_kernels.Length == 0 || rows > _kernels[^1].Rows)
        {
            return false;
        }

        foreach (var count in inputs)
        {
            if (count % StepKernel.Depth != 0)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Sets the rows of the operations to come.</summary>
    public void Begin(int rows)
    {
        var kernel = Array.Find(_kernels, kernel => kernel.Rows >= rows)!;
        if (kernel != _kernel)
        {
            Run();
            _kernel = kernel;
        }
    }

    /// <summary>Sets the rows that bring the keys and values to come. A program has but one pass's, so that an attention's plan knows which of its keys are not there yet.</summary>
    public void Bring(nint rows)
    {
        if (_bringing != rows)
        {
            Run();
            _bringing = rows;
        }
    }

    /// <summary>x·Wᵀ for up to three matrices W, left as partial sums for the operation behind it.</summary>
    /// <param name="x">[rows, inputs].</param>
    /// <param name="rows">Rows of x.</param>
    /// <param name="inputs">Columns of x.</param>
    /// <param name="norm">What <see cref="Normalize"/> said of x, if x comes from there.</param>
    /// <param name="weights">[outputs, inputs] each.</param>
    public Sums Multiply(nint x, int rows, int inputs, Sums norm, params ReadOnlySpan<Tensor> weights) => Multiply(x, rows, inputs, norm, ProductFinish.Nothing, 0, weights);

    /// <summary>The same, where something may become of it at once.</summary>
    /// <param name="x">[rows, inputs].</param>
    /// <param name="rows">Rows of x.</param>
    /// <param name="inputs">Columns of x.</param>
    /// <param name="norm">What <see cref="Normalize"/> said of x, if x comes from there.</param>
    /// <param name="finish">What: gated, it is silu(x·Wᵀ of the first matrix) · x·Wᵀ of the second as bfloat16; else x·Wᵀ of the only one as floats.</param>
    /// <param name="y">Where that goes.</param>
    /// <param name="weights">[outputs, inputs] each.</param>
    public Sums Multiply(nint x, int rows, int inputs, Sums norm, ProductFinish finish, nint y, params ReadOnlySpan<Tensor> weights)
    {
        Settle();
        // Half of a piece's boxes are for more inputs, of what is gated, or more outputs.
        var (deep, gated) = (finish == ProductFinish.Nothing, finish == ProductFinish.Gated);
        const int half = StepKernel.Boxes / 2;
        var boxes = deep || gated ? half : StepKernel.Boxes;
        var boxRows = deep ? StepKernel.BoxRows : BoxRows(weights[0].Rows, boxes);
        var (depth, tileRows) = (Pieces(inputs, StepKernel.Depth * (deep ? half : 1)), boxes * boxRows);
        var tiles = 0;
        Span<int> firstTiles = [0, int.MaxValue, int.MaxValue];
        Span<nint> maps = [0, 0, 0];
        for (var i = 0; i < weights.Length; i++)
        {
            maps[i] = Map(weights[i].Address, weights[i].Rows, inputs, boxRows);
            // A gated product's tiles have rows of both.
            if (i == 0 || !gated)
            {
                firstTiles[i] = tiles;
                tiles += Pieces(weights[i].Rows, tileRows);
            }
        }

        var whole = deep ? 0 : tiles / Blocks;
        var shared = tiles - (whole * Blocks);
        var cut = CutOf(shared, depth);
        var partials = Grow(ref _partials, (long)Math.Max(cut.Segments, 1) * _kernel!.Rows * StepKernel.Boxes * StepKernel.MostBoxRows * sizeof(float), "partial sums of products");
        var sums = norm with { Partials = partials, TileSegment = cut.TileSegment };
        ref var op = ref Add(StepKind.Product);
        op.Product = new ProductOp(
            maps[0], maps[1], maps[2], Map(x, rows, inputs, _kernel.Rows), cut.FirstPiece, cut.FirstSegment, sums, y, firstTiles[1], firstTiles[2], depth, rows, finish, weights[0].Rows, whole, shared, _finished, boxRows);
        _finished += finish == ProductFinish.Nothing ? 0 : 1;
        return sums;
    }

    /// <summary>y = x + sums; if a norm of y comes next, as a part of it.</summary>
    public void AddTo(nint x, Sums sums, nint y, int rows, int columns)
    {
        Settle();
        _pending = new Pending(sums, x, y, rows, columns);
    }

    /// <summary>
    /// y = x · weight of the rows themselves or of those that <paramref name="extra"/> gathers; it also carries the low-rank half of an adapter. The rest of the norm is a
    /// factor of what y is multiplied to, which comes back.
    /// </summary>
    public Sums Normalize(nint x, int columns, Norm norm, nint y, int rows, ResidualOp extra)
    {
        var pending = extra.Gather == 0 && _pending is { } waiting && (waiting.Y, waiting.Rows, waiting.Columns) == (x, rows, columns) ? _pending : null;
        if (pending is null)
        {
            Settle();
        }

        var (tiles, width) = (Pieces(columns, StepKernel.Columns), 1 + (2 * extra.Rank));
        var stats = Grow(ref _stats, (long)rows * tiles * width * sizeof(float), "norms");
        _pending = null;
        Add(StepKind.Residual).Residual = extra with
        {
            Sums = pending?.Sums ?? default,
            X = pending?.X ?? x,
            Result = pending?.Y ?? 0,
            Weight = norm.Weight.Address,
            Y = y,
            Stats = stats,
            Count = rows,
            Columns = columns,
        };
        return new Sums { Stats = stats, StatTiles = tiles, StatWidth = width, InverseColumns = 1f / columns, Epsilon = norm.Epsilon };
    }

    /// <summary>Adds an operation, to be filled in.</summary>
    public ref StepOp Add(StepKind kind)
    {
        Settle();
        if (Idle && _count == FirstOperations)
        {
            RunOps();
        }

        if (_count == _ops.Length)
        {
            Array.Resize(ref _ops, 2 * _count);
        }

        ref var op = ref _ops[_count++];
        op = new StepOp { Kind = kind, Index = _count - 1 };
        return ref op;
    }

    /// <summary>Runs what has been gathered.</summary>
    public void Run()
    {
        Settle();
        RunOps();
    }

    private void RunOps()
    {
        if (_count == 0)
        {
            return;
        }

        _context.MakeCurrent();
        var sent = Idle ? _firstSent : _restSent;
        var ops = _ops.AsSpan(0, _count);
        if (sent.Operations is null || sent.Operations.Bytes < (long)_count * sizeof(StepOp))
        {
            sent.Operations?.Dispose();
            sent.Operations = _create(_ops.Length * sizeof(StepOp), "step programs");
            (sent.Copy, sent.Count) = (new StepOp[_ops.Length], 0);
        }

        if (!MemoryMarshal.AsBytes(ops).SequenceEqual(MemoryMarshal.AsBytes(sent.Copy.AsSpan(0, sent.Count))))
        {
            fixed (StepOp* from = ops)
            {
                _context.Stream.Upload((nint)from, sent.Operations.Address, (long)_count * sizeof(StepOp));
            }

            ops.CopyTo(sent.Copy);
            sent.Count = _count;
        }

        var count = _count;
        (_count, _finished) = (0, 0);
        Idle = false;
        Runs++;
        _kernel!.Kernel.Launch(_context.Stream, new StepArgs(sent.Operations.Address, _arrived!.Address, count), Blocks, 1, StepKernel.Threads);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _firstSent.Operations?.Dispose();
        _restSent.Operations?.Dispose();
        _partials?.Dispose();
        _stats?.Dispose();
        _kept.ForEach(storage => storage.Dispose());
    }

    private void Settle()
    {
        if (_pending is { } pending)
        {
            _pending = null;
            Add(StepKind.Residual).Residual = new ResidualOp { Sums = pending.Sums, X = pending.X, Result = pending.Y, Count = pending.Rows, Columns = pending.Columns };
        }
    }

    // One buffer for all: what one operation leaves is used up before the next of its kind begins.
    private nint Grow(ref Storage? storage, long bytes, string purpose)
    {
        if (storage is null || storage.Bytes < bytes)
        {
            var waiting = _pending;
            _pending = null;
            RunOps();
            _pending = waiting;
            storage?.Dispose();
            storage = null;
            storage = _create(bytes, purpose);
        }

        return storage.Address;
    }

    private void Keep(Storage storage) => _kept.Add(storage);

    private static int Pieces(int count, int size) => (count + size - 1) / size;

    // The size of boxes that leaves blocks fewer tiles to share.
    private int BoxRows(int outputs, int boxes)
    {
        int Shared(int boxRows) => Pieces(outputs, boxes * boxRows) % Blocks;
        return Shared(StepKernel.MostBoxRows) < Shared(StepKernel.BoxRows) ? StepKernel.MostBoxRows : StepKernel.BoxRows;
    }

    /// <summary>What the copy engine has to know of a matrix; it reads that from device memory.</summary>
    public nint Map(nint address, int rows, int columns, int boxRows)
    {
        if (!_maps.TryGetValue((address, rows, columns, boxRows), out var place))
        {
            if (_freeMaps == 0)
            {
                var storage = _create(MapsTogether * sizeof(TensorMap), "maps of weights");
                Keep(storage);
                (_freeMaps, _nextMap) = (MapsTogether, storage.Address);
            }

            (place, _nextMap, _freeMaps) = (_nextMap, _nextMap + sizeof(TensorMap), _freeMaps - 1);
            var map = TensorMap.Tiles(address, rows, columns, boxRows);
            _context.Stream.Upload((nint)(&map), place, sizeof(TensorMap));
            _maps.Add((address, rows, columns, boxRows), place);
        }

        return place;
    }

    // Equal runs of pieces of some tiles for all blocks. Where a run or a tile ends a segment does.
    private Cut CutOf(int tiles, int depth)
    {
        if (_cuts.TryGetValue((tiles, depth), out var cut))
        {
            return cut;
        }

        var (blocks, pieces) = (Blocks, tiles * depth);
        var firstPiece = Enumerable.Range(0, blocks + 1).Select(block => (int)((long)block * pieces / blocks)).ToArray();
        var starts = firstPiece.SkipLast(1).Concat(Enumerable.Range(0, tiles).Select(tile => tile * depth)).Where(piece => piece < pieces).Distinct().Order().ToArray();
        int Segment(int piece) => piece == pieces ? starts.Length : Array.BinarySearch(starts, piece);
        int[] ints = [.. firstPiece, .. firstPiece.SkipLast(1).Select(Segment), .. Enumerable.Range(0, tiles + 1).Select(tile => Segment(tile * depth))];
        var storage = _create((long)ints.Length * sizeof(int), "how products are cut");
        Keep(storage);
        fixed (int* from = ints)
        {
            _context.Stream.Upload((nint)from, storage.Address, (long)ints.Length * sizeof(int));
        }

        var firstSegment = storage.Address + ((blocks + 1) * sizeof(int));
        cut = new Cut(storage.Address, firstSegment, firstSegment + (blocks * sizeof(int)), starts.Length);
        _cuts.Add((tiles, depth), cut);
        return cut;
    }

    /// <summary>Operations on the device, and what they are.</summary>
    private sealed class Sent
    {
        public Storage? Operations { get; set; }

        public StepOp[] Copy { get; set; } = [];

        public int Count { get; set; }
    }

    private readonly record struct Pending(Sums Sums, nint X, nint Y, int Rows, int Columns);

    private sealed record Cut(nint FirstPiece, nint FirstSegment, nint TileSegment, int Segments);
}
