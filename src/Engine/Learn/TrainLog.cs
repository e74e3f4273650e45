using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Learn;

/// <summary>
/// The logs of a run: a line of metrics.jsonl and of completions.jsonl for every step and completion. When a run is resumed, what was logged after its
/// checkpoint is cut off, so that the logs read as if it had never stopped.
/// </summary>
public sealed class TrainLog : IDisposable
{
    private static readonly JsonSerializerOptions Plain = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private readonly StreamWriter _metrics;
    private readonly StreamWriter _completions;

    /// <param name="folder">The run's folder.</param>
    /// <param name="step">Steps already done: later lines are cut off.</param>
    public TrainLog(string folder, int step)
    {
        _metrics = Open(Path.Combine(folder, "metrics.jsonl"), step);
        _completions = Open(Path.Combine(folder, "completions.jsonl"), step);
    }

    /// <summary>Logs a step.</summary>
    public void Metrics(JsonObject values)
    {
        ArgumentNullException.ThrowIfNull(values);
        _metrics.WriteLine(values.ToJsonString(Plain));
        _metrics.Flush();
    }

    /// <summary>Logs a step's completions.</summary>
    public void Completions(IEnumerable<JsonObject> completions)
    {
        ArgumentNullException.ThrowIfNull(completions);
        foreach (var completion in completions)
        {
            _completions.WriteLine(completion.ToJsonString(Plain));
        }

        _completions.Flush();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _metrics.Dispose();
        _completions.Dispose();
    }

    private static StreamWriter Open(string file, int step)
    {
        if (File.Exists(file))
        {
            // A line cut short by a kill is dropped with the later ones.
            AtomicFile.WriteText(file, string.Concat(File.ReadLines(file).Where(line => StepOf(line) is { } logged && logged <= step).Select(line => line + "\n")));
        }

        return new StreamWriter(new FileStream(file, FileMode.Append, FileAccess.Write, FileShare.Read));
    }

    private static int? StepOf(string line)
    {
        try
        {
            return (int?)JsonNode.Parse(line)?["step"];
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
