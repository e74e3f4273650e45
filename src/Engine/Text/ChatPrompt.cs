namespace LrIad.Engine.Text;

/// <summary>The question put to the model; <c>{object}</c> stands for the kind of object.</summary>
public sealed class PromptTemplate
{
    private const string Placeholder = "{object}";

    private readonly string _text;

    private PromptTemplate(string text) => _text = text;

    /// <summary>The paper's (section III-D).</summary>
    public static PromptTemplate Default { get; } = new(
        "This is an image containing a {object}. Analyze the given image and determine if there is any defect in the object.\n" +
        "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags.\n" +
        "Options: (A) defect (B) normal.\n" +
        "The output answer format should be as follows:\n" +
        "<think></think> <answer>A or B</answer>\n" +
        "Please strictly follow the format.");

    /// <summary>Another one, from a text file; a last line break is not part of it. Null: the default.</summary>
    /// <exception cref="InputException">It cannot be read, or nowhere names the object.</exception>
    public static PromptTemplate Load(string? file)
    {
        if (file is null)
        {
            return Default;
        }

        try
        {
            var text = File.ReadAllText(file).ReplaceLineEndings("\n").TrimEnd('\n');
            return text.Contains(Placeholder, StringComparison.Ordinal)
                ? new PromptTemplate(text)
                : throw new InputException($"The prompt template {file} does not contain {Placeholder}, which stands for the kind of object.");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"The prompt template {file} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>The question about one kind of object; underscores in its name become spaces.</summary>
    public string Render(string objectName)
    {
        ArgumentNullException.ThrowIfNull(objectName);
        return _text.Replace(Placeholder, objectName.Replace('_', ' '), StringComparison.Ordinal);
    }
}

/// <summary>Qwen2-VL's chat template: system turn, one user turn of images and question, and the start of the assistant's.</summary>
public static class ChatPrompt
{
    /// <summary>Token ids of a prompt. Special tokens come from the template alone: in an object's name or a question they stay text.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="template">The question.</param>
    /// <param name="objectName">The kind of object.</param>
    /// <param name="imageTokens">How many tokens each image takes, in order.</param>
    public static int[] Build(Tokenizer tokenizer, PromptTemplate template, string objectName, IReadOnlyList<int> imageTokens)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(template);
        ArgumentNullException.ThrowIfNull(imageTokens);
        var (start, end) = (Special(tokenizer, "<|im_start|>"), Special(tokenizer, "<|im_end|>"));
        var (visionStart, imagePad, visionEnd) = (Special(tokenizer, "<|vision_start|>"), Special(tokenizer, "<|image_pad|>"), Special(tokenizer, "<|vision_end|>"));
        List<int> ids = [start, .. tokenizer.Encode("system\nYou are a helpful assistant."), end, .. tokenizer.Encode("\n"), start, .. tokenizer.Encode("user\n")];
        foreach (var count in imageTokens)
        {
            ids.Add(visionStart);
            ids.AddRange(Enumerable.Repeat(imagePad, count));
            ids.Add(visionEnd);
        }

        ids.AddRange([.. tokenizer.Encode(template.Render(objectName)), end, .. tokenizer.Encode("\n"), start, .. tokenizer.Encode("assistant\n")]);
        return [.. ids];
    }

    private static int Special(Tokenizer tokenizer, string token) => tokenizer.TokenId(token) ?? throw new InputException($"The tokenizer has no token {token}; it is not Qwen2-VL's.");
}
