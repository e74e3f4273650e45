using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

/// <summary>Every element is one chain of fused multiply-adds over k = 0, 1, 2 …, so a product is compared with that chain bit for bit.</summary>
internal sealed unsafe class MatMulTests
{
    [Test]
    public void A_product_is_the_chain_of_fused_multiply_adds([Range(0, 39)] int seed)
    {
        var random = new Random(seed);
        var (m, n, k) = (Size(random, 40, 700), Size(random, 70, 300), Size(random, 40, 1300));
        var (byColumn, transposed, type) = (random.Next(3) == 0, random.Next(2) == 0, random.Next(2) == 0 ? ElementType.BFloat16 : ElementType.Float32);
        using var device = new Device(1 + (seed % 3));
        var a = Reference.Normal(random, m * k, 1f);
        var b = Matrix.Rounded(Reference.Normal(random, k * n, 1f), type);
        var bias = random.Next(2) == 0 ? Reference.Normal(random, n, 1f) : null;
        var residual = random.Next(2) == 0 ? Reference.Normal(random, m * n, 1f) : null;
        var expected = Chain(a, byColumn, b, transposed, bias, residual, m, n, k);

        // The result lies between values that must stay, with a gap between its rows.
        var stride = n + random.Next(20);
        var c = device.Put([.. Enumerable.Repeat(5f, (m + 2) * stride)], m + 2);
        var at = (float*)c.Address + stride;
        var left = byColumn ? new Left((float*)device.Put(a, k).Address, 1, m) : new Left((float*)device.Put(a, m).Address, k);
        var right = new Right((void*)device.Put(b, 1, type).Address, transposed ? k : n, transposed, type == ElementType.BFloat16);
        var inPlace = residual is not null && random.Next(2) == 0;
        for (var row = 0; inPlace && row < m; row++)
        {
            residual.AsSpan(row * n, n).CopyTo(new Span<float>(at + (row * stride), n));
        }

        var start = new Start(
            bias is null ? null : (float*)device.Put(bias, 1).Address,
            residual is null ? null : inPlace ? at : (float*)device.Put(residual, m).Address, inPlace ? stride : n);
        Multiply(device, left, right, start, at, stride, m, n, k, alone: seed % 4 == 3);

        var result = device.Get(c);
        var wrong = 0;
        for (var i = 0; i < result.Length; i++)
        {
            var (row, column) = ((i / stride) - 1, i % stride);
            var should = row >= 0 && row < m && column < n ? expected[(row * n) + column] : 5f;
            wrong += BitConverter.SingleToInt32Bits(result[i]) == BitConverter.SingleToInt32Bits(should) ? 0 : 1;
        }

        Assert.That(wrong, Is.Zero, $"[{m}, {k}] x [{k}, {n}]");
    }

    [Test]
    public void A_product_over_nothing_is_what_it_starts_from()
    {
        using var device = new Device();
        var c = device.Put([9f, 9f, 9f, 9f, 9f, 9f], 2);
        Multiply(device, new Left(null, 0), new Right(null, 0, false, false), new Start((float*)device.Put([1f, 2f, 3f], 1).Address), (float*)c.Address, 3, 2, 3, 0, alone: false);
        Assert.That(device.Get(c), Is.EqualTo([1f, 2f, 3f, 1f, 2f, 3f]));
    }

    // Mostly small, with all remainders of a tile; sometimes beyond what one task or one pass over the depth takes.
    private static int Size(Random random, int small, int large) => random.Next(4) == 0 ? random.Next(1, large) : random.Next(1, small);

    private static void Multiply(Device device, Left a, Right b, Start start, float* c, long stride, int m, int n, int k, bool alone)
    {
        using var threads = new CpuThreads(((Compute.Cpu.CpuBackend)device.Backend).ThreadCount);
        var scratch = stackalloc float*[threads.Count];
        for (var worker = 0; worker < threads.Count; worker++)
        {
            scratch[worker] = (float*)device.New(1, MatMul.ScratchFloats).Address;
        }

        if (alone)
        {
            MatMul.Block(scratch[0], a, b, start, c, stride, m, n, k);
        }
        else
        {
            MatMul.Run(threads, scratch, a, b, start, c, stride, m, n, k);
        }
    }

    private static float[] Chain(float[] a, bool byColumn, float[] b, bool transposed, float[]? bias, float[]? residual, int m, int n, int k)
    {
        var c = new float[m * n];
        for (var row = 0; row < m; row++)
        {
            for (var column = 0; column < n; column++)
            {
                var sum = (bias, residual) switch
                {
                    (null, null) => 0f,
                    (null, _) => residual[(row * n) + column],
                    (_, null) => bias[column],
                    _ => residual[(row * n) + column] + bias[column],
                };
                for (var i = 0; i < k; i++)
                {
                    sum = MathF.FusedMultiplyAdd(a[byColumn ? (i * m) + row : (row * k) + i], b[transposed ? (column * k) + i : (i * n) + column], sum);
                }

                c[(row * n) + column] = sum;
            }
        }

        return c;
    }
}
