using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Data;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Model;

/// <summary>An image's features do not depend on the images beside it.</summary>
internal sealed class VisionEncoderTests
{
    [Test]
    public void Images_of_any_size_give_the_same_alone_and_together()
    {
        using var backend = new CpuBackend();
        using var model = QwenModel.Load(TestFiles.TinyModel, backend);
        var random = new Random(3);
        (int H, int W)[] sizes = [(2, 2), (2, 40), (36, 2), (30, 22), .. Enumerable.Repeat((10, 12), 62), (4, 4), (28, 30)];
        ImagePatches[] images = [.. sizes.Select(size => Image(random, size.H, size.W))];
        Assert.That(images.Sum(image => image.Patches), Is.GreaterThan(8192), "more than one pass takes");

        var together = Encode(model, backend, images);
        var row = 0;
        foreach (var image in images)
        {
            var alone = Encode(model, backend, image);
            Assert.That(together.AsSpan(row, alone.Length).SequenceEqual(alone), Is.True, $"{image.GridH} x {image.GridW}");
            row += alone.Length;
        }
    }

    [Test]
    public void Turning_the_grid_changes_the_features()
    {
        // The same patches as a wide and as a high image: only the positions differ.
        using var backend = new CpuBackend();
        using var model = QwenModel.Load(TestFiles.TinyModel, backend);
        var random = new Random(4);
        var image = Image(random, 2, 8);
        Assert.That(Encode(model, backend, image), Is.Not.EqualTo(Encode(model, backend, image with { GridH = 8, GridW = 2 })));
    }

    private static ImagePatches Image(Random random, int height, int width)
    {
        var levels = new byte[height * width * 3 * 14 * 14];
        random.NextBytes(levels);
        return new ImagePatches(levels, 1, height, width);
    }

    private static float[] Encode(QwenModel model, Backend backend, params ImagePatches[] images)
    {
        using var arena = backend.CreateArena("features");
        var features = arena.Allocate(ElementType.Float32, images.Sum(image => image.MergedTokens), model.Geometry.Text.Hidden);
        using var encoder = new VisionEncoder(model, backend);
        encoder.Encode(images, features);
        var values = new float[features.Length];
        backend.Download(features, values);
        return values;
    }
}
