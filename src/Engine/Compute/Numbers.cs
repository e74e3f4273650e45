using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute;

/// <summary>Conversions between float32 and bfloat16, and what to say when a model's output is none.</summary>
internal static unsafe class Numbers
{
    /// <summary>The nearest bfloat16, ties to even; NaN stays NaN.</summary>
    public static ushort ToBFloat16(float value)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        return float.IsNaN(value) ? (ushort)((bits >> 16) | 0x40) : (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }

    /// <summary>The float32 of the same value.</summary>
    public static float FromBFloat16(ushort bits) => BitConverter.UInt32BitsToSingle((uint)bits << 16);

    /// <summary>Rounds a run of floats, each as <see cref="ToBFloat16(float)"/> does.</summary>
    internal static void ToBFloat16(ReadOnlySpan<float> source, Span<ushort> destination)
    {
        var i = 0;
        for (; i + 16 <= source.Length; i += 16)
        {
            Vector256.Narrow(Rounded(Vector256.Create(source[i..])), Rounded(Vector256.Create(source[(i + 8)..]))).CopyTo(destination[i..]);
        }

        for (; i < source.Length; i++)
        {
            destination[i] = ToBFloat16(source[i]);
        }

        static Vector256<uint> Rounded(Vector256<float> values)
        {
            var bits = values.AsUInt32();
            var upper = Vector256.ShiftRightLogical(bits, 16);
            var nearest = Vector256.ShiftRightLogical(bits + Vector256.Create(0x7FFFu) + (upper & Vector256<uint>.One), 16);
            return Vector256.ConditionalSelect(Vector256.Equals(values, values).AsUInt32(), nearest, upper | Vector256.Create(0x40u));
        }
    }

    /// <summary>Widens a run of bfloat16.</summary>
    internal static void FromBFloat16(ushort* source, Span<float> destination)
    {
        var i = 0;
        for (; i + 8 <= destination.Length; i += 8)
        {
            Vector256.ShiftLeft(Vector256.WidenLower(Vector128.Load(source + i).ToVector256Unsafe()), 16).AsSingle().CopyTo(destination[i..]);
        }

        for (; i < destination.Length; i++)
        {
            destination[i] = FromBFloat16(source[i]);
        }
    }

    /// <summary>Fails where a log-prob is infinite or not a number: a model that has diverged is not to be judged by, and a device does not stop of itself.</summary>
    internal static void RequireFinite(ReadOnlySpan<float> logProbs)
    {
        foreach (var logProb in logProbs)
        {
            if (!float.IsFinite(logProb))
            {
                throw NotFinite();
            }
        }
    }

    internal static InvalidOperationException NotFinite() =>
        new("The model's output is not a number: its weights or its adapter have diverged. Lower the learning rate, or go back to an earlier checkpoint.");
}
