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

    /// <summary>Image features from the golden pixels.</summary>
    public static float[] Embed(QwenModel model, Backend backend, SafeTensors golden)
    {
        var pixels = golden.Read("pixel_values");
        var images = new List<ImagePatches>();
        var at = 0;
        foreach (var (t, h, w) in Grids(golden))
        {
            var count = t * h * w * model.Geometry.Vision.PatchValues;
            images.Add(new ImagePatches(pixels[at..(at + count)], t, h, w));
            at += count;
        }

        using var arena = backend.CreateArena("test");
        var features = arena.Allocate(backend.ActivationType, images.Sum(image => image.MergedTokens), model.Geometry.Text.Hidden);
        new VisionEncoder(model, backend).Encode(images, features);
        var values = new float[features.Length];
        backend.Download(features, values);
        return values;
    }

    public static (EncodedPrompt Prompt, int[] Completion) Split(QwenModel model, SafeTensors golden, float[] features)
    {
        var ids = golden.ReadIntegers("input_ids").Select(id => (int)id).ToArray();
        var promptLength = (int)golden.ReadIntegers("prompt_length")[0];
        return (Prompt(model, ids[..promptLength], features, golden), ids[promptLength..]);
    }

    public static EncodedPrompt Prompt(QwenModel model, int[] ids, float[] features, SafeTensors golden)
    {
        var (positions, next) = PromptPositions.Compute(ids, Grids(golden), model.Geometry);
        var feature = 0;
        var encoded = ids.Select(id => id == model.Geometry.ImageTokenId ? -(feature++) - 1 : id).ToArray();
        return new EncodedPrompt(encoded, positions, next, features);
    }

    public static float[] LogProbs(QwenModel model, Backend backend, EncodedPrompt prompt, int[] completion, AdapterWeights? adapter)
    {
        using var pass = new PolicyPass(model, backend, prompt.Length + completion.Length, 2, rank: 4);
        return pass.Forward([GroupOf(prompt, completion)], 1f, adapter, default);
    }

    public static Group GroupOf(EncodedPrompt prompt, params int[][] completions) =>
        new(prompt, [.. completions.Select((tokens, i) => new Completion((uint)i, tokens, new float[tokens.Length], new float[tokens.Length], true))], null);
}
