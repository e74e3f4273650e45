using System.Globalization;
using System.Text;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Study;

/// <summary>A study's rows as the paper's tables, in Markdown: Tables III and IV a direction each, Tables V and VI by category. Balanced accuracy and recall lead.</summary>
internal static class StudyTables
{
    /// <summary>What the other arms are compared with.</summary>
    private const string Compared = "focal";

    /// <summary>The whole document.</summary>
    public static string Of(IReadOnlyList<StudyRow> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        var text = new StringBuilder("# Study\n\nVerdicts are greedy answers. A cell with several seeds is their mean ± standard deviation; a change is against the untrained model on the same images.\n");
        foreach (var direction in rows.GroupBy(row => row.Direction))
        {
            Direction(text, direction.Key, [.. direction]);
        }

        return text.ToString();
    }

    private static void Direction(StringBuilder text, string name, StudyRow[] rows)
    {
        var arms = Ordered(rows);
        var untrained = arms.FirstOrDefault(arm => arm[0].Arm == StudyArm.Base)?[0];
        text.Append(CultureInfo.InvariantCulture, $"\n## {name}\n\n{rows[0].Pooled.N} test images, {rows[0].Pooled.TruePositives + rows[0].Pooled.FalseNegatives} of them defects, {rows.Max(row => row.TrainingImages) ?? 0} of them trained on.\n\n");

        // Tables III and IV.
        Line(text, "method", "seeds", "balanced accuracy", "change", "recall", "specificity", "AUROC", "accuracy", "macro-F1", "invalid", "groups without spread", "training, s");
        Line(text, [.. Enumerable.Repeat("---", 12)]);
        foreach (var (baseline, figures) in (rows.FirstOrDefault(row => row.Baselines.ContainsKey("untrained_probe")) ?? rows[0]).Baselines)
        {
            Line(text, [Title(baseline), "–", Show(figures.BalancedAccuracy), "", .. Rest([figures]), "–", "–"]);
        }

        foreach (var arm in arms)
        {
            var figures = arm.Select(row => row.Pooled).ToArray();
            var change = untrained is null || arm[0].Arm == StudyArm.Base ? "" : Mean(arm.Select(row => row.Pooled.BalancedAccuracy - untrained.Pooled.BalancedAccuracy), signed: true);
            var trained = arm[0].Arm != StudyArm.Base;
            Line(
                text,
                [
                    Meaning(arm[0].Arm), trained ? arm.Length.ToString(CultureInfo.InvariantCulture) : "–", Mean(figures.Select(figure => figure.BalancedAccuracy)), change, .. Rest(figures),
                    trained ? Mean(arm.Select(row => row.ZeroSpread)) : "–", trained ? Show(arm.Average(row => row.TrainingSeconds), "F0") : "–",
                ]);
        }

        Pairs(text, arms);

        // Tables V and VI: accuracy / macro-F1 as the paper prints them, then what leads here.
        Categories(text, arms, "Accuracy / macro-F1 by category", figures => $"{Mean(figures.Select(f => f.Accuracy), spread: false)} / {Mean(figures.Select(f => f.F1Macro), spread: false)}");
        Categories(text, arms, "Balanced accuracy (recall) by category", figures => $"{Mean(figures.Select(f => f.BalancedAccuracy), spread: false)} ({Mean(figures.Select(f => f.Recall), spread: false)})");
    }

    // Seeds are drawn alike for all arms, so that runs of one seed are pairs.
    private static void Pairs(StringBuilder text, StudyRow[][] arms)
    {
        var compared = arms.FirstOrDefault(arm => arm[0].Arm == Compared);
        var others = arms.Where(arm => arm[0].Arm is not (Compared or StudyArm.Base)).ToArray();
        if (compared is null || others.Length == 0)
        {
            return;
        }

        text.Append(CultureInfo.InvariantCulture, $"\nBalanced accuracy less that of `{Compared}` with the same seed:\n\n");
        Line(text, "method", "difference", "seeds with more", "seeds with less");
        Line(text, [.. Enumerable.Repeat("---", 4)]);
        foreach (var other in others)
        {
            var differences = (from row in other
                               join same in compared on row.Seed equals same.Seed
                               select row.Pooled.BalancedAccuracy - same.Pooled.BalancedAccuracy).ToArray();
            Line(
                text, Meaning(other[0].Arm), Mean(differences, signed: true), differences.Count(difference => difference > 0).ToString(CultureInfo.InvariantCulture),
                differences.Count(difference => difference < 0).ToString(CultureInfo.InvariantCulture));
        }
    }

    private static void Categories(StringBuilder text, StudyRow[][] arms, string title, Func<Figures[], string> cell)
    {
        text.Append(CultureInfo.InvariantCulture, $"\n{title}:\n\n");
        Line(text, ["category", .. arms.Select(arm => arm[0].Arm)]);
        Line(text, [.. Enumerable.Repeat("---", arms.Length + 1)]);
        foreach (var category in arms[0][0].Classes.Keys)
        {
            Line(text, [category, .. arms.Select(arm => cell([.. arm.Select(row => row.Classes[category])]))]);
        }

        Line(text, ["**all**", .. arms.Select(arm => cell([.. arm.Select(row => row.Pooled)]))]);
    }

    private static string[] Rest(Figures[] figures) =>
    [
        Mean(figures.Select(f => f.Recall)), Mean(figures.Select(f => f.Specificity)), Mean(figures.Select(f => f.Auroc)), Mean(figures.Select(f => f.Accuracy)), Mean(figures.Select(f => f.F1Macro)),
        Show(figures.Average(f => f.Invalid), "0.#"),
    ];

    // As they stand in StudyArm.All, the runs of an arm by seed.
    private static StudyRow[][] Ordered(StudyRow[] rows) =>
        [.. rows.GroupBy(row => row.Arm).OrderBy(arm => StudyArm.All.Select(known => known.Name).ToList().IndexOf(arm.Key)).Select(arm => arm.OrderBy(row => row.Seed).ToArray())];

    private static string Title(string baseline) => baseline == "untrained_probe" ? "untrained, probe above 0" : baseline.Replace('_', ' ');

    private static string Meaning(string arm) => StudyArm.All.FirstOrDefault(known => known.Name == arm) is { } known ? $"`{arm}`: {known.Meaning}" : $"`{arm}`";

    private static string Mean(IEnumerable<double?> values, bool signed = false, bool spread = true)
    {
        var known = values.OfType<double>().ToArray();
        if (known.Length == 0)
        {
            return "–";
        }

        var mean = known.Average();
        var shown = Show(mean, signed ? "+0.000;-0.000;0.000" : "F3");
        return known.Length == 1 || !spread ? shown : $"{shown} ± {Show(Math.Sqrt(known.Sum(value => (value - mean) * (value - mean)) / (known.Length - 1)))}";
    }

    private static string Show(double? value, string format = "F3") => value?.ToString(format, CultureInfo.InvariantCulture) ?? "–";

    private static void Line(StringBuilder text, params IEnumerable<string> cells) => text.Append("| ").AppendJoin(" | ", cells).Append(" |\n");
}
