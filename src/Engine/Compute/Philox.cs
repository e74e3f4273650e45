using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace LrIad.Engine.Compute;

/// <summary>
/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter in, four random words out. Every draw of a run is a
/// function of (seed, what, where), so it is the same alone or in any batch, on either backend, before or after a resume.
/// <para>
/// A long row of words (one for every token of the vocabulary, one for every channel) is laid out for eight lanes: word i of the row is word (i / 8) mod 4
/// of the block with first counter (i / 32)·8 + i mod 8.
/// </para>
/// </summary>
internal static class Philox
{
    private const uint M0 = 0xD2511F53;
    private const uint M1 = 0xCD9E8D57;
    private const uint W0 = 0x9E3779B9;
    private const uint W1 = 0xBB67AE85;

    // Streams differ in the key's upper half, so that a dropout mask never coincides with a draw.
    private const ulong DropoutStream = 0x44524F50_00000000;
    private const ulong ShuffleStream = 0x53485546_00000000;

    /// <summary>Words in one call of <see cref="Words32"/>.</summary>
    public const int WordsAtATime = 32;

    /// <summary>The block of four words for counter (c0, c1, c2, c3) under a 64-bit key.</summary>
    public static (uint X0, uint X1, uint X2, uint X3) Block(ulong key, uint c0, uint c1, uint c2, uint c3)
    {
        var (k0, k1) = ((uint)key, (uint)(key >> 32));
        for (var round = 0; round < 10; round++)
        {
            var p0 = (ulong)M0 * c0;
            var p1 = (ulong)M1 * c2;
            (c0, c1, c2, c3) = ((uint)(p1 >> 32) ^ c1 ^ k0, (uint)p1, (uint)(p0 >> 32) ^ c3 ^ k1, (uint)p0);
            k0 += W0;
            k1 += W1;
        }

        return (c0, c1, c2, c3);
    }

    /// <summary>A uniform number below <paramref name="bound"/> for shuffling: draw <paramref name="index"/> of shuffle <paramref name="stream"/>.</summary>
    public static int Below(int bound, ulong seed, uint stream, uint index)
    {
        var (high, low, _, _) = Block(seed ^ ShuffleStream, index, stream, 0, 0);
        return (int)Math.BigMul(((ulong)high << 32) | low, (ulong)bound, out _);
    }

    /// <summary>LoRA dropout: 0 or 1 / (1 − p) for each channel. Counter (channel block + layer and projection · 2¹⁸, row position, row id, step).</summary>
    /// <param name="dropout">p, seed, step and layer.</param>
    /// <param name="projection">0: query, 1: value.</param>
    /// <param name="rowId">Prompt or completion.</param>
    /// <param name="rowPosition">Position in it.</param>
    /// <param name="mask">Out, a channel each.</param>
    public static void DropoutMask(in Dropout dropout, int projection, uint rowId, uint rowPosition, Span<float> mask)
    {
        var (key, counter, threshold) = DropoutCounters(dropout);
        var kept = 1f / (1f - dropout.Probability);
        var first = counter + ((uint)projection << 18);
        Span<uint> words = stackalloc uint[WordsAtATime];
        for (var i = 0; i < mask.Length; i += WordsAtATime)
        {
            Words32(key, first + (uint)(i / 4), rowPosition, rowId, (uint)dropout.Step, words);
            var j = 0;
            for (; j < WordsAtATime && i + j + 8 <= mask.Length; j += 8)
            {
                var dropped = Vector256.LessThan(Vector256.Create<uint>(words.Slice(j, 8)), Vector256.Create(threshold));
                Vector256.AndNot(Vector256.Create(kept), dropped.AsSingle()).CopyTo(mask.Slice(i + j, 8));
            }

            for (; j < WordsAtATime && i + j < mask.Length; j++)
            {
                mask[i + j] = words[j] < threshold ? 0f : kept;
            }
        }
    }

    /// <summary>What a backend that draws masks itself needs: the key, the first counter of the query's channels (the value's is 2¹⁸ on), and below which word a channel is dropped.</summary>
    public static (ulong Key, uint Counter, uint Threshold) DropoutCounters(in Dropout dropout) =>
        (dropout.Seed ^ DropoutStream, (uint)(dropout.Layer * 2) << 18, (uint)Math.Min(uint.MaxValue, (double)dropout.Probability * 4294967296.0));

