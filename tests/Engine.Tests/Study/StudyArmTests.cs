using System.Text.Json;
using LrIad.Engine.Config;
using LrIad.Engine.Study;

namespace LrIad.Engine.Tests.Study;

[TestFixture]
internal sealed class StudyArmTests
{
    [TestCase("accuracy", """reward.names=["format","accuracy"]""")]
    [TestCase("focal")]
    [TestCase("focal-probe", """reward.focal_p="probe" """)]
    [TestCase("focal-answer", """reward.focal_p="answer" """)]
    [TestCase("no-class-factor", """reward.focal_class_weights="1,1" """)]
    [TestCase("class-factor-only", "reward.focal_gamma=0")]
    [TestCase("balance", "balance=true")]
    [TestCase("accuracy-balance", "balance=true", """reward.names=["format","accuracy"]""")]
    [TestCase("scale-batch")]
    [TestCase("scale-group", """objective.scale_rewards="group" """)]
    [TestCase("scale-none", """objective.scale_rewards="none" """)]
    [TestCase("dr_grpo", """objective.loss_type="dr_grpo" """)]
    [TestCase("dapo", """objective.loss_type="dapo" """)]
    [TestCase("gspo", """objective.loss_type="gspo" """)]
    public void An_arm_changes_what_its_name_says_and_nothing_else(string name, params string[] changes)
    {
        var shared = new TrainConfig { Model = "m", Steps = 7 };
        var (before, after) = (Fields(shared), Fields(StudyArm.Find([name]).Single().Change!(shared)));
        Assert.That(after.Except(before), Is.EquivalentTo(changes.Select(change => change.Trim())));
    }

    [Test]
    public void Every_arm_is_tested_above() =>
        Assert.That(
            StudyArm.All.Select(arm => arm.Name).Where(name => name != StudyArm.Base),
            Is.EquivalentTo(typeof(StudyArmTests).GetMethod(nameof(An_arm_changes_what_its_name_says_and_nothing_else))!.GetCustomAttributes(false).OfType<TestCaseAttribute>().Select(test => test.Arguments[0])));

    [Test]
    public void All_names_every_arm_and_an_unknown_one_is_told() => Assert.Multiple(() =>
    {
        Assert.That(StudyArm.Find(["all"]), Is.EqualTo(StudyArm.All));
        Assert.That(() => StudyArm.Find(["focal", "fokal"]), Throws.TypeOf<InputException>().With.Message.Contains("'fokal'").And.Message.Contains("class-factor-only"));
    });

    private static IEnumerable<string> Fields(TrainConfig config) => Fields("", JsonSerializer.SerializeToElement(config, ConfigRules.Json));

    private static string[] Fields(string prefix, JsonElement element) =>
        [.. element.EnumerateObject().SelectMany(field => field.Value.ValueKind == JsonValueKind.Object
            ? Fields($"{prefix}{field.Name}.", field.Value)
            : [$"{prefix}{field.Name}={JsonSerializer.Serialize(field.Value)}"])];
}
