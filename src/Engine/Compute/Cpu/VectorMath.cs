using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace LrIad.Engine.Compute.Cpu;

/// <summary>
/// Elementary functions, eight floats at a time, in explicit fused multiply-adds: an element's result depends on nothing but the element.
/// Errors are at most a few units in the last place.
/// </summary>
internal static class VectorMath
{
    /// <summary>e^x; 0 below −87.3, capped above 88.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Exp(Vector256<float> x)
    {
        var tooSmall = Vector256.LessThan(x, Vector256.Create(-87.3f));
        x = Vector256.Min(Vector256.Max(x, Vector256.Create(-87.3f)), Vector256.Create(88f));

        // x = n·ln 2 + r, |r| ≤ ln 2 / 2, ln 2 in two parts.
        var n = Vector256.Round(x * 1.44269504f);
        var r = Vector256.FusedMultiplyAdd(n, Vector256.Create(-0.693359375f), x);
        r = Vector256.FusedMultiplyAdd(n, Vector256.Create(2.12194440e-4f), r);
        var p = Vector256.Create(1.9875691500e-4f);
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(1.3981999507e-3f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(8.3334519073e-3f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(4.1665795894e-2f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(1.6666665459e-1f));
        p = Vector256.FusedMultiplyAdd(p, r, Vector256.Create(5.0000001201e-1f));
        p = Vector256.FusedMultiplyAdd(p, r * r, r + Vector256<float>.One);
        var scale = Vector256.ShiftLeft(Vector256.ConvertToInt32(n) + Vector256.Create(127), 23).AsSingle();
        return Vector256.AndNot(p * scale, tooSmall);
    }

    /// <summary>e^x of one value, the same as in a vector.</summary>
    public static float Exp(float x) => Exp(Vector256.Create(x)).ToScalar();

    /// <summary>1 / (1 + e^−x).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Sigmoid(Vector256<float> x) => Vector256<float>.One / (Vector256<float>.One + Exp(-x));

    /// <summary>x·Φ(x), Φ the normal distribution function: the exact form of GELU.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Gelu(Vector256<float> x) => 0.5f * x * (Vector256<float>.One + Erf(x * 0.70710678f));

    /// <summary>
    /// The error function. Below 0.5 its Taylor series in x²; above, 1 − e^−x² · t·P(t) with t = 1 / (1 + 0.3275911 |x|) (Abramowitz and Stegun 7.1.26),
    /// whose absolute error of 1.5e-7 is a float's last place there.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Erf(Vector256<float> x)
    {
        var one = Vector256<float>.One;
        var magnitude = Vector256.Abs(x);
        var square = x * x;

        var series = Vector256.Create(1.12837917f / 9360f);
        series = Vector256.FusedMultiplyAdd(series, square, Vector256.Create(-1.12837917f / 1320f));
        series = Vector256.FusedMultiplyAdd(series, square, Vector256.Create(1.12837917f / 216f));
        series = Vector256.FusedMultiplyAdd(series, square, Vector256.Create(-1.12837917f / 42f));
        series = Vector256.FusedMultiplyAdd(series, square, Vector256.Create(1.12837917f / 10f));
        series = Vector256.FusedMultiplyAdd(series, square, Vector256.Create(-1.12837917f / 3f));
        series = Vector256.FusedMultiplyAdd(series, square, Vector256.Create(1.12837917f));
        var small = series * x;

        var t = one / Vector256.FusedMultiplyAdd(magnitude, Vector256.Create(0.3275911f), one);
        var p = Vector256.Create(1.061405429f);
        p = Vector256.FusedMultiplyAdd(p, t, Vector256.Create(-1.453152027f));
        p = Vector256.FusedMultiplyAdd(p, t, Vector256.Create(1.421413741f));
        p = Vector256.FusedMultiplyAdd(p, t, Vector256.Create(-0.284496736f));
        p = Vector256.FusedMultiplyAdd(p, t, Vector256.Create(0.254829592f));
        var large = one - (p * t * Exp(-square));
        large = Vector256.CopySign(large, x);
        return Vector256.ConditionalSelect(Vector256.LessThan(magnitude, Vector256.Create(0.5f)), small, large);
    }
}
