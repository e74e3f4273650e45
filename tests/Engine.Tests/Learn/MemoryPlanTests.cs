using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Learn;

internal sealed class MemoryPlanTests
{
    private const long GiB = 1L << 30;

    // One image of 506 tokens, 8 × 8 completions of 200 tokens.
    private static readonly TrainConfig Paper = new() { MaxPromptLength = 608, Sampling = new SamplingOptions { MaxCompletionLength = 200 } };

    [Test]
    public void Seven_billion_parameters_train_in_32_GiB()
    {
        var plan = MemoryPlan.For(ModelGeometry.Qwen2Vl7B, Paper, ElementType.BFloat16, null);
        using (Assert.EnterMultipleScope())
        {
            // Qwen2-VL-7B has 8.29 billion parameters in all.
            Assert.That(plan.Weights / 2e9, Is.EqualTo(8.29).Within(0.01));
            Assert.That((plan.PassRows, plan.Recompute), Is.EqualTo((2 * (608 + (8 * 200)), false)), "two groups");
            Assert.That(plan.Total, Is.LessThan(32 * GiB));
        }
    }

    [Test]
    public void Short_groups_go_side_by_side_as_far_as_memory_allows()
    {
        var config = Paper with { Sampling = new SamplingOptions { MaxCompletionLength = 20 } };
        MemoryPlan Plan(long? free) => MemoryPlan.For(ModelGeometry.Qwen2Vl7B, config, ElementType.BFloat16, free);
        var all = Plan(null);
        var fewer = Plan(all.Total - 1);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(all.PassRows, Is.EqualTo(6 * 768));
            Assert.That(fewer.PassRows, Is.EqualTo(5 * 768));
            Assert.That(fewer.Total, Is.LessThan(all.Total));
        }
    }

    [Test]
    public void Layers_are_computed_twice_where_memory_asks_for_it()
    {
        MemoryPlan Plan(string recompute, long? free) => MemoryPlan.For(ModelGeometry.Qwen2Vl7B, Paper with { Recompute = recompute }, ElementType.BFloat16, free);
        var (kept, twice) = (Plan("auto", 40 * GiB), Plan("auto", 22 * GiB));
        using (Assert.EnterMultipleScope())
        {
            Assert.That((kept.Recompute, twice.Recompute), Is.EqualTo((false, true)));
            Assert.That(twice.PassRows, Is.EqualTo(2 * (608 + (8 * 200))));
            Assert.That(twice.Passes, Is.LessThan(kept.Passes / 4));
            Assert.That(twice.Describe(22 * GiB), Does.Contain("every layer computed twice"));
            Assert.That(Plan("always", null).Recompute, Is.True);
            Assert.That(() => Plan("never", 22 * GiB), Throws.TypeOf<InputException>().With.Message.Contain("--recompute never"));
        }
    }

    [Test]
    public void What_does_not_fit_is_told_with_what_takes_how_much()
    {
        var error = Assert.Throws<InputException>(() => MemoryPlan.For(ModelGeometry.Qwen2Vl7B, Paper, ElementType.BFloat16, 19 * GiB));
        Assert.That(error.Message, Does.Contain("19.0 free").And.Contain("weights").And.Contain("--num-generations"));
    }
}
