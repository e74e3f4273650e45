using LrIad.Engine.Evaluate;
using LrIad.Engine.Study;

namespace LrIad.Engine.Tests.Study;

[TestFixture]
internal sealed class StudyTablesTests
{
    [Test]
    public void Rows_become_the_tables()
    {
        var text = StudyTables.Of([Row("focal", 1, 0.7), Row("base", 0, 0.6), Row("focal", 0, 0.8), Row("accuracy", 0, 0.75), Row("accuracy", 1, 0.55)]);
        Assert.Multiple(() =>
        {
            Assert.That(text, Does.Contain("## a → b\n\n10 test images, 4 of them defects, 0 of them trained on.\n"));
            Assert.That(text, Does.Contain("| always normal | – | 0.500 |  |"));
            Assert.That(text, Does.Contain("| `base`: untrained | – | 0.600 |  | 0.500 |"));
            Assert.That(text, Does.Contain("| `focal`: format + focal, p the share of the group that is right | 2 | 0.750 ± 0.071 | +0.150 ± 0.071 | 0.500 ± 0.000 |"));
            Assert.That(text, Does.Contain("| `accuracy`: format + accuracy | -0.100 ± 0.071 | 0 | 2 |"));
            Assert.That(text, Does.Contain("| category | base | accuracy | focal |"));
            Assert.That(text, Does.Contain("| gear | 0.600 (0.500) | 0.650 (0.500) | 0.750 (0.500) |"));
            Assert.That(text, Does.Not.Contain("NaN"));
        });
    }

    [Test]
    public void A_category_without_defects_has_dashes() =>
        Assert.That(StudyTables.Of([Row("base", 0, null)]), Does.Contain("| gear | – (0.500) |"));

    private static StudyRow Row(string arm, ulong seed, double? balanced)
    {
        var figures = new Figures { N = 10, TruePositives = 2, FalseNegatives = 2, TrueNegatives = 5, FalsePositives = 1, BalancedAccuracy = balanced, Recall = 0.5 };
        return new StudyRow
        {
            Arm = arm,
            Seed = seed,
            Direction = "a → b",
            Steps = 3,
            TrainingSeconds = 1.5,
            ZeroSpread = arm == "base" ? null : 0.25,
            Pooled = figures,
            BalancedAccuracyInterval = null,
            Classes = new Dictionary<string, Figures> { ["gear"] = figures },
            Baselines = new Dictionary<string, Figures> { ["always_normal"] = figures with { BalancedAccuracy = 0.5 } },
            Contradictions = 0,
            TrainingImages = null,
        };
    }
}
