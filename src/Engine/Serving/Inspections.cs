using System.Runtime.CompilerServices;
using System.Text;
using LrIad.Engine.Text;

namespace LrIad.Engine.Serving;

/// <summary>Inspections: a question with images, answered greedily, and the probe as the score.</summary>
public static class Inspections
{
    /// <summary>Inspects an image, and tells of the reasoning as it comes.</summary>
    /// <param name="engine">What answers.</param>
    /// <param name="request">What to inspect.</param>
    /// <param name="template">The question; null: the paper's.</param>
    /// <param name="cancellation">The caller leaves.</param>
    /// <inheritdoc cref="IInferenceEngine.StreamAsync"/>
    public static async IAsyncEnumerable<InspectionUpdate> InspectAsync(
        this IInferenceEngine engine, InspectionRequest request, PromptTemplate? template = null, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        ArgumentNullException.ThrowIfNull(request);
        var question = (template ?? PromptTemplate.Default).Render(request.Object);
        var parts = request.References.Append(request.Image).Select(PromptPart.Of).Append(PromptPart.Of(question));
        var generation = new GenerationRequest
        {
            Prompt = new Conversation([new PromptMessage("user", [.. parts])]),
            Adapter = request.Adapter,
            Temperature = 0,
            MaxTokens = request.MaxTokens,
            Probe = true,
            Client = request.Client,
        };
        var (tokens, promptTokens, score) = (new List<int>(), 0, 0.0);
        await foreach (var update in engine.StreamAsync(generation, cancellation).ConfigureAwait(false))
        {
            (promptTokens, score) = (update.PromptTokens ?? promptTokens, update.Probe ?? score);
            tokens.AddRange(update.Tokens.Select(drawn => drawn.Token.Id));
            var verdict = update.Finish is { } finish ? ToVerdict(engine, tokens, finish == FinishReason.Stop, score, promptTokens) : null;
            yield return new InspectionUpdate(update.Text, update.Probe, verdict);
        }
    }

    private static ImageVerdict ToVerdict(IInferenceEngine engine, List<int> tokens, bool ended, double score, int promptTokens)
    {
        var said = ended ? tokens[..^1] : tokens;
        var completion = engine.Detokenize(said, keepSpecial: true);
        var answer = Answer.Parse(completion, ended);
        return new ImageVerdict(
            answer.IsValid ? answer.Kind == AnswerKind.Defect : null, score, answer.Reasoning, completion, answer.IsValid ? null : Problem(answer.Reason), promptTokens, tokens.Count);
    }

    // The reason's name as words.
    private static string Problem(InvalidReason reason)
    {
        var words = new StringBuilder();
        foreach (var letter in reason.ToString())
        {
            words.Append(char.IsUpper(letter) && words.Length > 0 ? " " : "").Append(char.ToLowerInvariant(letter));
        }

        return words.ToString();
    }
}
