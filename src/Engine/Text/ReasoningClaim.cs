using System.Text.RegularExpressions;

namespace LrIad.Engine.Text;

/// <summary>
/// What a piece of reasoning says of the object: a rule of thumb that counts contradictions, never a verdict. Each sentence is read by itself. One that names a defect
/// ("a scratch") or denies regularity ("not uniform") speaks for defect; one that denies a defect ("no scratches or dents", "don't see any crack") or names regularity
/// ("uniform", "is normal") speaks for normal; one that does both, or only asks ("whether there is a defect"), says nothing. The last sentence that speaks decides.
/// </summary>
internal static partial class ReasoningClaim
{
    private const string Asked = @"\b(?:if|whether|determine)\b";
    internal const string Denied = @"\b(?:no|not|never|neither|nor|without|free\ of|free\ from|absence\ of|lacks?)\b|n['’]t\b";
    internal const string Turn = @"\b(?:but|however|although|though|except|while)\b";
    private const string Defect = @"(?:defect(?:s|ive)?|damaged?|damages|flaw(?:s|ed)?|scratch(?:es|ed)?|crack(?:s|ed)?|anomal(?:y|ies|ous)|abnormal(?:ity|ities)?|broken|irregular(?:ity|ities)?"
        + @"|chip(?:s|ped)|dent(?:s|ed)?|stain(?:s|ed)?|contaminat\w+|discolou?r\w*|deform\w+|imperfections?|faulty?)";
    private const string Regular = "(?:normal|regular|uniform|intact|flawless|undamaged|defect-free)";

    /// <summary>Defect or normal; null where it says neither.</summary>
    public static AnswerKind? Of(string reasoning) => Sentence().Matches(reasoning).Select(sentence => Claim(sentence.Value)).LastOrDefault(claim => claim is not null);

    private static AnswerKind? Claim(string sentence)
    {
        var (defect, normal) = (false, false);
        foreach (var mention in Mention().Matches(sentence).Where(mention => !mention.Groups["asked"].Success))
        {
            var speaksForDefect = mention.Groups["defect"].Success != mention.Groups["denied"].Success;
            defect |= speaksForDefect;
            normal |= !speaksForDefect;
        }

        return defect == normal ? null : defect ? AnswerKind.Defect : AnswerKind.Normal;
    }

    [GeneratedRegex(@"[^.!?;\n]+", RegexOptions.CultureInvariant)]
    internal static partial Regex Sentence();

    // A question or denial reaches to the next word of either kind, and over a list of such words, but not past a "but" and its like.
    [GeneratedRegex(
        $@"(?: (?: (?<asked>{Asked}) | (?<denied>{Denied}) ) (?: (?!{Turn}) . )*? )?
           \b (?: (?<defect>{Defect}) (?!-free) (?: [,\s]+ (?: (?:or|and|nor|any|visible) \s+ )* {Defect} )* | {Regular} ) \b",
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.IgnorePatternWhitespace)]
    private static partial Regex Mention();
}
