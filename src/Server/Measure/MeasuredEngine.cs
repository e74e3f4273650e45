using System.Diagnostics;
using System.Runtime.CompilerServices;
using LrIad.Engine.Serving;

namespace LrIad.Server.Measure;

/// <summary>An engine whose requests are timed, whatever protocol they come by.</summary>
/// <param name="engine">What answers; its owner disposes of it.</param>
/// <param name="metrics">Where figures go.</param>
internal sealed class MeasuredEngine(IInferenceEngine engine, ServingMetrics metrics) : IInferenceEngine
{
    public ModelCard Model => engine.Model;

    public EngineLimits Limits => engine.Limits;

    public IReadOnlyCollection<string> Adapters => engine.Adapters;

    public EngineStatistics Statistics => engine.Statistics;

    public Task LoadAdapterAsync(string name, string folder, CancellationToken cancellation = default) => engine.LoadAdapterAsync(name, folder, cancellation);

    public Task<bool> UnloadAdapterAsync(string name, CancellationToken cancellation = default) => engine.UnloadAdapterAsync(name, cancellation);

    public async IAsyncEnumerable<GenerationUpdate> StreamAsync(GenerationRequest request, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var (start, last, tokens, finished) = (Stopwatch.GetTimestamp(), 0L, 0, 0);
        var first = 0L;
        await foreach (var update in engine.StreamAsync(request, cancellation))
        {
            if (update.PromptTokens is { } prompt)
            {
                metrics.Prompt(prompt);
            }

            if (update.Tokens.Count > 0)
            {
                var now = Stopwatch.GetTimestamp();
                tokens += update.Tokens.Count;
                if (last == 0)
                {
                    metrics.FirstToken(Stopwatch.GetElapsedTime(start, now));
                    first = now;
                }
                else if (request.Completions == 1)
                {
                    // Of one completion: several come in turn, and the time between them means nothing.
                    metrics.NextToken(Stopwatch.GetElapsedTime(last, now) / update.Tokens.Count);
                }

                last = now;
            }

            if (update.Finish is { } reason)
            {
                finished++;
                metrics.Completion(reason);
            }

            yield return update;
        }

        if (finished == request.Completions)
        {
            metrics.End(Stopwatch.GetElapsedTime(start), tokens, tokens > 1 && request.Completions == 1 ? Stopwatch.GetElapsedTime(first, last) / (tokens - 1) : null);
        }
    }

    public Task<ScoredCompletion> ScoreAsync(ScoreRequest request, CancellationToken cancellation = default) => engine.ScoreAsync(request, cancellation);

    public IReadOnlyList<int> Tokenize(string text, bool parseSpecial = false) => engine.Tokenize(text, parseSpecial);

    public string Detokenize(IReadOnlyList<int> ids, bool keepSpecial = false) => engine.Detokenize(ids, keepSpecial);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
