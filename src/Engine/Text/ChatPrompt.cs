using System.Text;

namespace LrIad.Engine.Text;

/// <summary>A part of a turn: a text or an image.</summary>
/// <param name="Text">The text; null for an image.</param>
/// <param name="ImageTokens">How many tokens the image takes.</param>
internal readonly record struct ChatPart(string? Text, int ImageTokens = 0);

/// <summary>A turn of a conversation.</summary>
/// <param name="Role">system, user or assistant.</param>
/// <param name="Parts">What is said and shown, in order.</param>
internal sealed record ChatTurn(string Role, IReadOnlyList<ChatPart> Parts);

/// <summary>Qwen2-VL's chat template: turns between marks, images between others, and the start of the assistant's answer. A conversation that does not begin with a system turn gets one.</summary>
internal static class ChatPrompt
{
    private const string DefaultSystem = "You are a helpful assistant.";

    /// <summary>The paper's prompt: images, then the question.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="template">The question.</param>
    /// <param name="objectName">The kind of object.</param>
    /// <param name="imageTokens">How many tokens each image takes, in order.</param>
    public static int[] Build(Tokenizer tokenizer, PromptTemplate template, string objectName, IReadOnlyList<int> imageTokens)
    {
        ArgumentNullException.ThrowIfNull(template);
        ArgumentNullException.ThrowIfNull(imageTokens);
        return Build(tokenizer, [new ChatTurn("user", [.. imageTokens.Select(count => new ChatPart(null, count)), new ChatPart(template.Render(objectName))])]);
    }

    /// <summary>Token ids of a conversation. Special tokens come from the template alone: in a text they stay text.</summary>
    public static int[] Build(Tokenizer tokenizer, IReadOnlyList<ChatTurn> turns)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(turns);
        int Special(string token) => tokenizer.TokenId(token) ?? throw new InputException($"The tokenizer has no token {token}; it is not Qwen2-VL's.");
        var (start, end) = (Special("<|im_start|>"), Special("<|im_end|>"));
        var (visionStart, imagePad, visionEnd) = (Special("<|vision_start|>"), Special("<|image_pad|>"), Special("<|vision_end|>"));
        var (ids, text) = (new List<int>(), new StringBuilder());

        // What lies between two special tokens is one text, whoever wrote its parts.
        void Mark(params IEnumerable<int> special)
        {
            ids.AddRange(tokenizer.Encode(text.ToString()));
            text.Clear();
            ids.AddRange(special);
        }

        IEnumerable<ChatTurn> all = turns.Count > 0 && turns[0].Role == "system" ? turns : turns.Prepend(new ChatTurn("system", [new ChatPart(DefaultSystem)]));
        foreach (var turn in all)
        {
            Mark(start);
            text.Append(turn.Role).Append('\n');
            foreach (var part in turn.Parts)
            {
                if (part.Text is null)
                {
                    Mark(visionStart);
                    Mark(Enumerable.Repeat(imagePad, part.ImageTokens));
                    Mark(visionEnd);
                }
                else
                {
                    text.Append(part.Text);
                }
            }

            Mark(end);
            text.Append('\n');
        }

        Mark(start);
        text.Append("assistant\n");
        Mark();
        return [.. ids];
    }
}
