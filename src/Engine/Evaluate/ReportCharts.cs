using System.Globalization;

namespace LrIad.Engine.Evaluate;

/// <summary>A line of a chart.</summary>
/// <param name="Name">What it shows.</param>
/// <param name="Points">Its points, x ascending.</param>
internal sealed record ChartLine(string Name, IReadOnlyList<(double X, double Y)> Points);

/// <summary>Charts as inline SVG; colours come from the page's style sheet.</summary>
internal static class ReportCharts
{
    private const double Width = 340, Height = 190, Left = 44, Right = 12, Top = 12, Bottom = 24;
    private const double Side = 340, Edge = 44;

    /// <summary>Noisy values over steps: a smoothed line over the raw one where there are enough of them.</summary>
    public static Html Curve(ChartLine line)
    {
        var frame = Frame.Around([line], unit: false);
        var smooth = line.Points.Count >= 20 ? Smooth(line.Points) : null;
        return Html.Of($"""
            <svg viewBox="0 0 {Width} {Height}" role="img" aria-label="{line.Name} over steps">{frame.Axes()}
            <polyline class="line {(smooth is null ? "" : "raw")}" points="{frame.Path(line.Points)}"/>
            {(smooth is null ? Html.None : Html.Of($"""<polyline class="line" points="{frame.Path(smooth)}"/>"""))}</svg>
            """);
    }

    /// <summary>A few shares, from 0 to 1, over steps, with a point at each value.</summary>
    public static Html Shares(IReadOnlyList<ChartLine> lines)
    {
        var frame = Frame.Around(lines, unit: true);
        return Html.Of($"""
            <svg viewBox="0 0 {Width} {Height}" role="img" aria-label="{string.Join(", ", lines.Select(line => line.Name))} over steps">{frame.Axes()}
            {lines.Select((line, i) => Html.Of($"""
                <g class="s{i}"><polyline class="line" points="{frame.Path(line.Points)}"/>
                {line.Points.Select(point => Html.Of($"""<circle r="3" cx="{frame.X(point.X):F1}" cy="{frame.Y(point.Y):F1}"><title>{line.Name} {point.Y:F3} at step {point.X}</title></circle>"""))}</g>
                """))}</svg>
            """);
    }

    /// <summary>The ROC curve of the score, and where verdicts stand on that plane.</summary>
    /// <param name="scored">Score and label of every image.</param>
    /// <param name="verdicts">What each was, its false alarm rate and its recall.</param>
    public static Html Roc(IReadOnlyList<(double Score, bool Defect)> scored, IReadOnlyList<(string Name, double FalseAlarms, double Recall)> verdicts)
    {
        static double X(double share) => Edge + (share * (Side - Edge - Right));
        static double Y(double share) => Side - Edge - (share * (Side - Edge - Top));
        static string Point((double X, double Y) p) => string.Create(CultureInfo.InvariantCulture, $"{X(p.X):F1},{Y(p.Y):F1}");
        var ticks = new[] { 0, 0.25, 0.5, 0.75, 1 };
        return Html.Of($"""
            <svg class="roc" viewBox="0 0 {Side} {Side}" role="img" aria-label="ROC curve of the score, with the verdicts">
            {ticks.Select(tick => Html.Of($"""
                <line class="grid" x1="{X(0)}" x2="{X(1)}" y1="{Y(tick):F1}" y2="{Y(tick):F1}"/><line class="grid" y1="{Y(0)}" y2="{Y(1)}" x1="{X(tick):F1}" x2="{X(tick):F1}"/>
                <text class="tick" x="{X(0) - 9}" y="{Y(tick) + 3.5:F1}" text-anchor="end">{tick:0.##}</text><text class="tick" x="{X(tick):F1}" y="{Y(0) + 19}" text-anchor="middle">{tick:0.##}</text>
                """))}
            <text class="axis" x="{X(0.5)}" y="{Side - 3}" text-anchor="middle">normal parts rejected</text>
            <text class="axis" transform="translate(10 {Y(0.5)}) rotate(-90)" text-anchor="middle">defects found</text>
            <line class="chance" x1="{X(0)}" y1="{Y(0)}" x2="{X(1)}" y2="{Y(1)}"/>
            <polyline class="line" points="{string.Join(' ', RocPoints(scored).Select(Point))}"/>
            {verdicts.Select((verdict, i) => Html.Of($"""<circle class="verdict v{i}" r="6" cx="{X(verdict.FalseAlarms):F1}" cy="{Y(verdict.Recall):F1}"><title>{verdict.Name}: recall {verdict.Recall:F3}, specificity {1 - verdict.FalseAlarms:F3}</title></circle>"""))}</svg>
            <p class="legend dots">{verdicts.Select((verdict, i) => Html.Of($"""<span class="v{i}">{verdict.Name}</span>"""))}<span class="chance">chance</span></p>
            """);
    }

    /// <summary>(false alarms, recall) down the ranking, ties taken together; empty without both classes.</summary>
    internal static IReadOnlyList<(double FalseAlarms, double Recall)> RocPoints(IReadOnlyList<(double Score, bool Defect)> scored)
    {
        var (defects, normals) = (scored.Count(item => item.Defect), scored.Count(item => !item.Defect));
        if (defects == 0 || normals == 0)
        {
            return [];
        }

        var points = new List<(double, double)> { (0, 0) };
        var (found, rejected) = (0, 0);
        foreach (var tie in scored.GroupBy(item => item.Score).OrderByDescending(group => group.Key))
        {
            found += tie.Count(item => item.Defect);
            rejected += tie.Count(item => !item.Defect);
            points.Add(((double)rejected / normals, (double)found / defects));
        }

        return points;
    }

    /// <summary>About <paramref name="count"/> round numbers that cover a range.</summary>
    internal static double[] Ticks(double low, double high, int count)
    {
        var rough = (high - low) / count;
        var power = Math.Pow(10, Math.Floor(Math.Log10(rough)));
        var step = power * ((rough / power) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 });
        var first = (long)Math.Floor((low / step) + 1e-9);
        var last = (long)Math.Ceiling((high / step) - 1e-9);
        return [.. Enumerable.Range(0, (int)(last - first) + 1).Select(i => (first + i) * step)];
    }