    /// <summary>32 words of a row: those of the eight blocks with first counters <paramref name="c0"/> to c0 + 7, in the row's order.</summary>
    [SkipLocalsInit]
    public static void Words32(ulong key, uint c0, uint c1, uint c2, uint c3, Span<uint> words)
    {
        if (!Avx2.IsSupported)
        {
            for (var lane = 0; lane < 8; lane++)
            {
                (words[lane], words[lane + 8], words[lane + 16], words[lane + 24]) = Block(key, c0 + (uint)lane, c1, c2, c3);
            }

            return;
        }

        var (k0, k1) = ((uint)key, (uint)(key >> 32));
        var x0 = Vector256.Create(c0) + Vector256.Create(0u, 1, 2, 3, 4, 5, 6, 7);
        var x1 = Vector256.Create(c1);
        var x2 = Vector256.Create(c2);
        var x3 = Vector256.Create(c3);
        for (var round = 0; round < 10; round++)
        {
            var (high0, low0) = Multiply(x0, M0);
            var (high1, low1) = Multiply(x2, M1);
            x0 = high1 ^ x1 ^ Vector256.Create(k0);
            x1 = low1;
            x2 = high0 ^ x3 ^ Vector256.Create(k1);
            x3 = low0;
            k0 += W0;
            k1 += W1;
        }

        x0.CopyTo(words);
        x1.CopyTo(words[8..]);
        x2.CopyTo(words[16..]);
        x3.CopyTo(words[24..]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (Vector256<uint> High, Vector256<uint> Low) Multiply(Vector256<uint> x, uint by)
    {
        var m = Vector256.Create(by);
        var even = Avx2.Multiply(x, m).AsUInt32();
        var odd = Avx2.Multiply(Vector256.ShiftRightLogical(x.AsUInt64(), 32).AsUInt32(), m).AsUInt32();
        var high = Avx2.Blend(Vector256.ShiftRightLogical(even.AsUInt64(), 32).AsUInt32(), odd, 0b10101010);
        var low = Avx2.Blend(even, Vector256.ShiftLeft(odd.AsUInt64(), 32).AsUInt32(), 0b10101010);
        return (high, low);
    }

    /// <summary>
    /// Gumbel noise of a word, −ln E with E exponential: the token with the largest logit + noise is a draw from the soft-max. E = −ln(1 − v),
    /// v = (word / 2 + ½)·2⁻³¹; winners have small E, so below 2⁻¹² it is v + v²/2, which keeps v's full resolution. All in float32 with the fused
    /// multiply-adds written out, so that any backend gets the same bits.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Gumbel(Vector256<uint> words)
    {
        var half = Vector256.ConvertToSingle(Vector256.ShiftRightLogical(words, 1).AsInt32());
        var v = (half + Vector256.Create(0.5f)) * Vector256.Create(4.656612873e-10f);
        v = Vector256.Min(v, Vector256.Create(0.99999994f));
        var small = Vector256.FusedMultiplyAdd(v * v, Vector256.Create(0.5f), v);
        var large = -Log(Vector256<float>.One - v);
        var exponential = Vector256.ConditionalSelect(Vector256.LessThan(v, Vector256.Create(1f / 4096)), small, large);
        return -Log(exponential);
    }

    /// <summary>
    /// ln x for positive, normal x: x = m·2ᵉ with √½ ≤ m &lt; √2, then a polynomial of degree 9 in m − 1. The one logarithm of all draws.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Log(Vector256<float> x)
    {
        // Adding the distance from √½ to 1 carries into the exponent exactly where the mantissa exceeds √2.
        var shifted = x.AsInt32() + Vector256.Create(0x3F800000 - 0x3F3504F3);
        var exponent = Vector256.ConvertToSingle(Vector256.ShiftRightArithmetic(shifted, 23) - Vector256.Create(127));
        var m = ((shifted & Vector256.Create(0x007FFFFF)) + Vector256.Create(0x3F3504F3)).AsSingle() - Vector256<float>.One;
        var p = Vector256.Create(7.0376836292e-2f);
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(-1.1514610310e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(1.1676998740e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(-1.2420140846e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(1.4249322787e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(-1.6668057665e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(2.0000714765e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(-2.4999993993e-1f));
        p = Vector256.FusedMultiplyAdd(p, m, Vector256.Create(3.3333331174e-1f));
        var square = m * m;
        var result = p * (square * m);
        result = Vector256.FusedMultiplyAdd(exponent, Vector256.Create(-2.12194440e-4f), result);
        result = Vector256.FusedMultiplyAdd(square, Vector256.Create(-0.5f), result);
        result = m + result;
        return Vector256.FusedMultiplyAdd(exponent, Vector256.Create(0.693359375f), result);
    }
}
