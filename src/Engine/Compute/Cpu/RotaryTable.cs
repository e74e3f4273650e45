namespace LrIad.Engine.Compute.Cpu;

/// <summary>Cosines and sines of a rotary embedding for positions 0 to as far as was ever asked for.</summary>
internal sealed class RotaryTable(Rotary rotary)
{
    private float[] _cos = [];
    private float[] _sin = [];
    private int _positions;

    /// <summary>Row-major [positions, HeadDim / 2].</summary>
    public float[] Cos => _cos;

    /// <summary>Row-major [positions, HeadDim / 2].</summary>
    public float[] Sin => _sin;

    /// <summary>Makes sure that positions up to <paramref name="largest"/> are there.</summary>
    public void Reach(int largest)
    {
        if (largest < _positions)
        {
            return;
        }

        var half = rotary.InverseFrequency.Length;
        var positions = Math.Max(256, largest + (largest / 4) + 1);
        Array.Resize(ref _cos, positions * half);
        Array.Resize(ref _sin, positions * half);
        for (var position = _positions; position < positions; position++)
        {
            for (var i = 0; i < half; i++)
            {
                // The angle is a float32 product, as the reference has it; its sine and cosine are then exact to float32.
                var angle = (double)(position * rotary.InverseFrequency[i]);
                _cos[(position * half) + i] = (float)Math.Cos(angle);
                _sin[(position * half) + i] = (float)Math.Sin(angle);
            }
        }

        _positions = positions;
    }
}
