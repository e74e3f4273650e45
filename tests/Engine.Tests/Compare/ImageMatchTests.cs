using LrIad.Engine.Compare;

namespace LrIad.Engine.Tests.Compare;

[TestFixture]
internal sealed class ImageMatchTests
{
    private static readonly ImageMatch Match = new(["/a/gear/good/1.png", "/a/tile/good/1.png", "/a/tile/good/2.png", "3.png"]);

    [TestCase("/a/gear/good/1.png", 0)]
    [TestCase("elsewhere/gear/good/1.png", 0)]
    [TestCase("tile/good/1.png", 1)]
    [TestCase("2.png", 2)]
    [TestCase("anywhere/3.png", 3)]
    [TestCase("1.png", null)]
    [TestCase("good/1.png", null)]
    [TestCase("/a/gear/good/4.png", null)]
    [TestCase("", null)]
    public void An_image_is_found_by_the_longest_end_that_one_alone_has(string path, int? number) => Assert.That(Match.Find(path), Is.EqualTo(number));
}