    // Each point is the mean of those around it.
    private static (double X, double Y)[] Smooth(IReadOnlyList<(double X, double Y)> points)
    {
        var reach = Math.Max(2, points.Count / 20);
        return [.. points.Select((point, i) => (point.X, points.Skip(i - reach).Take(Math.Min(i, reach) + reach + 1).Average(near => near.Y)))];
    }

    /// <summary>A chart's axes: from values to places.</summary>
    private sealed record Frame(double FirstX, double LastX, double[] Ticks)
    {
        public static Frame Around(IReadOnlyList<ChartLine> lines, bool unit)
        {
            var points = lines.SelectMany(line => line.Points).ToArray();
            var (low, high) = unit ? (0, 1) : (points.Min(point => point.Y), points.Max(point => point.Y));
            if (high - low <= 1e-9 * Math.Max(1e-9, Math.Abs(high)))
            {
                (low, high) = (Math.Min(0, low), Math.Max(high, low == 0 ? 1 : 0));
            }

            return new Frame(points.Min(point => point.X), points.Max(point => point.X), ReportCharts.Ticks(low, high, 4));
        }

        public double X(double x) => LastX > FirstX ? Left + ((x - FirstX) / (LastX - FirstX) * (Width - Left - Right)) : Left;

        public double Y(double y) => Height - Bottom - ((y - Ticks[0]) / (Ticks[^1] - Ticks[0]) * (Height - Top - Bottom));

        public string Path(IReadOnlyList<(double X, double Y)> points) => string.Join(' ', points.Select(point => string.Create(CultureInfo.InvariantCulture, $"{X(point.X):F1},{Y(point.Y):F1}")));

        public Html Axes() => Html.Of($"""
            {Ticks.Select(tick => Html.Of($"""
                <line class="grid" x1="{Left}" x2="{Width - Right}" y1="{Y(tick):F1}" y2="{Y(tick):F1}"/><text class="tick" x="{Left - 6}" y="{Y(tick) + 3.5:F1}" text-anchor="end">{Label(tick)}</text>
                """))}
            <text class="tick" x="{Left}" y="{Height - 7}">step {FirstX}</text><text class="tick" x="{Width - Right}" y="{Height - 7}" text-anchor="end">{LastX}</text>
            """);

        private static string Label(double value) => Math.Abs(value) is > 0 and (< 1e-3 or >= 1e5) ? value.ToString("0.#e0", CultureInfo.InvariantCulture) : value.ToString("0.####", CultureInfo.InvariantCulture);
    }
}
