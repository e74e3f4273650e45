namespace LrIad.Engine.Serving;

/// <summary>An image file's bytes: PNG, JPEG, BMP, WebP or TIFF.</summary>
/// <param name="Bytes">The file.</param>
/// <param name="Name">What to call it in messages.</param>
public sealed record ImageData(ReadOnlyMemory<byte> Bytes, string Name = "image");

/// <summary>A part of a message: a text or an image.</summary>
public sealed record PromptPart
{
    private PromptPart(string? text, ImageData? image) => (Text, Image) = (text, image);

    /// <summary>The text; special tokens in it stay text. Null for an image.</summary>
    public string? Text { get; }

    /// <summary>The image; null for a text.</summary>
    public ImageData? Image { get; }

    /// <summary>A text.</summary>
    public static PromptPart Of(string text) => new(text, null);

    /// <summary>An image.</summary>
    public static PromptPart Of(ImageData image) => new(null, image);
}

/// <summary>A turn of a conversation.</summary>
/// <param name="Role">system, user or assistant.</param>
/// <param name="Parts">What is said and shown, in order.</param>
public sealed record PromptMessage(string Role, IReadOnlyList<PromptPart> Parts);

/// <summary>What a model is asked: a conversation, or a whole prompt as it is.</summary>
public abstract record Prompt
{
    private protected Prompt()
    {
    }
}

/// <summary>A conversation, put into Qwen2-VL's chat template; without a system turn the template's own is taken.</summary>
/// <param name="Messages">The turns; the assistant's answer to the last one is drawn.</param>
public sealed record Conversation(IReadOnlyList<PromptMessage> Messages) : Prompt;

/// <summary>A whole prompt as text: special tokens in it are parsed, and each <c>&lt;|image_pad|&gt;</c> stands for an image.</summary>
/// <param name="Text">The text.</param>
/// <param name="Images">The images, in order.</param>
public sealed record RawPrompt(string Text, IReadOnlyList<ImageData> Images) : Prompt;

/// <summary>A whole prompt as token ids. A run of image tokens, or a single one, stands for an image.</summary>
/// <param name="Ids">The ids.</param>
/// <param name="Images">The images, in order.</param>
public sealed record TokenPrompt(IReadOnlyList<int> Ids, IReadOnlyList<ImageData> Images) : Prompt;

/// <summary>What a completion must look like. Tokens that cannot lead to it are never drawn; log-probs stay those of the whole distribution.</summary>
public sealed record OutputConstraint
{
    private OutputConstraint()
    {
    }

    /// <summary>A JSON schema (its text), or null.</summary>
    public string? JsonSchema { get; private init; }

    /// <summary>A regular expression that matches the whole completion, or null.</summary>
    public string? Regex { get; private init; }

    /// <summary>The texts to choose from, or null.</summary>
    public IReadOnlyList<string>? Choices { get; private init; }

    /// <summary>A JSON value of this schema.</summary>
    public static OutputConstraint ToJsonSchema(string schema) => new() { JsonSchema = schema };

    /// <summary>A text that this expression matches from beginning to end.</summary>
    public static OutputConstraint ToRegex(string pattern) => new() { Regex = pattern };

    /// <summary>One of these texts.</summary>
    public static OutputConstraint ToChoice(IReadOnlyList<string> choices) => new() { Choices = choices };
}

/// <summary>What to draw.</summary>
public sealed record GenerationRequest
{
    /// <summary>The prompt.</summary>
    public required Prompt Prompt { get; init; }

    /// <summary>The adapter's name; null: the base model.</summary>
    public string? Adapter { get; init; }

    /// <summary>Completions wanted.</summary>
    public int Completions { get; init; } = 1;

    /// <summary>0: the most likely token each time.</summary>
    public float Temperature { get; init; } = 1;

    /// <summary>Only the smallest set of tokens that holds this much probability is drawn (1: all).</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Only the k most likely tokens are drawn (0: all).</summary>
    public int TopK { get; init; }

    /// <summary>With it, the same request draws the same completions; null: another one each time.</summary>
    public ulong? Seed { get; init; }

    /// <summary>Longest completion in tokens; null: the engine's limit.</summary>
    public int? MaxTokens { get; init; }

