using System.Globalization;
using System.Text;

namespace LrIad.Server.Measure;

/// <summary>
/// Prometheus' text format, version 0.0.4. Written here because the libraries for it refuse colons in names, which vLLM's have.
/// </summary>
/// <param name="labels">Labels of every sample.</param>
internal sealed class PrometheusText(params (string Name, string Value)[] labels)
{
    public const string ContentType = "text/plain; version=0.0.4; charset=utf-8";

    private readonly StringBuilder _text = new();

    public void Gauge(string name, string help, double value) => Single(name, "gauge", help, value);

    public void Counter(string name, string help, double value) => Single(name, "counter", help, value);

    /// <summary>A counter that one more label divides.</summary>
    public void Counters(string name, string help, string label, IEnumerable<(string Value, double Count)> counts)
    {
        Head(name, "counter", help);
        foreach (var (value, count) in counts)
        {
            Sample(name, count, (label, value));
        }
    }

    public void Histogram(string name, string help, Distribution distribution)
    {
        Head(name, "histogram", help);
        var (buckets, sum, total) = distribution.Read();
        foreach (var (bound, atMost) in buckets)
        {
            Sample(name + "_bucket", atMost, ("le", Number(bound)));
        }

        Sample(name + "_bucket", total, ("le", "+Inf"));
        Sample(name + "_sum", sum);
        Sample(name + "_count", total);
    }

    public override string ToString() => _text.ToString();

    private void Single(string name, string type, string help, double value)
    {
        Head(name, type, help);
        Sample(name, value);
    }

    private void Head(string name, string type, string help) => _text.Append($"# HELP {name} {help}\n# TYPE {name} {type}\n");

    private void Sample(string name, double value, params (string Name, string Value)[] more) =>
        _text.Append(name).Append('{').AppendJoin(',', labels.Concat(more).Select(label => $"{label.Name}=\"{Escaped(label.Value)}\"")).Append("} ").Append(Number(value)).Append('\n');

    private static string Escaped(string value) => value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    // Bounds as vLLM writes them: 1.0, 0.25.
    private static string Number(double value) => value.ToString("0.0################", CultureInfo.InvariantCulture);
}
