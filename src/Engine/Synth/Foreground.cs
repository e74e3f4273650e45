using LrIad.Engine.Data;

namespace LrIad.Engine.Synth;

/// <summary>
/// Where the object is, estimated from the image alone: what differs from the background that the image's border shows. The background may be brighter on one
/// side (a plane is fitted for each colour). Where the border is no plain background, or nothing stands out, the whole image counts: a texture.
/// </summary>
internal sealed class Foreground
{
    // The estimate is made at about this size: averages of f × f pixels are less noisy and quick to work on.
    private const int Size = 256;

    // Grey levels: a border that strays further from its plane is no plain background; what strays less is never an object.
    private const double LargestSpread = 24, LeastDifference = 10;

    // Shares of the image, of the largest component, and of the border.
    private const double LeastObject = 0.01, LargestObject = 0.95, LeastComponent = 0.1, LeastBorder = 0.6;

    private readonly int _factor, _columns, _rows, _width, _height;
    private readonly bool[] _object;
    private readonly int[] _cells;

    private Foreground(RgbImage image, int factor, int columns, int rows, bool[]? found)
    {
        (_factor, _columns, _rows, _width, _height) = (factor, columns, rows, image.Width, image.Height);
        IsWholeImage = found is null;
        _object = found ?? Enumerable.Repeat(true, columns * rows).ToArray();
        _cells = [.. Enumerable.Range(0, _object.Length).Where(cell => _object[cell])];
    }

    /// <summary>Whether no object could be told from the background.</summary>
    public bool IsWholeImage { get; }

    /// <summary>Whether a pixel lies on the object.</summary>
    public bool Has(int x, int y) => x >= 0 && y >= 0 && x < _width && y < _height && _object[(y / _factor * _columns) + (x / _factor)];

    /// <summary>A pixel on the object, any one as likely.</summary>
    public (int X, int Y) Pick(Draws draws)
    {
        var cell = _cells[draws.Below(_cells.Length)];
        var (x, y) = ((cell % _columns * _factor) + draws.Below(_factor), (cell / _columns * _factor) + draws.Below(_factor));
        return (Math.Min(x, _width - 1), Math.Min(y, _height - 1));
    }

    /// <summary>Estimates it.</summary>
    public static Foreground Estimate(RgbImage image)
    {
        var factor = Math.Max(1, (Math.Max(image.Width, image.Height) + Size - 1) / Size);
        var (columns, rows) = ((image.Width + factor - 1) / factor, (image.Height + factor - 1) / factor);
        var colours = Shrink(image, factor, columns, rows);
        var difference = Difference(colours, columns, rows, out var spread);
        if (spread > LargestSpread)
        {
            return new Foreground(image, factor, columns, rows, null);
        }

        var threshold = Math.Max(LeastDifference, 2.5 * spread);
        var found = Components(Array.ConvertAll(difference, value => value > threshold), columns, rows);
        var share = found.Count(cell => cell) / (double)found.Length;
        return new Foreground(image, factor, columns, rows, share is >= LeastObject and <= LargestObject ? found : null);
    }

    // Averages of squares of pixels, three colours a cell.
    private static double[] Shrink(RgbImage image, int factor, int columns, int rows)
    {
        var colours = new double[columns * rows * 3];
        for (var cell = 0; cell < columns * rows; cell++)
        {
            var (left, top) = (cell % columns * factor, cell / columns * factor);
            var (right, bottom) = (Math.Min(left + factor, image.Width), Math.Min(top + factor, image.Height));
            for (var y = top; y < bottom; y++)
            {
                for (var x = left; x < right; x++)
                {
                    for (var c = 0; c < 3; c++)
                    {
                        colours[(3 * cell) + c] += image.Data[(3 * ((y * image.Width) + x)) + c] / (double)((right - left) * (bottom - top));
                    }
                }
            }
        }

        return colours;
    }

