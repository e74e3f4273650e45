using LrIad.Engine.Compute;
using LrIad.Engine.Data;

namespace LrIad.Engine.Model;

/// <summary>Patches to image features: patch embedding, layers with full attention within an image, and the 2×2 merger.</summary>
internal sealed class VisionEncoder(QwenModel model, Backend backend) : IDisposable
{
    /// <summary>Patches computed side by side; a larger image is still computed whole.</summary>
    public const int PatchesAtATime = 8192;

    // Images of one data set are often of one size: what does not depend on their pixels is kept from one chunk to the next.
    private Layout? _layout;

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

            EncodeChunk([.. images.Skip(first).Take(count)], features.Slice(row, patches / 4));
            row += patches / 4;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _layout?.Dispose();

    private void EncodeChunk(ImagePatches[] images, Tensor features)
    {
        var grids = images.Select(image => (image.GridT, image.GridH, image.GridW)).ToArray();
        if (_layout is null || !_layout.Grids.SequenceEqual(grids))
        {
            _layout?.Dispose();
            _layout = null;
            _layout = new Layout(model, backend, grids);
        }

        var (pixels, x, q, o) = (_layout.Pixels, _layout.X, _layout.Q, _layout.O);
        var at = 0;
        foreach (var image in images)
        {
            backend.Upload<byte>(image.Levels, _layout.Levels.Slice(at, image.Levels.Length));
            at += image.Levels.Length;
        }

        backend.LookUpPixels(_layout.Levels, _layout.Values, pixels);
        backend.PatchEmbed(pixels, model.PatchEmbedding, x);
        foreach (var layer in model.VisionLayers)
        {
            backend.ProjectQkv(x, layer.Qkv, null, default, model.VisionRotary, _layout.Rows, q, _layout.KeyValue, default);
            backend.Attend(q, _layout.KeyValue, _layout.Work, o, _layout.LogSumExp);
            backend.ProjectOut(o, layer.Output, x, x);
            backend.FeedForward(x, layer.FeedForward, x, default);
        }

        backend.MergePatches(x, model.Merger, features);
    }

    /// <summary>Buffers, positions and attention work for images of some sizes.</summary>
    private sealed class Layout : IDisposable
    {
        private readonly Arena _arena;

        public Layout(QwenModel model, Backend backend, (int T, int H, int W)[] grids)
        {
            var vision = model.Geometry.Vision;
            Grids = grids;
            var patches = grids.Select(grid => grid.T * grid.H * grid.W).ToArray();
            var (total, type) = (patches.Sum(), backend.ActivationType);
            _arena = backend.CreateArena($"encoding {grids.Length} images of {total} patches");
            try
            {
                Levels = _arena.Allocate<byte>(total * vision.PatchValues / vision.TemporalPatchSize);
                Values = _arena.Allocate<float>(3 * 256);
                Pixels = _arena.Allocate(type, total, vision.PatchValues);
                X = _arena.Allocate(type, total, vision.EmbedDim);
                Q = _arena.Allocate(type, total, vision.EmbedDim);
                O = _arena.Allocate(type, total, vision.EmbedDim);
                LogSumExp = _arena.Allocate(ElementType.Float32, total, vision.Heads);
                Rows = _arena.Allocate<TokenRow>(total);
                Work = new AttentionWork(backend, _arena);
                var cache = new KvCache(backend, _arena, type, 1, vision.Heads, vision.HeadDim, patches.Sum(KvCache.BlocksFor));
                KeyValue = cache.Layers[0];
                var batch = new PackedBatch();
                for (var i = 0; i < grids.Length; i++)
                {
                    var (firstRow, segment) = (batch.Count, cache.NewSegment());
                    for (var patch = 0; patch < patches[i]; patch++)
                    {
                        batch.AddRow(segment, 0, Position(vision.MergeSize, patch % (grids[i].H * grids[i].W), grids[i].W), adapter: false);
                    }

                    batch.See(firstRow, patches[i], segment, group: i);
                }

                backend.Upload<float>(model.Preprocessor.NormalisedLevels(), Values);
                backend.Upload<TokenRow>(batch.Rows.ToArray(), Rows);
                Work.Set(batch.Items.ToArray(), batch.Blocks.ToArray());
            }
            catch
            {
                _arena.Dispose();
                throw;
            }
        }

        public (int T, int H, int W)[] Grids { get; }

        public View<byte> Levels { get; }

        public View<float> Values { get; }

        public Tensor Pixels { get; }

        public Tensor X { get; }

        public Tensor Q { get; }

        public Tensor O { get; }

        public Tensor LogSumExp { get; }

        public View<TokenRow> Rows { get; }

        public KvLayer KeyValue { get; }

        public AttentionWork Work { get; }

        public void Dispose() => _arena.Dispose();

        // Patches come in 2×2 squares, squares in rows.
        private static (int T, int H, int W) Position(int merge, int patch, int gridWidth)
        {
            var (square, within) = (patch / (merge * merge), patch % (merge * merge));
            var squaresInARow = gridWidth / merge;
            return (0, (square / squaresInARow * merge) + (within / merge), (square % squaresInARow * merge) + (within % merge));
        }
    }
}
