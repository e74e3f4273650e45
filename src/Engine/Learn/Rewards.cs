using System.Globalization;
using LrIad.Engine.Config;
using LrIad.Engine.Text;

namespace LrIad.Engine.Learn;

/// <summary>What a reward may look at: one completion, its sample's label, and what its group shows.</summary>
/// <param name="Answer">The parsed completion.</param>
/// <param name="Defect">The sample's label.</param>
/// <param name="ProbabilityOfRight">p of Eq. 4, in whichever of its meanings the run uses.</param>
/// <param name="ClassWeight">f of Eq. 4 for the sample's class.</param>
/// <param name="Options">Parameters.</param>
internal sealed record RewardContext(Answer Answer, bool Defect, double ProbabilityOfRight, double ClassWeight, RewardOptions Options)
{
    /// <summary>Whether the answer is valid and right.</summary>
    public bool IsRight => Answer.Kind == (Defect ? AnswerKind.Defect : AnswerKind.Normal);
}

/// <summary>A reward: a pure function of a completion and its circumstances.</summary>
internal delegate double Reward(RewardContext context);

/// <summary>Rewards by name (Eq. 3, Eq. 4 and the ablation's baseline; others can be added).</summary>
internal sealed class RewardRegistry
{
    private readonly SortedDictionary<string, Reward> _rewards = new(StringComparer.Ordinal)
    {
        ["format"] = context => context.Answer.IsValid ? 1 : 0,
        ["focal"] = Focal,
        ["accuracy"] = context => context.IsRight ? 1 : 0,
    };

    /// <summary>Adds or replaces a reward.</summary>
    public void Register(string name, Reward reward) => _rewards[name] = reward;

    /// <summary>The reward of a name.</summary>
    /// <exception cref="InputException">There is none.</exception>
    public Reward this[string name] => _rewards.TryGetValue(name, out var reward) ? reward : throw new InputException($"Unknown reward '{name}'; there are {string.Join(", ", _rewards.Keys)}.");

    // Eq. 4: alpha · (1 − p)^gamma · f for a right answer.
    private static double Focal(RewardContext context)
    {
        var value = context.Options.FocalAlpha * Math.Pow(1 - context.ProbabilityOfRight, context.Options.FocalGamma) * context.ClassWeight;
        return context.IsRight ? value : context.Options.FocalWrong == "penalty" ? -value : 0;
    }
}

/// <summary>
/// f of Eq. 4, where it is <c>auto</c>: the inverse frequency of a class over the last 1,000 training samples, starting from the data set's counts, scaled to mean
/// 1 over the two classes.
/// </summary>
internal sealed class ClassWindow
{
    private const int Size = 1000;

    private readonly Queue<bool> _window;
    private int _defects;

    /// <param name="window">What the window holds, oldest first.</param>
    public ClassWindow(IEnumerable<bool> window)
    {
        _window = new Queue<bool>(window);
        _defects = _window.Count(defect => defect);
    }

    /// <summary>What the window holds, oldest first.</summary>
    public IEnumerable<bool> Contents => _window;

    /// <summary>A window in the data set's proportions, classes spread evenly so that the proportions last while it fills with real samples.</summary>
    public static ClassWindow Start(int defects, int normals)
    {
        var window = new List<bool>(Size);
        for (var i = 1; i <= Size; i++)
        {
            window.Add((long)i * defects / (defects + normals) > (long)(i - 1) * defects / (defects + normals));
        }

        return new ClassWindow(window);
    }

    /// <summary>Takes in a training sample's class.</summary>
    public void Add(bool defect)
    {
        _window.Enqueue(defect);
        _defects += defect ? 1 : 0;
        if (_window.Count > Size)
        {
            _defects -= _window.Dequeue() ? 1 : 0;
        }
    }

    /// <summary>f for a class.</summary>
    public double Weight(bool defect)
    {
        // A class that the window lost sight of counts as one sample.
        var (defects, normals) = ((double)Math.Max(1, _defects), (double)Math.Max(1, _window.Count - _defects));
        var (forDefect, forNormal) = (1 / defects, 1 / normals);
        return 2 * (defect ? forDefect : forNormal) / (forDefect + forNormal);
    }
}

