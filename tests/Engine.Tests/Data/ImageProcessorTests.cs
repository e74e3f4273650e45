using CsCheck;
using LrIad.Engine.Data;
using LrIad.Engine.Tests.Flow;

namespace LrIad.Engine.Tests.Data;

/// <summary>Sizes, order and values of patches. (Whole pixel_values against the reference: GoldenModelTests.)</summary>
internal sealed class ImageProcessorTests
{
    private static readonly PreprocessorSettings Published =
        new(14, 2, 2, 56 * 56, 28 * 28 * 1280, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);

    [TestCase(140, 140, 140, 140)]
    [TestCase(1024, 1024, 616, 616)]
    [TestCase(1562, 960, 784, 476)]
    [TestCase(960, 1562, 476, 784)]
    [TestCase(1000, 10, 560, 28)]
    [TestCase(14, 14, 56, 56)]
    [TestCase(42, 70, 56, 56)]
    [TestCase(98, 126, 112, 112)]
    [TestCase(1, 200, 28, 812)]
    [TestCase(200, 1, 812, 28)]
    [TestCase(6000, 30, 5992, 28)]
    [TestCase(8000, 8000, 616, 616)]
    [TestCase(28, 28, 56, 56)]
    [TestCase(57, 55, 56, 56)]
    [TestCase(700, 840, 560, 672)]
    public void SizesAreThoseOfTheReference(int width, int height, int resizedWidth, int resizedHeight) =>
        Assert.That(ImageProcessor.SmartResize(width, height, 28, 3136, 401_408), Is.EqualTo((resizedWidth, resizedHeight)));

    [Test]
    public void SizesKeepTheLimits() => Gen.Select(Gen.Int[1, 9000], Gen.Double[0.005, 200]).Sample((width, ratio) =>
    {
        var height = Math.Clamp((int)(width * ratio), (width + 199) / 200, 200 * width);
        var (w, h) = ImageProcessor.SmartResize(width, height, 28, 3136, 401_408);
        Assert.That((w % 28, h % 28), Is.EqualTo((0, 0)));
        Assert.That(w * h, Is.InRange(3136, 401_408));
    });

    [Test]
    public void PatchesFollowEachOtherBySquares()
    {
        // 84 × 56 pixels whose colour tells where they are.
        var folder = TestFiles.NewFolder();
        var file = Pictures.WritePng(Path.Combine(folder, "where.png"), 84, 56, (x, y) => ((byte)x, (byte)y, (byte)((x / 14) + (10 * (y / 14)))));
        var image = new ImageProcessor(Published, 401_408).Process(file);

        Assert.That((image.GridT, image.GridH, image.GridW, image.Patches, image.MergedTokens), Is.EqualTo((1, 4, 6, 24, 6)));
        var pixels = GoldenPass.Pixels(image, Published.NormalisedLevels(), frames: 2);
        Assert.That(pixels, Has.Length.EqualTo(24 * 1176));
        var patch = 0;
        foreach (var (top, left) in new[] { (0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4) })
        {
            foreach (var (y, x) in new[] { (top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1) })
            {
                for (var i = 0; i < 1176; i++)
                {
                    var (channel, inY, inX) = (i / 392, i / 14 % 14, i % 14);
                    var value = channel switch { 0 => (x * 14) + inX, 1 => (y * 14) + inY, _ => x + (10 * y) };
                    var expected = ((value / 255.0) - Published.Mean[channel]) / Published.Std[channel];
                    Assert.That(pixels[(patch * 1176) + i], Is.EqualTo(expected).Within(1e-6), $"patch {patch}, value {i}");
                }

                patch++;
            }
        }
    }

    [Test]
    public void TheRunsLimitCapsTheModels()
    {
        var file = Pictures.WritePng(Path.Combine(TestFiles.NewFolder(), "large.png"), 500, 400, (x, y) => ((byte)x, (byte)y, 0));
        Assert.That(new ImageProcessor(Published, 50_000).Process(file).Patches * 196, Is.LessThanOrEqualTo(50_000));
        Assert.That(new ImageProcessor(Published with { MaxPixels = 50_000 }, 401_408).Process(file).Patches * 196, Is.LessThanOrEqualTo(50_000));
        Assert.That(new ImageProcessor(Published, 401_408).Process(file).Patches * 196, Is.GreaterThan(190_000));
    }

    [Test]
    public void AStripOverTwoHundredToOneIsAnError()
    {
        var folder = TestFiles.NewFolder();
        var strip = Pictures.WritePng(Path.Combine(folder, "strip.png"), 402, 2, (_, _) => (1, 2, 3));
        var error = Assert.Throws<InputException>(() => new ImageProcessor(Published, 401_408).Process(strip));
        Assert.That(error.Message, Does.Contain(strip).And.Contain("402 × 2").And.Contain("200 times"));
        Assert.That(new ImageProcessor(Published, 401_408).Process(Pictures.WritePng(Path.Combine(folder, "just.png"), 400, 2, (_, _) => (1, 2, 3))).GridH, Is.EqualTo(2));
    }

    [Test]
    public void ThreadsDoNotDisturbEachOther()
    {
        var processor = new ImageProcessor(Published, 401_408);
        var files = PillowVector.All.Select(vector => vector.Write()).ToArray();
        var alone = Array.ConvertAll(files, file => processor.Process(file).Levels);
        Parallel.For(0, 4 * files.Length, i => Assert.That(processor.Process(files[i % files.Length]).Levels.AsSpan().SequenceEqual(alone[i % files.Length])));
    }
}
