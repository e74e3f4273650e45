using System.Diagnostics;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;

namespace LrIad.Engine.Bench;

internal sealed partial class Benchmark
{
    /// <summary>A token of every completion of one request (<c>n</c>), as a caller of the engine sees them come.</summary>
    /// <param name="completions">Completions of the request.</param>
    public BenchRow Served(int completions)
    {
        var limits = new EngineLimits { Sequences = completions, PromptLength = PromptTokens, CompletionLength = 2 * CompletionTokens };
        var options = new EngineOptions { Model = _model.Folder, Name = "random", Limits = limits };
        var request = new GenerationRequest
        {
            Prompt = new TokenPrompt([.. Enumerable.Range(0, PromptTokens).Select(_ => _random.Next(1000))], []),
            Completions = completions,
            Seed = 0,
        };
        var engine = new InferenceEngine(options, _model, Tokenizer.OfBytes(), _backend).Begin();
        double[] times;
        try
        {
            times = [.. Enumerable.Range(0, 3).Select(_ => Step(engine, request).GetAwaiter().GetResult())];
        }
        finally
        {
            engine.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }

        return DecodeRow($"decode step, served, {completions} completions of one request", times.Order().ElementAt(1), groups: 1, completions);
    }

    // From the first token of all to the last of all.
    private static async Task<double> Step(InferenceEngine engine, GenerationRequest request)
    {
        var (start, last) = (0L, 0L);
        await foreach (var update in engine.StreamAsync(request))
        {
            start = start == 0 && update.Tokens.Count > 0 ? Stopwatch.GetTimestamp() : start;
            last = Stopwatch.GetTimestamp();
        }

        return Stopwatch.GetElapsedTime(start, last).TotalMilliseconds / ((2 * CompletionTokens) - 1);
    }
}
