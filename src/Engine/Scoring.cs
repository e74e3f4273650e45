using LrIad.Engine.Compute;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;

namespace LrIad.Engine;

/// <summary>What to score.</summary>
internal sealed record ScoringRequest
{
    /// <summary>Image files of the prompt, in order.</summary>
    public IReadOnlyList<string> Images { get; init; } = [];

    /// <summary>What they show.</summary>
    public string Object { get; init; } = "";

    /// <summary>The completion as text, special tokens standing for themselves; null where <see cref="CompletionIds"/> is given.</summary>
    public string? Completion { get; init; }

    /// <summary>The completion as token ids.</summary>
    public IReadOnlyList<int>? CompletionIds { get; init; }

    /// <summary>Images are scaled down to this many pixels; null: what the adapter was trained with, else 401,408.</summary>
    public int? MaxPixels { get; init; }

    /// <summary>Longest prompt in tokens, images included.</summary>
    public int MaxPromptLength { get; init; } = 4096;

    /// <summary>A file with another prompt; null: the paper's.</summary>
    public string? PromptTemplate { get; init; }
}

/// <summary>Log-probs of a completion.</summary>
/// <param name="Tokens">Its token ids.</param>
/// <param name="LogProbs">The log-prob of each, at temperature 1.</param>
/// <param name="PromptTokens">Length of the prompt, images included.</param>
internal sealed record ScoringResult(int[] Tokens, float[] LogProbs, int PromptTokens);

/// <summary>How likely a policy finds a given completion: the training forward on one prompt.</summary>
internal static class Scoring
{
    /// <summary>Scores a completion.</summary>
    /// <exception cref="InputException">An image cannot be read, the prompt is too long, or there is no completion.</exception>
    public static ScoringResult Run(Policy policy, Backend backend, ScoringRequest request)
    {
        ArgumentNullException.ThrowIfNull(policy);
        ArgumentNullException.ThrowIfNull(request);
        var model = policy.Model;
        var tokenizer = Tokenizer.Load(model.TokenizerFile);
        var tokens = TokensOf(request, tokenizer, model.Geometry.Text.Vocabulary);
        using var encoder = new PromptEncoder(model, backend, tokenizer, PromptTemplate.Load(request.PromptTemplate), request.MaxPromptLength);
        var images = new ImageProcessor(model.Preprocessor, request.MaxPixels ?? policy.MaxPixels ?? Inspector.DefaultMaxPixels);
        var prompt = encoder.Build(request.Object, encoder.Encode([.. request.Images.Select(images.Process)]));

        using var pass = new PolicyPass(model, backend, prompt.Length + tokens.Length, maxSegments: 2, policy.Adapter?.Shape.Rank ?? 1);
        var group = new Group(prompt, [new Completion(0, tokens, [], [], Ended: true)], Probe: null);
        return new ScoringResult(tokens, pass.Forward([group], temperature: 1, policy.Adapter, dropout: default), prompt.Length);
    }

    private static int[] TokensOf(ScoringRequest request, Tokenizer tokenizer, int vocabulary)
    {
        int[] tokens = request.CompletionIds is { } ids ? [.. ids] : tokenizer.EncodeWithSpecial(request.Completion ?? "");
        if (tokens.Length == 0)
        {
            throw new InputException("There is no completion to score.");
        }

        var foreign = Array.FindIndex(tokens, token => token < 0 || token >= vocabulary);
        return foreign < 0 ? tokens : throw new InputException($"Token id {tokens[foreign]} of the completion is not in the model's vocabulary of {vocabulary}.");
    }
}
