using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>Where a model's weights come from.</summary>
internal interface IWeights : IDisposable
{
    /// <summary>The part before the last names of whichever of the names exists.</summary>
    string Prefix(params string[] names);

    /// <summary>A weight of a given shape, in the backend's memory, bfloat16: a vector as one row, more than two dimensions as [first, all others].</summary>
    Tensor Get(string name, params int[] shape);

    /// <summary>Matrices of as many columns (0: vectors) that are used together, one behind the other in memory where the backend has a use for that.</summary>
    Tensor[] Get(int columns, params (string Name, int Rows)[] matrices);
}

/// <summary>Weights that mean nothing, for measuring how fast a model of some size runs: normal values of the usual scale, norms of one.</summary>
internal sealed class RandomWeights : IWeights
{
    private const int PoolValues = 1 << 22;

    private readonly Backend _backend;
    private readonly Arena _arena;
    private readonly Tensor _pool;
    private long _next;

    public RandomWeights(Backend backend, int seed)
    {
        _backend = backend;
        _arena = backend.CreateArena("random weights");
        _pool = _arena.Allocate(ElementType.BFloat16, 1, PoolValues);
        var random = new Random(seed);
        var values = new float[PoolValues];
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = 0.02f * MathF.Sqrt(-2 * MathF.Log(1 - random.NextSingle())) * MathF.Cos(MathF.Tau * random.NextSingle());
        }

        backend.Upload(values, _pool);
    }

    public string Prefix(params string[] names) => "";

    public Tensor Get(string name, params int[] shape)
    {
        var tensor = shape.Length == 1
            ? _arena.Allocate(ElementType.BFloat16, 1, shape[0])
            : _arena.Allocate(ElementType.BFloat16, shape[0], shape[1..].Aggregate(1, (product, size) => product * size));
        if (shape.Length == 1 && (name.Contains("norm", StringComparison.Ordinal) || name.Contains("ln_q", StringComparison.Ordinal)) && name.EndsWith("weight", StringComparison.Ordinal))
        {
            var ones = new float[tensor.Length];
            Array.Fill(ones, 1f);
            _backend.Upload(ones, tensor);
            return tensor;
        }

        // A run of the pool after another, each from another place.
        for (long done = 0; done < tensor.Length;)
        {
            var from = (int)(_next % (PoolValues / 2));
            var count = (int)Math.Min(tensor.Length - done, PoolValues - from);
            _backend.Copy(Part(_pool, from, count), Part(tensor, done, count));
            done += count;
            _next += 1_000_008;
        }

        return tensor;
    }

    public Tensor[] Get(int columns, params (string Name, int Rows)[] matrices)
    {
        var total = matrices.Sum(matrix => matrix.Rows);
        var (all, row) = (columns == 0 ? Get(matrices[0].Name, total).Reshape(total, 1) : Get(matrices[0].Name, total, columns), 0);
        Tensor Next(int rows) => columns == 0 ? all.Slice((row += rows) - rows, rows).Reshape(1, rows) : all.Slice((row += rows) - rows, rows);
        return [.. matrices.Select(matrix => Next(matrix.Rows))];
    }

    public void Dispose() => _arena.Dispose();

    private static Tensor Part(Tensor tensor, long first, int count) => tensor with { Offset = tensor.Offset + (first * tensor.ElementBytes), Rows = 1, Columns = count };
}
