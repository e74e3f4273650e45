using System.Runtime.CompilerServices;
using LrIad.Engine.Serving;

namespace LrIad.Engine.Tests.Serving;

/// <summary>An engine that keeps what it is asked and answers with what the test gave it.</summary>
internal sealed class FakeEngine : IInferenceEngine
{
    public List<GenerationRequest> Requests { get; } = [];

    /// <summary>The answer; empty: none ever comes.</summary>
    public IReadOnlyList<GenerationUpdate> Answer { get; init; } = Words("<think>", " ok</think>", " <answer>B</answer>");

    public ModelCard Model { get; } = new() { Name = "tiny", Device = "cpu", Vocabulary = 100, EndTokens = [0], Loaded = DateTimeOffset.UnixEpoch };

    public EngineLimits Limits { get; } = new();

    public IReadOnlyCollection<string> Adapters { get; } = ["screws"];

    public EngineStatistics Statistics => throw new NotSupportedException();

    /// <summary>A prompt of 12 tokens, 8 of them shared, and an update for every word; the words' tokens are numbered from 1 on.</summary>
    public static GenerationUpdate[] Words(params string[] words) =>
    [
        new GenerationUpdate { PromptTokens = 12, SharedPromptTokens = 8, Probe = -1.5 },
        .. words.Select((word, i) => new GenerationUpdate { Text = word, Tokens = [Drawn(i + 1, word)], Finish = i == words.Length - 1 ? FinishReason.Stop : null }),
    ];

    public static DrawnToken Drawn(int id, string text)
    {
        var token = new TokenLogProb(id, text, System.Text.Encoding.UTF8.GetBytes(text), -0.25f * id);
        return new DrawnToken(token, [token]);
    }

    public async IAsyncEnumerable<GenerationUpdate> StreamAsync(GenerationRequest request, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        Requests.Add(request);
        foreach (var update in Answer)
        {
            await Task.Yield();
            cancellation.ThrowIfCancellationRequested();
            yield return request.Probe ? update : update with { Probe = null };
        }

        if (Answer.Count == 0)
        {
            await Task.Delay(Timeout.Infinite, cancellation);
        }
    }

    public Task LoadAdapterAsync(string name, string folder, CancellationToken cancellation = default) => throw new NotSupportedException();

    public Task<bool> UnloadAdapterAsync(string name, CancellationToken cancellation = default) => throw new NotSupportedException();

    public Task<ScoredCompletion> ScoreAsync(ScoreRequest request, CancellationToken cancellation = default) => throw new NotSupportedException();

    public IReadOnlyList<int> Tokenize(string text, bool parseSpecial = false) => throw new NotSupportedException();

    public string Detokenize(IReadOnlyList<int> ids, bool keepSpecial = false) => throw new NotSupportedException();

    public ValueTask DisposeAsync() => throw new NotSupportedException("The client does not own its engine.");
}
