using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Rows before the start of attention: random weights, factors, positions and scattered slots; every third row has its adapter switched off.</summary>
internal sealed class QkvCase
{
    private const float Untouched = 7f;

    private readonly NormCase _norm;
    private readonly LinearCase _query;
    private readonly LinearCase _key;
    private readonly LinearCase _value;
    private readonly Rotary _rotary;

    public QkvCase(int rows, int hidden, int heads, int perHead, int headDim, int rank, float dropout, ElementType type, int seed, NormKind kind = NormKind.RootMeanSquare)
    {
        var random = new Random(seed);
        (RowCount, Hidden, Heads, PerHead, HeadDim, Rank) = (rows, hidden, heads, perHead, headDim, rank);
        (Queries, Keys) = (heads * perHead * headDim, heads * headDim);
        Dropout = new Dropout(dropout, 123456789012345, 5, 2);
        X = Reference.Normal(random, rows * hidden, 2f);
        _norm = new NormCase(random, kind, hidden, type);
        _query = new LinearCase(random, hidden, Queries, type);
        _key = new LinearCase(random, hidden, Keys, type);
        _value = new LinearCase(random, hidden, Keys, type);
        _rotary = new Rotary(
            headDim, [.. Enumerable.Range(0, headDim / 2).Select(_ => random.Next(3))], [.. Enumerable.Range(0, headDim / 2).Select(i => 1f / MathF.Pow(10_000f, 2f * i / headDim))]);
        Factors = rank == 0 ? [] :
        [
            Reference.Normal(random, rank * hidden, 1 / MathF.Sqrt(hidden)), Reference.Normal(random, Queries * rank, 0.5f),
            Reference.Normal(random, rank * hidden, 1 / MathF.Sqrt(hidden)), Reference.Normal(random, Keys * rank, 0.5f),
        ];

        Blocks = (rows / 40) + 2;
        var slots = Enumerable.Range(0, Blocks * KvLayer.BlockSize).ToArray();
        random.Shuffle(slots);
        Rows = [.. Enumerable.Range(0, rows).Select(row => new TokenRow(
            random.Next(2000), random.Next(2000), random.Next(2000), slots[row], row % 3 == 1 ? 0 : 1, (uint)random.Next(), (uint)random.Next(500)))];
    }

    public int RowCount { get; }

    public int Hidden { get; }

    public int Heads { get; }

    public int PerHead { get; }

    public int HeadDim { get; }

    public int Rank { get; }

    /// <summary>Whether the backward pass finds the forward pass's mask.</summary>
    public bool KeepMask { get; init; }

    /// <summary>Columns of the queries.</summary>
    public int Queries { get; }

    /// <summary>Columns of the keys, and of the values.</summary>
    public int Keys { get; }

    public int Blocks { get; }

    public Dropout Dropout { get; }

    public float[] X { get; }

    public TokenRow[] Rows { get; }

    /// <summary>A and B of the query, then of the value; empty without an adapter.</summary>
    public float[][] Factors { get; }

    /// <summary>The listed rows, in that order, as a batch of operands.</summary>
    public QkvOperands On(Device device, int[] rows)
    {
        var kv = new float[Blocks * KvLayer.BlockColumns(Heads, HeadDim)];
        Array.Fill(kv, Untouched);
        return new QkvOperands(
            device.Put(Matrix.Rows(X, Hidden, rows), rows.Length), new QkvWeights(_norm.On(device), _query.On(device), _key.On(device), _value.On(device)),
            Adapter(device, Factors), Dropout, _rotary, device.Put(rows.Select(row => Rows[row]).ToArray()),
            device.New(rows.Length, Queries), new KvLayer(device.Put(kv, Blocks), Heads, HeadDim), Rank > 0 ? device.New(rows.Length, 2 * Rank, ElementType.Float32) : default,
            KeepMask ? device.New<uint>(2 * rows.Length * ((Hidden + 31) / 32)) : default);
    }

    public QkvOperands On(Device device) => On(device, [.. Enumerable.Range(0, RowCount)]);

