using System.Globalization;

namespace LrIad.Cli;

/// <summary>How fast something goes and when it will be done, from the first report on.</summary>
internal sealed class Pace(TimeProvider time)
{
    private (long At, int Done)? _start;

    /// <summary>Units a second and the time left, or nulls before anything is known.</summary>
    public (double? Rate, TimeSpan? Left) Report(int done, int total)
    {
        var now = time.GetTimestamp();
        _start ??= (now, done);
        var elapsed = time.GetElapsedTime(_start.Value.At, now).TotalSeconds;
        var units = done - _start.Value.Done;
        return units > 0 && elapsed > 0 ? (units / elapsed, TimeSpan.FromSeconds((total - done) * elapsed / units)) : (null, null);
    }

    /// <summary>"3.2 images/s, 1:52 left", as far as it is known.</summary>
    public static string Words(double? rate, TimeSpan? left, string unit) =>
        rate is null || left is null ? "" : string.Create(CultureInfo.InvariantCulture, $"{Rate(rate.Value, unit)}, {Clock(left.Value)} left");

    /// <summary>1:52 or 2:03:04.</summary>
    public static string Clock(TimeSpan time) => time.ToString(time.TotalHours >= 1 ? @"h\:mm\:ss" : @"m\:ss", CultureInfo.InvariantCulture);

    private static string Rate(double rate, string unit) => rate >= 1
        ? string.Create(CultureInfo.InvariantCulture, $"{rate:F1} {unit}s/s")
        : string.Create(CultureInfo.InvariantCulture, $"{1 / rate:F1} s/{unit}");
}
