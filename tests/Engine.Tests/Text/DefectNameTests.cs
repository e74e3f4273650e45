using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Text;

[TestFixture]
internal sealed class DefectNameTests
{
    [TestCase("crack", "I can see a hole near the center. The object has a defect.", false)]
    [TestCase("hole", "I can see a hole near the center. The object has a defect.", true)]
    [TestCase("crack", "It is cracked.", true)]
    [TestCase("crack", "Two fractures run across it.", true)]
    [TestCase("crack", "There are no cracks or scratches.", false)]
    [TestCase("crack", "There is no scratch, but a crack.", true)]
    [TestCase("crack", "It isn't intact, there is a crack.", true)]
    [TestCase("crack", "I don't see any scratch, dent or crack. There is a stain.", false)]
    [TestCase("chip", "A chipped corner.", true)]
    [TestCase("chip", "The chipboard is torn.", false)]
    [TestCase("metal_contamination", "There are dirt particles.", true)]
    [TestCase("metal_contamination", "The metal is torn.", false)]
    [TestCase("ScratchHead", "It was scratched.", true)]
    [TestCase("color", "The colours are regular and uniform.", false)]
    [TestCase("color", "The left half is discolored.", true)]
    [TestCase("discoloration", "A discoloured patch.", true)]
    [TestCase("squeezed_teeth", "Some teeth are out of place.", true)]
    [TestCase("squeezed_teeth", "They were squeezing it.", true)]
    [TestCase("poke", "", false)]
    public void Kinds(string name, string reasoning, bool named) => Assert.That(DefectName.Said(reasoning).Overlaps(new DefectName(name, "zipper").Kind), Is.EqualTo(named));

    [TestCase("fabric_border", "The rim is frayed.", true)]
    [TestCase("fabric_border", "The middle is frayed.", false)]
    [TestCase("thread_top", "Near the upper end.", true)]
    [TestCase("broken_small", "At the top.", false)]
    [TestCase("edges", "At the edge of the part.", true)]
    public void Places(string name, string reasoning, bool named) => Assert.That(DefectName.Said(reasoning).Overlaps(new DefectName(name, "zipper").Place), Is.EqualTo(named));

    [TestCase("combined")]
    [TestCase("defect_type_2")]
    [TestCase("003")]
    [TestCase("cable")]
    public void NamesThatSayNothing(string name)
    {
        var said = new DefectName(name, "cable");
        Assert.That((said.Kind.Count, said.Place.Count), Is.EqualTo((0, 0)));
    }

    [Test]
    public void APlaceAloneIsNoKind()
    {
        var said = new DefectName("top", "bottle");
        Assert.That((said.Kind.Count > 0, said.Place.Count > 0), Is.EqualTo((false, true)));
    }
}