    public AdapterLayer? Adapter(Device device, float[][] factors) => factors.Length == 0 ? null : new AdapterLayer(
        new LowRank(device.Put(factors[0], Rank, ElementType.Float32), device.Put(factors[1], Queries, ElementType.Float32)), new LowRank(device.Put(factors[2], Rank, ElementType.Float32), device.Put(factors[3], Keys, ElementType.Float32)));

    /// <summary>Rotated queries, rotated keys, values, and A·x of query then value, of all rows.</summary>
    public (double[] Q, double[] K, double[] V, double[] LowRank) Oracle(double[] x, double[][] factors)
    {
        var normed = LayerOracle.Norm(_norm, x);
        var (q, k, v) = (LayerOracle.Linear(_query, normed), LayerOracle.Linear(_key, normed), LayerOracle.Linear(_value, normed));
        var lowRank = new double[RowCount * 2 * Rank];
        if (factors.Length > 0)
        {
            Update(0, factors[0], factors[1], q);
            Update(1, factors[2], factors[3], v);
        }

        Turn(q);
        Turn(k);
        return (q, k, v, lowRank);

        void Update(int projection, double[] a, double[] b, double[] y)
        {
            for (var row = 0; row < RowCount; row++)
            {
                if (Rows[row].Adapter == 0)
                {
                    continue;
                }

                var mask = new float[Hidden];
                Philox.DropoutMask(Dropout, projection, Rows[row].DropoutId, Rows[row].DropoutPosition, mask);
                var low = LayerOracle.Product([.. normed.Skip(row * Hidden).Take(Hidden).Zip(mask, (value, kept) => value * kept)], a, Hidden);
                low.CopyTo(lowRank, ((row * 2) + projection) * Rank);
                var update = LayerOracle.Product(low, b, Rank);
                for (var i = 0; i < update.Length; i++)
                {
                    y[(row * update.Length) + i] += update[i];
                }
            }
        }

        void Turn(double[] heads)
        {
            for (var at = 0; at < heads.Length; at += HeadDim)
            {
                LayerOracle.Turn(heads.AsSpan(at, HeadDim), _rotary, Rows[at / (heads.Length / RowCount)]);
            }
        }
    }

    /// <summary>Puts keys and values where the slots of the listed rows are: [block][K|V][head][slot in block][column]. Other slots hold what they held.</summary>
    public float[] InSlots(float[] k, float[] v, int[] rows)
    {
        var cache = new float[Blocks * KvLayer.BlockColumns(Heads, HeadDim)];
        Array.Fill(cache, Untouched);
        foreach (var row in rows)
        {
            for (var head = 0; head < Heads; head++)
            {
                var block = Rows[row].Slot / KvLayer.BlockSize * KvLayer.BlockColumns(Heads, HeadDim);
                var at = block + (((head * KvLayer.BlockSize) + (Rows[row].Slot % KvLayer.BlockSize)) * HeadDim);
                k.AsSpan((row * Keys) + (head * HeadDim), HeadDim).CopyTo(cache.AsSpan(at));
                v.AsSpan((row * Keys) + (head * HeadDim), HeadDim).CopyTo(cache.AsSpan(at + (Heads * KvLayer.BlockSize * HeadDim)));
            }
        }

        return cache;
    }
}

internal sealed record QkvOperands(
    Tensor X, QkvWeights Weights, AdapterLayer? Adapter, Dropout Dropout, Rotary Rotary, View<TokenRow> Rows, Tensor Q, KvLayer Kv, Tensor LowRank, View<uint> Mask)
{
    public void Forward(Device device) => device.Backend.ProjectQkv(X, Weights, Adapter, Dropout, Rotary, Rows, Q, Kv, LowRank, Mask);

    public void Backward(Device device, Tensor dq, Tensor dKv, Tensor dy, Tensor dx, AdapterLayer? gradient) =>
        device.Backend.ProjectQkvBackward(X, Weights, Adapter, Dropout, Rotary, Rows, LowRank, dq, Kv with { Data = dKv }, dy, dx, gradient, mask: Mask);
}
