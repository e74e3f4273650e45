using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Learn;

/// <summary>
/// The logs of a run: a line of metrics.jsonl and a TensorBoard event for every step, a line of completions.jsonl for every completion. When a run is resumed,
/// what was logged after its checkpoint is cut off, so that the logs read as if it had never stopped.
/// </summary>
internal sealed class TrainLog : IDisposable
{
    /// <summary>Name of the file with a line a step.</summary>
    public const string MetricsName = "metrics.jsonl";

    private const string CompletionsName = "completions.jsonl";

    private static readonly JsonSerializerOptions Plain = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private readonly string _folder;
    private readonly FileStream _metrics;
    private readonly FileStream _completions;
    private readonly TensorBoardWriter _events;

    /// <param name="folder">The run's folder.</param>
    /// <param name="step">Steps already done: what comes after them is cut off.</param>
    /// <exception cref="InputException">The logs cannot be written.</exception>
    public TrainLog(string folder, int step)
    {
        _folder = folder;
        try
        {
            _metrics = Open(Path.Combine(folder, MetricsName), step);
            _completions = Open(Path.Combine(folder, CompletionsName), step);
            _events = new TensorBoardWriter(folder, step, TimeProvider.System);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _completions?.Dispose();
            _metrics?.Dispose();
            throw CannotWrite(e);
        }
    }

    /// <summary>The lines of a run's metrics.jsonl; none where there is no such file.</summary>
    public static IReadOnlyList<JsonObject> ReadMetrics(string folder)
    {
        var file = Path.Combine(folder, MetricsName);
        return File.Exists(file) ? [.. File.ReadLines(file).Select(Parse).OfType<JsonObject>()] : [];
    }

    /// <summary>Logs a step; in TensorBoard under "train/", as transformers does.</summary>
    /// <exception cref="InputException">The disk is full.</exception>
    public void Metrics(JsonObject values)
    {
        ArgumentNullException.ThrowIfNull(values);
        Append(_metrics, [values]);
        var numbers = values.Where(field => field.Key != "step" && field.Value?.GetValueKind() == JsonValueKind.Number);
        try
        {
            _events.Scalars((int)values["step"]!, numbers.Select(field => ("train/" + field.Key, Number(field.Value!))));
        }
        catch (IOException e)
        {
            throw CannotWrite(e);
        }
    }

    /// <summary>Logs a step's completions.</summary>
    /// <exception cref="InputException">The disk is full.</exception>
    public void Completions(IEnumerable<JsonObject> completions)
    {
        ArgumentNullException.ThrowIfNull(completions);
        Append(_completions, completions);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _metrics.Dispose();
        _completions.Dispose();
        _events.Dispose();
    }

    private static FileStream Open(string file, int step)
    {
        if (File.Exists(file))
        {
            // A line cut short by a kill is dropped with the later ones.
            AtomicFile.WriteText(file, string.Concat(File.ReadLines(file).Where(line => StepOf(line) is { } logged && logged <= step).Select(line => line + "\n")));
        }

        // Without a buffer of its own: after a failed write there is nothing left that closing would write again.
        return new FileStream(file, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0);
    }

    private static int? StepOf(string line) => Parse(line)?["step"] is JsonValue value && value.TryGetValue(out int step) ? step : null;

    private static JsonObject? Parse(string line)
    {
        try
        {
            return JsonNode.Parse(line) as JsonObject;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static double Number(JsonNode node) => JsonSerializer.SerializeToElement(node).GetDouble();

    private void Append(FileStream log, IEnumerable<JsonObject> lines)
    {
        try
        {
            log.Write(Encoding.UTF8.GetBytes(string.Concat(lines.Select(line => line.ToJsonString(Plain) + "\n"))));
        }
        catch (IOException e)
        {
            throw CannotWrite(e);
        }
    }

    private InputException CannotWrite(Exception e) => new($"The logs in {_folder} cannot be written: {e.Message} Checkpoints are as they were; free some space and go on with --resume.", e);
}
