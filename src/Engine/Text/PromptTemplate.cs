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
