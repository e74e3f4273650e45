using System.Text.Encodings.Web;
using System.Text.Json;

namespace LrIad.Engine.Bench;

/// <summary>A measured time beside the least that the GPU's own ceilings allow.</summary>
/// <param name="Name">What was measured.</param>
/// <param name="Milliseconds">Median.</param>
/// <param name="Floor">Milliseconds that the bytes or the operations take at the ceiling measured in the same run.</param>
/// <param name="Bound">Which of the two, and how much.</param>
internal sealed record BenchRow(string Name, double Milliseconds, double Floor, string Bound);

/// <summary>What the GPU can do at best, measured.</summary>
/// <param name="ReadBytesPerSecond">Reading device memory.</param>
/// <param name="FlopsPerSecond">A product of 8192 × 8192 × 8192 in bfloat16.</param>
internal sealed record Ceilings(double ReadBytesPerSecond, double FlopsPerSecond);

/// <summary>Everything one run measured.</summary>
/// <param name="Device">The GPU's name.</param>
/// <param name="Geometry">Whose sizes the random weights had.</param>
/// <param name="Ceilings">What the GPU can do at best.</param>
/// <param name="Rows">The rows, in the order they were measured.</param>
internal sealed record BenchReport(string Device, string Geometry, Ceilings Ceilings, IReadOnlyList<BenchRow> Rows)
{
    private static readonly JsonSerializerOptions Json = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Writes it as JSON: the names as here, in lower case with underscores.</summary>
    /// <exception cref="InputException">The file cannot be written.</exception>
    public void Write(string file) => AtomicFile.WriteText(file, JsonSerializer.Serialize(this, Json) + "\n");
}
