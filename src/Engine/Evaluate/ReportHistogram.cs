namespace LrIad.Engine.Evaluate;

/// <summary>How the scores of the two classes are spread: defects upwards, normal parts downwards, each as shares of its own class, so that the rare one can be seen.</summary>
internal static class ReportHistogram
{
    internal const int Bins = 28;

    private const double Width = 460, Height = 218, Left = 4, Right = 4, Top = 8, Bottom = 40;

    /// <summary>The chart.</summary>
    /// <param name="scored">Score and label of every image; at least one.</param>
    public static Html Render(IReadOnlyList<(double Score, bool Defect)> scored)
    {
        var ticks = ReportCharts.Ticks(scored.Min(item => item.Score), Math.Max(scored.Max(item => item.Score), scored.Min(item => item.Score) + 1e-3), 6);
        var (low, high) = (ticks[0], ticks[^1]);
        var (defects, normals) = (Count(scored, true, low, high), Count(scored, false, low, high));
        var (ofDefects, ofNormals) = (Math.Max(1, defects.Sum()), Math.Max(1, normals.Sum()));
        var tallest = Math.Max((double)defects.Max() / ofDefects, (double)normals.Max() / ofNormals);
        var (middle, half) = ((Top + Height - Bottom) / 2, (Height - Top - Bottom) / 2);
        double X(double score) => Left + ((score - low) / (high - low) * (Width - Left - Right));
        Html Bars(int[] counts, int all, int direction, string kind) => Html.Of($"""
            <g class="{kind}">{counts.Select((count, bin) => (count, bin)).Where(bar => bar.count > 0).Select(bar =>
            {
                var (from, to) = (low + ((high - low) * bar.bin / Bins), low + ((high - low) * (bar.bin + 1) / Bins));
                var size = half * bar.count / all / tallest;
                return Html.Of($"""<rect x="{X(from) + 1:F1}" width="{X(to) - X(from) - 2:F1}" y="{(direction > 0 ? middle - size : middle):F1}" height="{size:F1}"><title>{bar.count} of {all}, scores {from:F2} to {to:F2}</title></rect>""");
            })}</g>
            """);
        return Html.Of($"""
            <div><p class="legend"><span class="defects">defects, upwards</span><span class="normals">normal parts, downwards</span></p>
            <svg class="histogram" viewBox="0 0 {Width} {Height}" role="img" aria-label="Scores: {defects.Sum()} defects above the line, {normals.Sum()} normal parts below it, as shares of each class">
            {ticks.Select(tick => Html.Of($"""<line class="grid" x1="{X(tick):F1}" x2="{X(tick):F1}" y1="{Top}" y2="{Height - Bottom}"/><text x="{X(tick):F1}" y="{Height - Bottom + 15}" text-anchor="{(tick == low ? "start" : tick == high ? "end" : "middle")}">{tick:0.####}</text>"""))}
            {Bars(defects, ofDefects, 1, "defects")}{Bars(normals, ofNormals, -1, "normals")}
            <line class="base" x1="{Left}" x2="{Width - Right}" y1="{middle:F1}" y2="{middle:F1}"/>
            <text class="axis" x="{Width / 2}" y="{Height - 6}" text-anchor="middle">score: larger is more defective</text></svg></div>
            """);
    }

    /// <summary>Images of a class in each of <see cref="Bins"/> equal parts of a range.</summary>
    internal static int[] Count(IReadOnlyList<(double Score, bool Defect)> scored, bool defect, double low, double high)
    {
        var counts = new int[Bins];
        foreach (var (score, _) in scored.Where(item => item.Defect == defect))
        {
            counts[Math.Clamp((int)((score - low) / (high - low) * Bins), 0, Bins - 1)]++;
        }

        return counts;
    }
}
