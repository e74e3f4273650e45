using LrIad.Engine.Compute;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Tests.Flow;

/// <summary>The golden cases as the model's input.</summary>
internal static class GoldenPass
{
    public static readonly string[] Cases = ["case0", "case1", "case2", "case3", "case4", "case5"];

    public static (int T, int H, int W)[] Grids(SafeTensors golden) =>
        [.. golden.ReadIntegers("image_grid_thw").Select(size => (int)size).Chunk(3).Select(grid => (grid[0], grid[1], grid[2]))];

    /// <summary>Image features from the golden pixels, as the backend's bytes.</summary>
    public static byte[] Embed(QwenModel model, Backend backend, SafeTensors golden)
    {
        var pixels = golden.Read("pixel_values");
        var images = new List<ImagePatches>();
        var at = 0;
        foreach (var (t, h, w) in Grids(golden))
        {
            var count = t * h * w * model.Geometry.Vision.PatchValues;
            images.Add(Patches(model, pixels.AsSpan(at, count), t, h, w));
            at += count;
        }

        using var arena = backend.CreateArena("test");
        var features = arena.Allocate(backend.ActivationType, images.Sum(image => image.MergedTokens), model.Geometry.Text.Hidden);
        using var encoder = new VisionEncoder(model, backend);
        encoder.Encode(images, features);
        return Bytes(backend, features);
    }

    /// <summary>The image whose normalised pixels these are: each is what one of 256 levels stands for.</summary>
    public static ImagePatches Patches(QwenModel model, ReadOnlySpan<float> pixels, int t, int h, int w)
    {
        var (vision, settings) = (model.Geometry.Vision, model.Preprocessor);
        var (frames, area) = (vision.TemporalPatchSize, vision.PatchSize * vision.PatchSize);
        var levels = new byte[pixels.Length / frames];
        for (var i = 0; i < levels.Length; i++)
        {
            var (plane, channel) = (i / area, i / area % 3);
            var pixel = pixels[(plane * frames * area) + (i % area)];
            levels[i] = (byte)Math.Round(((pixel * settings.Std[channel]) + settings.Mean[channel]) * 255);
        }

        var image = new ImagePatches(levels, t, h, w);
        Assert.That(Pixels(image, settings.NormalisedLevels(), frames), Is.EqualTo(pixels.ToArray()).Within(1e-5f));
        return image;
    }

    /// <summary>What an image's levels stand for: [patches, 3 · frames · side · side].</summary>
    public static float[] Pixels(ImagePatches image, float[] values, int frames)
    {
        var area = image.Levels.Length / (3 * image.Patches);
        var pixels = new float[image.Levels.Length * frames];
        for (var i = 0; i < pixels.Length; i++)
        {
            var plane = i / (frames * area);
            pixels[i] = values[(plane % 3 * 256) + image.Levels[(plane * area) + (i % area)]];
        }

        return pixels;
    }

    /// <summary>The golden image features, as the backend's bytes.</summary>
    public static byte[] GoldenFeatures(QwenModel model, Backend backend, SafeTensors golden)
    {
        var values = golden.Read("image_embeds");
        using var arena = backend.CreateArena("test");
        var features = arena.Allocate(backend.ActivationType, values.Length / model.Geometry.Text.Hidden, model.Geometry.Text.Hidden);
        backend.Upload(values, features);
        return Bytes(backend, features);
    }

    public static (EncodedPrompt Prompt, int[] Completion) Split(QwenModel model, SafeTensors golden, byte[] features)
    {
        var ids = golden.ReadIntegers("input_ids").Select(id => (int)id).ToArray();
        var promptLength = (int)golden.ReadIntegers("prompt_length")[0];
        return (Prompt(model, ids[..promptLength], features, golden), ids[promptLength..]);
    }

    public static EncodedPrompt Prompt(QwenModel model, int[] ids, byte[] features, SafeTensors golden)
    {
        var (positions, next) = PromptPositions.Compute(ids, Grids(golden), model.Geometry);
        var feature = 0;
        var encoded = ids.Select(id => id == model.Geometry.ImageTokenId ? -(feature++) - 1 : id).ToArray();
        return new EncodedPrompt(encoded, positions, next, features);
    }

