using System.Text.RegularExpressions;

namespace LrIad.Engine.Text;

/// <summary>
/// What a data set's name of a defect ("metal_contamination", "scratch_head", "fabric_border") says of its kind and place, and whether a piece of reasoning says the same: a
/// rule of thumb, by word stems and a few synonyms. Sentences that speak for a normal part and what is denied do not count. Where a name has words for known kinds, one of those
/// must be there; otherwise any of its words will do.
/// </summary>
internal sealed partial class DefectName
{
    // Before what is made with them.
    private static readonly string[] Endings = ["ations", "ation", "ated", "ions", "ings", "ion", "ing", "ies", "es", "ed", "s", "e", "y"];

    private static readonly string[][] KnownKinds = Stems(
        "crack fracture fissure", "scratch scrape scuff abrasion", "hole puncture perforation", "chip nick", "stain spot smudge smear", "contamination dirt residue",
        "discoloration discolouration color colour", "cut slit incision", "broken break breakage", "bent bend deformed warped", "missing absent", "dent indentation", "imprint print");

    private static readonly string[][] KnownPlaces = Stems(
        "edge rim border margin", "top upper", "bottom lower", "left", "right", "center centre middle", "corner", "side", "front", "back rear", "inside inner interior", "outside outer exterior", "head", "neck");

    private static readonly HashSet<string> SayNothing =
        [.. "defect defective fault faulty anomaly damage bad combined other misc mixed small large big thin thick kind type and the with part".Split(' ').Select(Stem)];

    /// <param name="name">The name, words parted by anything that is no letter.</param>
    /// <param name="objectName">The kind of object, whose own words say nothing of its defects.</param>
    public DefectName(string name, string objectName)
    {
        string[] words = [.. WordsOf(name).Except(WordsOf(objectName)).Where(word => !SayNothing.Contains(word))];
        Place = Alike(words, KnownPlaces);
        var known = Alike(words, KnownKinds);
        Kind = known.Count > 0 ? known : [.. words.Except(Place)];
    }

    /// <summary>Stems of which one names the kind; empty where the name says none.</summary>
    public IReadOnlyCollection<string> Kind { get; }

    /// <summary>Stems of which one names the place; empty where the name says none.</summary>
    public IReadOnlyCollection<string> Place { get; }

    /// <summary>The stems that a piece of reasoning says of a defect.</summary>
    public static IReadOnlySet<string> Said(string reasoning) => ReasoningClaim.Sentence().Matches(reasoning)
        .Select(sentence => sentence.Value)
        .Where(sentence => ReasoningClaim.Of(sentence) != AnswerKind.Normal)
        .SelectMany(sentence => WordsOf(DeniedPart().Replace(sentence, " ")))
        .ToHashSet(StringComparer.Ordinal);

    private static HashSet<string> Alike(string[] words, string[][] known) => [.. known.Where(group => group.Intersect(words).Any()).SelectMany(group => group)];

    private static string[][] Stems(params string[] groups) => [.. groups.Select(group => WordsOf(group).ToArray())];

    private static IEnumerable<string> WordsOf(string text) => Word().Matches(text).Select(word => Stem(word.Value.ToLowerInvariant())).Where(stem => stem.Length > 1);

    // One ending less, and a doubled last letter once: chipped, chips and chip are chip. Three letters stay in any case.
    private static string Stem(string word)
    {
        var ending = Array.Find(Endings, ending => word.Length >= ending.Length + 3 && word.EndsWith(ending, StringComparison.Ordinal));
        var stem = ending is null ? word : word[..^ending.Length];
        return ending is not null && stem.Length > 3 && stem[^1] == stem[^2] ? stem[..^1] : stem;
    }

    // Words end where letters do, and where a capital follows a small letter.
    [GeneratedRegex(@"\p{Lu}?\p{Ll}+|\p{Lu}+(?!\p{Ll})", RegexOptions.CultureInvariant)]
    private static partial Regex Word();

    // Up to a "but" and its like, or a clause of its own.
    [GeneratedRegex($@"(?:{ReasoningClaim.Denied}) (?: (?!{ReasoningClaim.Turn} | ,\s*(?:there|it|I|which)\b) . )*", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.IgnorePatternWhitespace)]
    private static partial Regex DeniedPart();
}
