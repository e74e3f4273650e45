using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;

namespace LrIad.Server.OpenAi;

/// <summary>Reads <c>messages</c>: texts and images, by role.</summary>
internal static class Messages
{
    // No token of the vocabulary is longer: a prompt of more characters is too long before anybody counts its tokens.
    private const int LongestToken = 256;

    public static Conversation Read(RequestFields fields, ImageSources images, EngineLimits limits) => Read(fields.Objects("messages"), fields.Path("messages"), images, limits);

    /// <summary>Reads a conversation.</summary>
    /// <param name="messages">Its messages.</param>
    /// <param name="where">The name of their list.</param>
    /// <param name="images">Where images come from.</param>
    /// <param name="limits">How long it may be.</param>
    /// <exception cref="RequestException">It is empty, too long, or has what is not known.</exception>
    public static Conversation Read(IReadOnlyList<RequestFields> messages, string where, ImageSources images, EngineLimits limits)
    {
        if (messages.Count == 0)
        {
            throw RequestException.Bad(where, "must not be empty");
        }

        var (read, imageCount, characters) = (new List<PromptMessage>(), 0, 0L);
        foreach (var message in messages)
        {
            var parts = Parts(message, images, () =>
            {
                if (++imageCount > limits.ImagesPerRequest)
                {
                    throw RequestException.Bad(where, $"have more than the {limits.ImagesPerRequest} images a request may have here");
                }
            });
            characters += parts.Sum(part => (long)(part.Text?.Length ?? 0));
            CheckLength(characters, where, limits);
            read.Add(new PromptMessage(Role(message), parts));
        }

        return new Conversation(read);
    }

    /// <summary>Refuses texts that are too long for a prompt, whatever their tokens are.</summary>
    /// <exception cref="RequestException">They are.</exception>
    public static void CheckLength(long characters, string where, EngineLimits limits)
    {
        if (characters > (long)LongestToken * limits.PromptLength)
        {
            throw RequestException.Bad(where, $"has a text that is longer than the {limits.PromptLength} tokens a prompt may have here");
        }
    }

    private static string Role(RequestFields message) => message.Text("role") switch
    {
        "developer" => "system",
        var role when role is "system" or "user" or "assistant" => role,
        var role => throw message.Bad("role", $"must be system, user or assistant, not {RequestFields.Shown(role)}"),
    };

    // An image is counted before it is decoded.
    private static IReadOnlyList<PromptPart> Parts(RequestFields message, ImageSources images, Action countImage)
    {
        if (message.Has("tool_calls") && (message.Value("tool_calls").ValueKind != JsonValueKind.Array || message.Value("tool_calls").GetArrayLength() > 0))
        {
            throw message.Bad("tool_calls", "cannot be used: this model calls no tools");
        }

        return message.Value("content").ValueKind == JsonValueKind.String ? [PromptPart.Of(message.Text("content"))] : [.. message.Objects("content").Select(part =>
        {
            switch (part.Text("type"))
            {
                case "text":
                    return PromptPart.Of(part.Text("text"));
                case "image_url":
                    countImage();
                    var isObject = part.Value("image_url").ValueKind == JsonValueKind.Object;
                    var (url, where) = isObject ? (part.Object("image_url").Value("url"), part.Path("image_url.url")) : (part.Value("image_url"), part.Path("image_url"));
                    return PromptPart.Of(images.FromUrl(url, where));
                case "image_pil": // what TRL's client sends
                    countImage();
                    return PromptPart.Of(images.FromBase64(part.Value("image_pil"), part.Path("image_pil")));
                case var type:
                    throw part.Bad("type", $"must be text or image_url, not {RequestFields.Shown(type)}");
            }
        })];
    }
}