    /// <summary>A completion ends before the first of these texts.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];

    /// <summary>Ends at none of the model's end tokens, only at the length limit or a stop text.</summary>
    public bool IgnoreEnd { get; init; }

    /// <summary>Likeliest tokens to tell at each place, with their log-probs.</summary>
    public int TopLogProbs { get; init; }

    /// <summary>What completions must look like; null: anything.</summary>
    public OutputConstraint? Constraint { get; init; }

    /// <summary>Whether to tell the log-odds of "defect" over "normal" after forced, empty reasoning: the score of an inspection.</summary>
    public bool Probe { get; init; }

    /// <summary>Who asks: those who wait are served in turn, whatever each has queued up.</summary>
    public string Client { get; init; } = "";

    /// <summary>How long it may take from its arrival on; null or more than the engine's: the engine's limit.</summary>
    public TimeSpan? Time { get; init; }
}

/// <summary>Why a completion ended.</summary>
public enum FinishReason
{
    /// <summary>An end token, a stop text, or the end of what a constraint allows.</summary>
    Stop,

    /// <summary>The length limit.</summary>
    Length,
}

/// <summary>A token and how likely it was.</summary>
/// <param name="Id">Token id.</param>
/// <param name="Text">Its bytes as text; where it is a part of a character, with U+FFFD.</param>
/// <param name="Bytes">Its bytes.</param>
/// <param name="LogProb">Its log-prob at the request's temperature (at 1 where that is 0), untruncated.</param>
public sealed record TokenLogProb(int Id, string Text, ReadOnlyMemory<byte> Bytes, float LogProb);

/// <summary>A token that was drawn.</summary>
/// <param name="Token">The token.</param>
/// <param name="Top">The likeliest tokens at its place, most likely first; empty where they were not asked for.</param>
public sealed record DrawnToken(TokenLogProb Token, IReadOnlyList<TokenLogProb> Top);

/// <summary>What a request has come to since the last update: the start of all, some text of one completion, or its end.</summary>
public sealed record GenerationUpdate
{
    /// <summary>Which completion, from 0 on.</summary>
    public int Completion { get; init; }

    /// <summary>New text, whole characters alone; held back while it could be the beginning of a stop text.</summary>
    public string Text { get; init; } = "";

    /// <summary>New tokens. Their texts can run ahead of <see cref="Text"/>; the end token is among them.</summary>
    public IReadOnlyList<DrawnToken> Tokens { get; init; } = [];

    /// <summary>Set in the last update of a completion.</summary>
    public FinishReason? Finish { get; init; }

    /// <summary>The stop text that ended it, if one did.</summary>
    public string? StopText { get; init; }

    /// <summary>Length of the prompt, images included: set in the first update of a request.</summary>
    public int? PromptTokens { get; init; }

    /// <summary>How many of them were computed already, for another request: set in the first update.</summary>
    public int? SharedPromptTokens { get; init; }

    /// <summary>The prompt's token ids, an image's as many as it takes: set in the first update.</summary>
    public IReadOnlyList<int>? PromptIds { get; init; }

    /// <summary>The probe, where it was asked for: set in the first update.</summary>
    public double? Probe { get; init; }
}

/// <summary>A sequence to score.</summary>
public sealed record ScoreRequest
{
    /// <summary>What comes before.</summary>
    public required Prompt Prompt { get; init; }

    /// <summary>The tokens whose log-probs are wanted.</summary>
    public required IReadOnlyList<int> Completion { get; init; }

    /// <summary>The adapter's name; null: the base model.</summary>
    public string? Adapter { get; init; }

    /// <summary>Logits are divided by it.</summary>
    public float Temperature { get; init; } = 1;

    /// <summary>Likeliest tokens to tell at each place.</summary>
    public int TopLogProbs { get; init; }

    /// <summary>Who asks.</summary>
    public string Client { get; init; } = "";
}

/// <summary>Log-probs of a given sequence.</summary>
/// <param name="PromptTokens">Length of the prompt, images included.</param>
/// <param name="Tokens">Each token of the completion with its log-prob and, where asked for, the likeliest ones.</param>
public sealed record ScoredCompletion(int PromptTokens, IReadOnlyList<DrawnToken> Tokens);