    /// <summary>One pass over prompt and completion, given as it is: <paramref name="use"/> gets an arena and [rows, hidden], a row after every token in order.</summary>
    public static T Forward<T>(QwenModel model, Backend backend, EncodedPrompt prompt, int[] completion, Func<Arena, Tensor, T> use)
    {
        var text = model.Geometry.Text;
        using var arena = backend.CreateArena("test");
        var blocks = KvCache.BlocksFor(prompt.Length) + KvCache.BlocksFor(completion.Length);
        var cache = new KvCache(backend, arena, backend.ActivationType, text.Layers, text.KeyValueHeads, text.HeadDim, blocks);
        using var decoder = new Decoder(model, backend, prompt.Length + completion.Length);
        var features = arena.Allocate(backend.ActivationType, prompt.Features.Length / backend.ActivationType.Bytes() / text.Hidden, text.Hidden);
        backend.Upload<byte>(prompt.Features, features.Bytes);
        var batch = new PackedBatch();
        using var segment = cache.NewSegment();
        batch.AddPrompt(prompt, segment, 0, adapter: false, group: 0);
        using var fork = segment.Fork();
        batch.AddCompletions(prompt, segment, [(completion, fork, 0u)], adapter: false, group: 0);
        return use(arena, decoder.Forward(batch, cache, features, null));
    }

    /// <summary>The likeliest token after each of some rows, and its log-prob.</summary>
    public static (int[] Tokens, float[] LogProbs) Likeliest(QwenModel model, Backend backend, Arena arena, Tensor x, int firstRow, int count)
    {
        var rows = arena.Allocate<SampleRow>(count);
        backend.Upload<SampleRow>(Enumerable.Range(firstRow, count).Select(row => new SampleRow(row, 0f, 0, 1f, 0, 0, 0, 0)).ToArray(), rows);
        var result = new Compute.HeadResult(arena.Allocate<int>(count), arena.Allocate<float>(count), arena.Allocate<float>(count), default, default);
        backend.Sample(x, model.Head, rows, result);
        var (tokens, logProbs) = (new int[count], new float[count]);
        backend.Download(result.Token, tokens);
        backend.Download(result.LogProb, logProbs);
        return (tokens, logProbs);
    }

    public static float[] LogProbs(QwenModel model, Backend backend, EncodedPrompt prompt, int[] completion, AdapterWeights? adapter)
    {
        using var pass = new PolicyPass(model, backend, prompt.Length + completion.Length, 2, rank: 4);
        return pass.Forward([GroupOf(prompt, completion)], 1f, adapter, default);
    }

    /// <summary>The golden adapter case: log-probs with the adapter on, and the gradient of their golden weighted sum with respect to every factor, by its key in the file.</summary>
    public static (Dictionary<string, float[]> Gradients, float[] LogProbs) AdapterGradients(QwenModel model, Backend backend)
    {
        var adapter = AdapterFile.Load(Path.Combine(TestFiles.Goldens, "adapter"), model.Geometry);
        using var golden = TestFiles.Golden("case5");
        using var expected = TestFiles.Golden("adapter");
        var (prompt, completion) = Split(model, golden, GoldenFeatures(model, backend, golden));
        var shape = AdapterWeights.ShapeFor(model.Geometry, adapter.Rank);
        using var weights = new AdapterWeights(backend, shape);
        using var gradients = new AdapterWeights(backend, shape);
        using var pass = new PolicyPass(model, backend, 512, 2, adapter.Rank);
        weights.Upload(adapter.Effective());
        var logProbs = pass.Forward([GroupOf(prompt, completion)], 1f, weights, default);
        pass.Backward(expected.Read("weights"), gradients);

        var byKey = new Dictionary<string, float[]>();
        foreach (var (layer, i) in gradients.Download().Select((layer, i) => (layer, i)))
        {
            // The gradient of the scaled B, times the scale, is that of B.
            byKey[AdapterFile.Key(i, "q_proj", "A")] = layer.QueryA;
            byKey[AdapterFile.Key(i, "q_proj", "B")] = [.. layer.QueryB.Select(value => (float)(value * adapter.Scale))];
            byKey[AdapterFile.Key(i, "v_proj", "A")] = layer.ValueA;
            byKey[AdapterFile.Key(i, "v_proj", "B")] = [.. layer.ValueB.Select(value => (float)(value * adapter.Scale))];
        }

        return (byKey, logProbs);
    }

    public static Group GroupOf(EncodedPrompt prompt, params int[][] completions) =>
        new(prompt, [.. completions.Select((tokens, i) => new Completion((uint)i, tokens, new float[tokens.Length], new float[tokens.Length], true))], null);

    private static byte[] Bytes(Backend backend, Tensor tensor)
    {
        var values = new byte[tensor.Bytes.Length];
        backend.Download<byte>(tensor.Bytes, values);
        return values;
    }
}
