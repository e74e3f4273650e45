namespace LrIad.Engine.Synth;

/// <summary>The pixels of an image whose centres lie inside a polygon, in the smallest box around them.</summary>
internal sealed class Region
{
    private readonly bool[] _inside;

    private Region(int x, int y, int width, int height, bool[] inside) => (X, Y, Width, Height, _inside, Count) = (x, y, width, height, inside, inside.Count(pixel => pixel));

    public int X { get; }

    public int Y { get; }

    public int Width { get; }

    public int Height { get; }

    /// <summary>Its pixels.</summary>
    public int Count { get; }

    public bool Has(int x, int y) => x >= X && y >= Y && x < X + Width && y < Y + Height && _inside[((y - Y) * Width) + x - X];

    /// <summary>Its pixels, row by row.</summary>
    public IEnumerable<(int X, int Y)> Pixels()
    {
        for (var i = 0; i < _inside.Length; i++)
        {
            if (_inside[i])
            {
                yield return (X + (i % Width), Y + (i / Width));
            }
        }
    }

    /// <summary>Those of an image that <paramref name="has"/> names.</summary>
    public static Region Of(int imageWidth, int imageHeight, Func<int, int, bool> has) => Crop(0, 0, imageWidth, imageHeight, has);

    /// <summary>Those of an image inside a polygon, by the even-odd rule; empty where there are none.</summary>
    public static Region Inside(IReadOnlyList<double[]> polygon, int imageWidth, int imageHeight)
    {
        var (left, right) = (polygon.Min(corner => corner[0]), polygon.Max(corner => corner[0]));
        var (top, bottom) = (polygon.Min(corner => corner[1]), polygon.Max(corner => corner[1]));
        var (x, y) = (Math.Max(0, (int)left), Math.Max(0, (int)top));
        return Crop(x, y, Math.Min(imageWidth, (int)Math.Ceiling(right)) - x, Math.Min(imageHeight, (int)Math.Ceiling(bottom)) - y, (px, py) => IsInside(polygon, px + 0.5, py + 0.5));
    }

    private static Region Crop(int x, int y, int width, int height, Func<int, int, bool> has)
    {
        var (left, top, right, bottom) = (int.MaxValue, int.MaxValue, -1, -1);
        var found = new bool[Math.Max(0, width) * Math.Max(0, height)];
        for (var i = 0; i < found.Length; i++)
        {
            var (px, py) = (i % width, i / width);
            if (found[i] = has(x + px, y + py))
            {
                (left, top, right, bottom) = (Math.Min(left, px), Math.Min(top, py), Math.Max(right, px), Math.Max(bottom, py));
            }
        }

        if (right < 0)
        {
            return new Region(x, y, 0, 0, []);
        }

        var (columns, rows) = (right - left + 1, bottom - top + 1);
        var inside = new bool[columns * rows];
        for (var row = 0; row < rows; row++)
        {
            Array.Copy(found, ((top + row) * width) + left, inside, row * columns, columns);
        }

        return new Region(x + left, y + top, columns, rows, inside);
    }

    // Edges that a ray to the right crosses.
    private static bool IsInside(IReadOnlyList<double[]> polygon, double x, double y)
    {
        var inside = false;
        for (int i = 0, j = polygon.Count - 1; i < polygon.Count; j = i++)
        {
            var (a, b) = (polygon[i], polygon[j]);
            if ((a[1] > y) != (b[1] > y) && x < a[0] + ((b[0] - a[0]) * (y - a[1]) / (b[1] - a[1])))
            {
                inside = !inside;
            }
        }

        return inside;
    }
}
