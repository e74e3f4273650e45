using System.Text.RegularExpressions;

namespace LrIad.Engine.Text;

/// <summary>What a completion answers.</summary>
internal enum AnswerKind
{
    /// <summary>It does not answer in the required format.</summary>
    Invalid,

    /// <summary>Option A.</summary>
    Defect,

    /// <summary>Option B.</summary>
    Normal,
}

/// <summary>Why a completion is not an answer.</summary>
internal enum InvalidReason
{
    /// <summary>It is one.</summary>
    None,

    /// <summary>The length limit cut it off.</summary>
    CutOff,

    /// <summary>There is no text at all, or none between the answer tags.</summary>
    Empty,

    /// <summary>None of the four tags is there.</summary>
    NoTags,

    /// <summary>Some tags are there, but not all.</summary>
    MissingTag,

    /// <summary>There are two answers: in two pairs of tags, or both options in one.</summary>
    TwoAnswers,

    /// <summary>A think tag stands there twice.</summary>
    RepeatedTag,

    /// <summary>Between the answer tags is something else than the options.</summary>
    BadOption,

    /// <summary>There is text outside the tags, or they are out of order.</summary>
    ExtraText,
}

/// <summary>
/// A parsed completion. Only <c>&lt;think&gt;…&lt;/think&gt; &lt;answer&gt; A or B &lt;/answer&gt;</c>, the whole of it and each tag once, is an answer; nothing else is
/// guessed at.
/// </summary>
/// <param name="Kind">Defect, normal or invalid.</param>
/// <param name="Reasoning">What stands between the think tags; of an invalid completion, all of it.</param>
/// <param name="Reason">Why it is invalid.</param>
internal sealed partial record Answer(AnswerKind Kind, string Reasoning, InvalidReason Reason)
{
    private static readonly string[] Tags = ["<think>", "</think>", "<answer>", "</answer>"];

    /// <summary>Whether it is an answer.</summary>
    public bool IsValid => Kind != AnswerKind.Invalid;

    /// <summary>Whether the reasoning says the opposite of the answer; null where it says neither, or there is no answer.</summary>
    public bool? Contradicts => IsValid && ReasoningClaim.Of(Reasoning) is { } claim ? claim != Kind : null;

    /// <summary>Parses a completion.</summary>
    /// <param name="completion">Its text, without the end token.</param>
    /// <param name="ended">False where the length limit cut it off.</param>
    public static Answer Parse(string completion, bool ended = true)
    {
        ArgumentNullException.ThrowIfNull(completion);
        var counts = Tags.Select(tag => Count(completion, tag)).ToArray();
        var match = Format().Match(completion);
        var reason = counts[2] > 1 || counts[3] > 1 ? InvalidReason.TwoAnswers
            : counts.Any(count => count > 1) ? InvalidReason.RepeatedTag
            : match.Success && ended ? InvalidReason.None
            : !ended ? InvalidReason.CutOff
            : string.IsNullOrWhiteSpace(completion) ? InvalidReason.Empty
            : counts.All(count => count == 0) ? InvalidReason.NoTags
            : counts.Any(count => count == 0) ? InvalidReason.MissingTag
            : AnyOption().Match(completion) is { Success: true } answered ? Misanswered(answered.Groups["answer"].Value)
            : InvalidReason.ExtraText;
        return reason != InvalidReason.None
            ? new Answer(AnswerKind.Invalid, completion, reason)
            : new Answer(match.Groups["option"].Value == "A" ? AnswerKind.Defect : AnswerKind.Normal, match.Groups["reasoning"].Value.Trim(), reason);
    }

    private static InvalidReason Misanswered(string answer) => string.IsNullOrWhiteSpace(answer) ? InvalidReason.Empty
        : BothOptions().IsMatch(answer) ? InvalidReason.TwoAnswers
        : InvalidReason.BadOption;

    private static int Count(string text, string tag) => text.Split(tag).Length - 1;

    [GeneratedRegex(@"\A<think>(?<reasoning>.*)</think>\s*<answer>\s*(?<option>[AB])\s*</answer>\z", RegexOptions.Singleline | RegexOptions.CultureInvariant)]
    private static partial Regex Format();

    [GeneratedRegex(@"\A<think>.*</think>\s*<answer>(?<answer>.*)</answer>\z", RegexOptions.Singleline | RegexOptions.CultureInvariant)]
    private static partial Regex AnyOption();

    [GeneratedRegex(@"\bA\b.*\bB\b|\bB\b.*\bA\b", RegexOptions.Singleline | RegexOptions.CultureInvariant)]
    private static partial Regex BothOptions();
}

/// <summary>How the two options look as tokens, found in context: Qwen2 writes <c>&lt;answer&gt;A</c> with the single token <c>&gt;A</c>.</summary>
/// <param name="ProbeSuffix">Tokens of <c>&lt;think&gt;&lt;/think&gt; &lt;answer&gt;</c> up to where the options part.</param>
/// <param name="DefectToken">What follows for A.</param>
/// <param name="NormalToken">What follows for B.</param>
internal sealed record AnswerOptions(int[] ProbeSuffix, int DefectToken, int NormalToken)
{
    /// <summary>Finds them for a tokenizer.</summary>
    public static AnswerOptions Find(Tokenizer tokenizer)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        var defect = tokenizer.Encode("<think></think> <answer>A</answer>");
        var normal = tokenizer.Encode("<think></think> <answer>B</answer>");
        var common = defect.Zip(normal).TakeWhile(pair => pair.First == pair.Second).Count();
        return new AnswerOptions(defect[..common], defect[common], normal[common]);
    }

    /// <summary>Which token of a completion carries the option letter, and the two tokens that could stand there; null where there is none.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="tokens">The completion.</param>
    public static (int Position, int Defect, int Normal)? Locate(Tokenizer tokenizer, IReadOnlyList<int> tokens)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(tokens);
        var text = "";
        for (var i = 0; i < tokens.Count; i++)
        {
            // The letter is in the first token with which the text holds the opening tag and, after it, an A or B.
            text += tokenizer.Decode([tokens[i]]);
            var tag = text.IndexOf("<answer>", StringComparison.Ordinal);
            if (tag >= 0 && text[(tag + 8)..].TrimStart() is ['A' or 'B', ..])
            {
                var piece = tokenizer.Decode([tokens[i]]);
                var letter = piece.LastIndexOfAny(['A', 'B']);
                var (a, b) = (Single(piece, letter, 'A'), Single(piece, letter, 'B'));
                return a is { } defect && b is { } normal ? (i, defect, normal) : null;
            }
        }

        return null;

        int? Single(string piece, int letter, char option)
        {
            var ids = letter < 0 ? [] : tokenizer.Encode(piece[..letter] + option + piece[(letter + 1)..]);
            return ids.Length == 1 ? ids[0] : null;
        }
    }
}
