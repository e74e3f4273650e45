using System.Runtime.CompilerServices;
using System.Text;
using LrIad.Engine.Text;

namespace LrIad.Engine.Serving;

/// <summary>Inspections by a serving engine: the paper's question, the model's likeliest answer, and the score.</summary>
public static class Inspections
{
    /// <summary>Looks at an image and tells of the answer as it comes: the score first, the verdict last.</summary>
    /// <inheritdoc cref="IInferenceEngine.StreamAsync"/>
    public static async IAsyncEnumerable<InspectionUpdate> InspectAsync(this IInferenceEngine engine, InspectionRequest request, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(engine);
        ArgumentNullException.ThrowIfNull(request);
        var (text, tokens, promptTokens, score) = (new StringBuilder(), 0, 0, 0.0);
        await foreach (var update in engine.StreamAsync(Generation(request), cancellation).ConfigureAwait(false))
        {
            text.Append(update.Text);
            tokens += update.Tokens.Count;
            (promptTokens, score) = (update.PromptTokens ?? promptTokens, update.Probe ?? score);
            var verdict = update.Finish is { } finish ? Judge(text.ToString(), finish, score, promptTokens, tokens) : null;
            if (update.Text.Length > 0 || update.Probe is not null || verdict is not null)
            {
                yield return new InspectionUpdate(update.Text, update.Probe, verdict);
            }
        }
    }

    private static GenerationRequest Generation(InspectionRequest request) => new()
    {
        Prompt = new Conversation([new PromptMessage("user", [.. request.References.Append(request.Image).Select(PromptPart.Of), PromptPart.Of(PromptTemplate.Default.Render(request.Object))])]),
        Adapter = request.Adapter,
        Temperature = 0,
        MaxTokens = request.MaxTokens,
        Probe = true,
        Client = request.Client,
    };

    private static ImageVerdict Judge(string completion, FinishReason finish, double score, int promptTokens, int tokens)
    {
        var answer = Answer.Parse(completion, ended: finish == FinishReason.Stop);
        return new ImageVerdict(
            answer.IsValid ? answer.Kind == AnswerKind.Defect : null, score, answer.Reasoning, completion, answer.IsValid ? null : Words(answer.Reason), promptTokens, tokens);
    }

    private static string Words(InvalidReason reason) => reason switch
    {
        InvalidReason.CutOff => "the length limit cut it off",
        InvalidReason.Empty => "there is no text, or none between the answer tags",
        InvalidReason.NoTags => "it has none of the tags",
        InvalidReason.MissingTag => "it lacks some of the tags",
        InvalidReason.TwoAnswers => "it gives two answers",
        InvalidReason.RepeatedTag => "a tag stands there twice",
        InvalidReason.BadOption => "the answer is none of the options",
        _ => "there is text outside the tags",
    };
}
