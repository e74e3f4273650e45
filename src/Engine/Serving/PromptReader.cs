using LrIad.Engine.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Serving;

/// <summary>Prompts of any kind as token ids.</summary>
internal sealed class PromptReader(Tokenizer tokenizer, ModelGeometry geometry)
{
    private readonly int _image = geometry.ImageTokenId;

    /// <summary>A prompt's images, in order.</summary>
    /// <exception cref="InputException">It has parts that do not belong into a prompt.</exception>
    public static IReadOnlyList<ImageData> ImagesOf(Prompt prompt) => prompt switch
    {
        Conversation conversation => [.. conversation.Messages.SelectMany(message => message.Parts).Where(part => part.Image is not null).Select(part => part.Image!)],
        RawPrompt raw => raw.Images,
        TokenPrompt tokens => tokens.Images,
        _ => throw new InputException("There is no prompt."),
    };

    /// <summary>Token ids of a prompt, with as many image tokens as its images take.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="imageTokens">Tokens that each image takes, in order.</param>
    /// <exception cref="InputException">It is empty, has ids outside the vocabulary, or places for images that are not given.</exception>
    public int[] Read(Prompt prompt, IReadOnlyList<int> imageTokens)
    {
        int[] ids = prompt switch
        {
            Conversation conversation => ChatPrompt.Build(tokenizer, Turns(conversation, imageTokens)),
            RawPrompt raw => Expand(tokenizer.EncodeWithSpecial(raw.Text), imageTokens, runs: false),
            TokenPrompt tokens => Expand(tokens.Ids, imageTokens, runs: true),
            _ => throw new InputException("There is no prompt."),
        };
        return ids.Length > 0 ? ids : throw new InputException("The prompt is empty.");
    }

    private static ChatTurn[] Turns(Conversation conversation, IReadOnlyList<int> imageTokens)
    {
        if (conversation.Messages.Count == 0)
        {
            throw new InputException("The conversation has no messages.");
        }

        var image = 0;
        return [.. conversation.Messages.Select(message => message.Role is "system" or "user" or "assistant"
            ? new ChatTurn(message.Role, [.. message.Parts.Select(part => part.Image is null ? new ChatPart(part.Text ?? "") : new ChatPart(null, imageTokens[image++]))])
            : throw new InputException($"A message has the role '{message.Role}'; there are system, user and assistant."))];
    }

    // Each image token becomes as many as its image takes; where whole runs are allowed, a run must have that many, or be a single one.
    private int[] Expand(IReadOnlyList<int> ids, IReadOnlyList<int> imageTokens, bool runs)
    {
        var expanded = new List<int>(ids.Count);
        var image = 0;
        for (var i = 0; i < ids.Count; i++)
        {
            if ((uint)ids[i] >= (uint)geometry.Text.Vocabulary)
            {
                throw new InputException($"Token {i} of the prompt has the id {ids[i]}, which is outside the vocabulary of {geometry.Text.Vocabulary}.");
            }

            if (ids[i] != _image)
            {
                expanded.Add(ids[i]);
                continue;
            }

            var run = 1;
            while (runs && i + run < ids.Count && ids[i + run] == _image)
            {
                run++;
            }

            if (image >= imageTokens.Count)
            {
                throw new InputException($"The prompt has more places for images than the {imageTokens.Count} images given.");
            }

            if (run > 1 && run != imageTokens[image])
            {
                throw new InputException($"Image {image + 1} of the prompt takes {imageTokens[image]} tokens; the prompt has a run of {run} image tokens for it. One token is enough, too.");
            }

            expanded.AddRange(Enumerable.Repeat(_image, imageTokens[image++]));
            i += run - 1;
        }

        return image == imageTokens.Count ? [.. expanded] : throw new InputException($"The prompt has {image} places for images; {imageTokens.Count} images are given.");
    }
}
