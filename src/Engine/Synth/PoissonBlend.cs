namespace LrIad.Engine.Synth;

/// <summary>
/// Poisson image editing (Pérez, Gangnet, Blake, SIGGRAPH 2003): inside a region the picture gets given gradients, at its edge it joins what is there. The values f
/// of the region's pixels p solve, with the neighbours q above, below, left and right that the image has,
/// <code>Σ_q (f_p − f_q) = Σ_q v_pq,   f_q = target_q outside of the region.</code>
/// v_pq is source_p − source_q, or, mixed, target_p − target_q where that is larger. The image's border sets no condition.
/// </summary>
internal sealed class PoissonBlend
{
    /// <summary>Conjugate gradients stop when the residual's norm is this small, in grey levels.</summary>
    public const double Residual = 1e-6;

    // Of a neighbour: the number of its equation, or one of these.
    private const int Known = -1, Missing = -2;
    private static readonly (int X, int Y)[] Sides = [(-1, 0), (1, 0), (0, -1), (0, 1)];

    private readonly (int X, int Y)[] _pixels;
    private readonly int[] _neighbours;
    private readonly double[] _diagonal;

    /// <param name="region">Where; not all of the image, or nothing would hold its brightness.</param>
    /// <param name="width">The image's.</param>
    /// <param name="height">The image's.</param>
    public PoissonBlend(Region region, int width, int height)
    {
        if (region.Count == width * height)
        {
            throw new ArgumentException("The region is all of the image: there is no edge to join.", nameof(region));
        }

        _pixels = [.. region.Pixels()];
        var numbers = new int[region.Width * region.Height];
        for (var i = 0; i < _pixels.Length; i++)
        {
            numbers[((_pixels[i].Y - region.Y) * region.Width) + _pixels[i].X - region.X] = i;
        }

        _neighbours = new int[4 * _pixels.Length];
        _diagonal = new double[_pixels.Length];
        for (var i = 0; i < _neighbours.Length; i++)
        {
            var (x, y) = (_pixels[i / 4].X + Sides[i % 4].X, _pixels[i / 4].Y + Sides[i % 4].Y);
            _neighbours[i] = x < 0 || y < 0 || x >= width || y >= height ? Missing : region.Has(x, y) ? numbers[((y - region.Y) * region.Width) + x - region.X] : Known;
            _diagonal[i / 4] += _neighbours[i] == Missing ? 0 : 1;
        }
    }

    /// <summary>The values of the region's pixels, row by row.</summary>
    /// <param name="target">The image's value at a pixel.</param>
    /// <param name="source">The source's value at a pixel of the region or a neighbour of one.</param>
    /// <param name="mixed">Whether the steeper gradient counts, not always the source's.</param>
    public double[] Solve(Func<int, int, double> target, Func<int, int, double> source, bool mixed)
    {
        var (right, start) = (new double[_pixels.Length], new double[_pixels.Length]);
        for (var i = 0; i < _neighbours.Length; i++)
        {
            if (_neighbours[i] == Missing)
            {
                continue;
            }

            var (p, side) = (_pixels[i / 4], Sides[i % 4]);
            var known = target(p.X + side.X, p.Y + side.Y);
            start[i / 4] = target(p.X, p.Y);
            var gradient = source(p.X, p.Y) - source(p.X + side.X, p.Y + side.Y);
            var own = start[i / 4] - known;
            right[i / 4] += (mixed && Math.Abs(own) > Math.Abs(gradient) ? own : gradient) + (_neighbours[i] == Known ? known : 0);
        }

        return ConjugateGradients(right, start);
    }

    // The matrix is symmetric and, as the region has an edge, positive definite.
    private double[] ConjugateGradients(double[] right, double[] x)
    {
        var n = x.Length;
        var (r, p, product) = (new double[n], new double[n], new double[n]);
        Multiply(x, product);
        for (var i = 0; i < n; i++)
        {
            p[i] = r[i] = right[i] - product[i];
        }

        var square = Dot(r, r);
        for (var step = 0; square > Residual * Residual; step++)
        {
            if (step > n + 1000)
            {
                throw new InvalidOperationException($"Conjugate gradients did not end after {step} steps on {n} pixels; residual {Math.Sqrt(square):G3}.");
            }

            Multiply(p, product);
            var length = square / Dot(p, product);
            for (var i = 0; i < n; i++)
            {
                x[i] += length * p[i];
                r[i] -= length * product[i];
            }

            var before = square;
            square = Dot(r, r);
            for (var i = 0; i < n; i++)
            {
                p[i] = r[i] + (square / before * p[i]);
            }
        }

        return x;
    }

    private void Multiply(double[] x, double[] y)
    {
        for (var i = 0; i < x.Length; i++)
        {
            var sum = _diagonal[i] * x[i];
            foreach (var neighbour in _neighbours.AsSpan(4 * i, 4))
            {
                sum -= neighbour >= 0 ? x[neighbour] : 0;
            }

            y[i] = sum;
        }
    }

    private static double Dot(double[] a, double[] b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++)
        {
            sum += a[i] * b[i];
        }

        return sum;
    }
}
