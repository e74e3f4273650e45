using LrIad.Engine.Data;

namespace LrIad.Engine.Tests.Data;

/// <summary>Files of every kind against what Pillow reads from them (Golden/images/make_images.py), and files that are none.</summary>
internal sealed class ImageFileTests
{
    private static IReadOnlyList<PillowVector> Vectors => PillowVector.All;

    [TestCaseSource(nameof(Vectors))]
    public void ReadsWhatPillowReads(PillowVector vector)
    {
        var image = ImageFile.Read(vector.Write());
        Assert.That((image.Width, image.Height), Is.EqualTo((vector.Width, vector.Height)));
        var worst = image.Data.Zip(vector.Pixels, (a, b) => Math.Abs(a - b)).Max();
        Assert.That(worst, Is.Zero, $"{image.Data.Zip(vector.Pixels).Count(pair => pair.First != pair.Second)} of {image.Data.Length} values differ, {worst} at most");
    }

    [TestCaseSource(nameof(Vectors))]
    public void ResizesAsPillowDoes(PillowVector vector)
    {
        foreach (var (width, height, pixels) in vector.Resized)
        {
            var image = Resampler.Resize(new RgbImage(vector.Width, vector.Height, vector.Pixels), width, height);
            Assert.That(image.Data, Is.EqualTo(pixels), $"{width} × {height}");
        }
    }
}