    // How far each cell is from the background, the largest of three colours; and how far nearly all of the border is.
    private static double[] Difference(double[] colours, int columns, int rows, out double spread)
    {
        var ring = Math.Max(2, Math.Min(columns, rows) / 32);
        var border = Enumerable.Range(0, columns * rows).Where(cell =>
            cell % columns < ring || cell % columns >= columns - ring || cell / columns < ring || cell / columns >= rows - ring).ToArray();
        var difference = new double[columns * rows];
        var kept = border;

        // The object may reach the border: what strays most is left out and the plane fitted again.
        for (var round = 0; round < 4; round++)
        {
            Array.Clear(difference);
            for (var c = 0; c < 3; c++)
            {
                var plane = Plane.Fit(kept.Select(cell => (Position(cell % columns, columns), Position(cell / columns, rows), colours[(3 * cell) + c])));
                for (var cell = 0; cell < difference.Length; cell++)
                {
                    difference[cell] = Math.Max(difference[cell], Math.Abs(colours[(3 * cell) + c] - plane.At(Position(cell % columns, columns), Position(cell / columns, rows))));
                }
            }

            var median = Quantile(border, difference, 0.5);
            kept = [.. border.Where(cell => difference[cell] <= 3 * Math.Max(1, median))];
        }

        spread = kept.Length < LeastBorder * border.Length ? double.PositiveInfinity : Quantile(kept, difference, 0.95);
        return difference;
    }

    private static double Position(int at, int count) => ((2.0 * at) + 1 - count) / count;

    private static double Quantile(int[] cells, double[] values, double share)
    {
        var sorted = cells.Select(cell => values[cell]).Order().ToArray();
        return sorted[(int)(share * (sorted.Length - 1))];
    }

    // Components that are no specks, with their holes filled.
    private static bool[] Components(bool[] found, int columns, int rows)
    {
        var components = Fill(found, columns, rows);
        var least = components.Count == 0 ? 0 : LeastComponent * components.Max(component => component.Count);
        var kept = new bool[found.Length];
        foreach (var cell in components.Where(component => component.Count >= least).SelectMany(component => component))
        {
            kept[cell] = true;
        }

        bool AtBorder(int cell) => cell % columns == 0 || cell % columns == columns - 1 || cell / columns == 0 || cell / columns == rows - 1;
        foreach (var cell in Fill(Array.ConvertAll(kept, cell => !cell), columns, rows).Where(hole => !hole.Exists(AtBorder)).SelectMany(hole => hole))
        {
            kept[cell] = true;
        }

        return kept;
    }

    private static List<List<int>> Fill(bool[] cells, int columns, int rows)
    {
        var (components, seen) = (new List<List<int>>(), new bool[cells.Length]);
        for (var first = 0; first < cells.Length; first++)
        {
            if (!cells[first] || seen[first])
            {
                continue;
            }

            var component = new List<int> { first };
            seen[first] = true;
            void Add(bool isThere, int cell)
            {
                if (isThere && cells[cell] && !seen[cell])
                {
                    seen[cell] = true;
                    component.Add(cell);
                }
            }

            for (var i = 0; i < component.Count; i++)
            {
                var cell = component[i];
                Add(cell % columns > 0, cell - 1);
                Add(cell % columns < columns - 1, cell + 1);
                Add(cell >= columns, cell - columns);
                Add(cell < columns * (rows - 1), cell + columns);
            }

            components.Add(component);
        }

        return components;
    }
}

/// <summary>z = a + b·x + c·y.</summary>
internal readonly record struct Plane(double A, double B, double C)
{
    public double At(double x, double y) => A + (B * x) + (C * y);

    /// <summary>By least squares, from the points' sums about their mean; flat where they lie on a line.</summary>
    public static Plane Fit(IEnumerable<(double X, double Y, double Z)> points)
    {
        var all = points.ToArray();
        var (mx, my, mz) = (all.Average(p => p.X), all.Average(p => p.Y), all.Average(p => p.Z));
        double xx = 0, xy = 0, yy = 0, xz = 0, yz = 0;
        foreach (var (x, y, z) in all)
        {
            var (dx, dy, dz) = (x - mx, y - my, z - mz);
            (xx, xy, yy, xz, yz) = (xx + (dx * dx), xy + (dx * dy), yy + (dy * dy), xz + (dx * dz), yz + (dy * dz));
        }

        var determinant = (xx * yy) - (xy * xy);
        if (determinant <= 1e-9 * xx * yy)
        {
            return new Plane(mz, 0, 0);
        }

        var (b, c) = (((xz * yy) - (yz * xy)) / determinant, ((yz * xx) - (xz * xy)) / determinant);
        return new Plane(mz - (b * mx) - (c * my), b, c);
    }
}