/// <summary>The rewards of a run: names resolved, options checked.</summary>
internal sealed class RewardRule
{
    private readonly RewardOptions _options;
    private readonly Reward[] _rewards;
    private readonly (double Defect, double Normal)? _fixedWeights;

    /// <exception cref="InputException">A name or option is unknown.</exception>
    public RewardRule(RewardOptions options, RewardRegistry registry)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(registry);
        _options = options;
        _rewards = options.Names.Count > 0 ? [.. options.Names.Select(name => registry[name])] : throw new InputException("At least one --reward is needed.");
        Require("--focal-p", options.FocalP, "group", "probe", "answer");
        Require("--focal-wrong", options.FocalWrong, "zero", "penalty");
        RequireNumber("--focal-alpha", options.FocalAlpha);
        RequireNumber("--focal-gamma", options.FocalGamma);
        _fixedWeights = options.FocalClassWeights == "auto" ? null : ParseWeights(options.FocalClassWeights);
    }

    /// <summary>Names of the rewards.</summary>
    public IReadOnlyList<string> Names => _options.Names;

    /// <summary>Whether the prompt's probe is needed.</summary>
    public bool WantsProbe => UsesFocal && _options.FocalP == "probe";

    /// <summary>Whether the option probabilities at each completion's own answer are needed.</summary>
    public bool WantsAnswerProbability => UsesFocal && _options.FocalP == "answer";

    private bool UsesFocal => _options.Names.Contains("focal");

    /// <summary>Each reward of each completion of a group: [completion][reward].</summary>
    /// <param name="answers">The parsed completions.</param>
    /// <param name="defect">The sample's label.</param>
    /// <param name="window">Class frequencies.</param>
    /// <param name="probe">Log-odds of defect over normal, where <see cref="WantsProbe"/>.</param>
    /// <param name="answerProbability">p of the right option at each completion's own answer (0 where it has none), where <see cref="WantsAnswerProbability"/>.</param>
    public double[][] Score(IReadOnlyList<Answer> answers, bool defect, ClassWindow window, double? probe, double[]? answerProbability)
    {
        ArgumentNullException.ThrowIfNull(answers);
        ArgumentNullException.ThrowIfNull(window);
        var right = answers.Count(answer => answer.Kind == (defect ? AnswerKind.Defect : AnswerKind.Normal));
        var weight = _fixedWeights is { } weights ? (defect ? weights.Defect : weights.Normal) : window.Weight(defect);
        return [.. answers.Select((answer, i) =>
        {
            var p = WantsProbe ? Sigmoid(defect ? probe!.Value : -probe!.Value)
                : WantsAnswerProbability ? answerProbability![i]
                : (right + 1.0) / (answers.Count + 2.0);
            var context = new RewardContext(answer, defect, p, weight, _options);
            return _rewards.Select((reward, r) => Finite(reward(context), _options.Names[r])).ToArray();
        })];
    }

    private static double Finite(double reward, string name) => double.IsFinite(reward) ? reward : throw new InputException($"The reward '{name}' came out as {reward.ToString(CultureInfo.InvariantCulture)}; it must be a finite number.");

    private static double Sigmoid(double logOdds) => 1 / (1 + Math.Exp(-logOdds));

    private static (double Defect, double Normal) ParseWeights(string text)
    {
        var parts = text.Split(',');
        return parts.Length == 2
            && double.TryParse(parts[0], NumberStyles.Float, CultureInfo.InvariantCulture, out var defect)
            && double.TryParse(parts[1], NumberStyles.Float, CultureInfo.InvariantCulture, out var normal)
            && double.IsFinite(defect) && double.IsFinite(normal) && defect >= 0 && normal >= 0
            ? (defect, normal)
            : throw new InputException($"--focal-class-weights is '{text}'; it is auto, or two numbers DEFECT,NORMAL.");
    }

    private static void RequireNumber(string option, double value)
    {
        if (!double.IsFinite(value) || value < 0)
        {
            throw new InputException($"{option} is {value.ToString(CultureInfo.InvariantCulture)}; it must be a number from 0 on.");
        }
    }

    private static void Require(string option, string value, params string[] allowed)
    {
        if (!allowed.Contains(value))
        {
            throw new InputException($"{option} is '{value}'; it is {string.Join(", ", allowed[..^1])} or {allowed[^1]}.");
        }
    }
}
