using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Evaluate;

[TestFixture]
internal sealed class NamedDefectsTests
{
    [Test]
    public void CountsFoundDefectsWhoseReasoningSaysTheirName()
    {
        var named = NamedDefects.Of(
        [
            Of("crack", 1, "I can see a crack."), Of("crack", 1, "I can see a hole."), Of("crack", 0, "I can see a crack, but it is normal."), Of("crack", null, "A crack."),
            Of("hole_edge", 1, "A hole at the border."), Of("hole_edge", 1, "A crack and a hole."), Of("combined", 1, "A crack."), Of(null, 1, "A crack."), Of(null, 1, "A crack.", label: 0),
        ])!;
        Assert.Multiple(() =>
        {
            Assert.That((named.Kind!.Images, named.Kind.Named, named.Kind.Share), Is.EqualTo((4, 3, 0.75)));

            // Other names: hole for the two cracks (once), crack for the two holes (once).
            Assert.That(named.Kind.ShareOfOthers, Is.EqualTo(0.5));
            Assert.That((named.Place!.Images, named.Place.Named, named.Place.ShareOfOthers), Is.EqualTo((2, 1, (double?)null)));
            Assert.That(named.Types.Select(type => (type.Key, type.Value.Images, type.Value.Named)), Is.EqualTo(new[] { ("crack", 2, 1), ("hole_edge", 2, 2) }));
        });
    }

    [Test]
    public void NamesForTheSameAreNoOthers()
    {
        var named = NamedDefects.Of([Of("scratch_head", 1, "A scratch."), Of("scratch_neck", 1, "A scratch.")])!;
        Assert.That((named.Kind!.Named, named.Kind.ShareOfOthers), Is.EqualTo((2, (double?)null)));
    }

    [Test]
    public void NullWhereThereIsNothingToSay()
    {
        var unfound = NamedDefects.Of([Of("crack", 0, "Regular.")])!;
        Assert.Multiple(() =>
        {
            Assert.That(NamedDefects.Of([Of(null, 1, "A crack.")]), Is.Null);
            Assert.That(NamedDefects.Of([]), Is.Null);
            Assert.That((unfound.Kind!.Images, unfound.Kind.Share, unfound.Place), Is.EqualTo((0, (double?)null, (Naming?)null)));
            Assert.That(NamedDefects.Of([Of("combined", 1, "A crack.")])!.Kind, Is.Null);
        });
    }

    private static Prediction Of(string? type, int? verdict, string reasoning, int label = 1) => new()
    {
        ImagePath = "",
        Object = "zipper",
        GtLabel = label,
        PredLabel = verdict,
        PredScore = 0,
        Explanation = reasoning,
        Completion = reasoning,
        Valid = verdict is not null,
        DefectType = type,
    };
}
