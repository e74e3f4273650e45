using LrIad.Engine.Compute;
using LrIad.Engine.Data;

namespace LrIad.Engine.Model;

/// <summary>Patches to image features: patch embedding, layers with full attention within an image, and the 2×2 merger.</summary>
public sealed class VisionEncoder(QwenModel model, Backend backend)
{
    /// <summary>Patches computed side by side; a larger image is still computed whole.</summary>
    private const int PatchesAtATime = 8192;

    private readonly VisionGeometry _vision = model.Geometry.Vision;

    /// <summary>Computes the features of images of any size.</summary>
    /// <param name="images">The images.</param>
    /// <param name="features">[sum of merged tokens, hidden] out, image after image.</param>
    public void Encode(IReadOnlyList<ImagePatches> images, Tensor features)
    {
        ArgumentNullException.ThrowIfNull(images);
        var row = 0;
        for (int first = 0, count; first < images.Count; first += count)
        {
            var patches = images[first].Patches;
            for (count = 1; first + count < images.Count && patches + images[first + count].Patches <= PatchesAtATime; count++)
            {
                patches += images[first + count].Patches;
            }

            var chunk = images.Skip(first).Take(count).ToArray();
            EncodeChunk(chunk, patches, features.Slice(row, patches / 4));
            row += patches / 4;
        }
    }

    private void EncodeChunk(ImagePatches[] images, int patches, Tensor features)
    {
        using var arena = backend.CreateArena($"encoding {images.Length} images of {patches} patches");
        var type = backend.ActivationType;
        var pixels = arena.Allocate(ElementType.Float32, patches, _vision.PatchValues);
        var x = arena.Allocate(type, patches, _vision.EmbedDim);
        var q = arena.Allocate(type, patches, _vision.EmbedDim);
        var o = arena.Allocate(type, patches, _vision.EmbedDim);
        var logSumExp = arena.Allocate(ElementType.Float32, patches, _vision.Heads);
        var cache = new KvCache(backend, arena, type, 1, _vision.Heads, _vision.HeadDim, images.Sum(image => KvCache.BlocksFor(image.Patches)));
        var batch = Pack(images, cache, pixels);
        var rows = arena.Allocate<TokenRow>(patches);
        var work = new AttentionWork(backend, arena);
        backend.Upload<TokenRow>(batch.Rows.ToArray(), rows);
        work.Set(batch.Items.ToArray(), batch.Blocks.ToArray());

        backend.PatchEmbed(pixels, model.PatchEmbedding, x);
        foreach (var layer in model.VisionLayers)
        {
            backend.ProjectQkv(x, layer.Qkv, null, default, model.VisionRotary, rows, q, cache.Layers[0], default);
            backend.Attend(q, cache.Layers[0], work, o, logSumExp);
            backend.ProjectOut(o, layer.Output, x, x);
            backend.FeedForward(x, layer.FeedForward, x, default);
        }

        backend.MergePatches(x, model.Merger, features);
    }

    private PackedBatch Pack(ImagePatches[] images, KvCache cache, Tensor pixels)
    {
        var batch = new PackedBatch();
        for (var i = 0; i < images.Length; i++)
        {
            var image = images[i];
            backend.Upload(image.Pixels, pixels.Slice(batch.Count, image.Patches));
            var firstRow = batch.Count;
            var segment = cache.NewSegment();
            for (var patch = 0; patch < image.Patches; patch++)
            {
                batch.AddRow(segment, 0, Position(patch % (image.GridH * image.GridW), image.GridW), adapter: false);
            }

            batch.See(firstRow, image.Patches, segment, group: i);
        }

        return batch;
    }

    // Patches come in 2×2 squares, squares in rows.
    private (int T, int H, int W) Position(int patch, int gridWidth)
    {
        var merge = _vision.MergeSize;
        var (square, within) = (patch / (merge * merge), patch % (merge * merge));
        var squaresInARow = gridWidth / merge;
        return (0, (square / squaresInARow * merge) + (within / merge), (square % squaresInARow * merge) + (within % merge));
    }
}
