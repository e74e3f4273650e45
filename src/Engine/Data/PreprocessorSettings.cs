namespace LrIad.Engine.Data;

/// <summary>How images become patches: preprocessor_config.json.</summary>
/// <param name="PatchSize">Pixels on a patch's side.</param>
/// <param name="TemporalPatchSize">Frames in a patch.</param>
/// <param name="MergeSize">Patches on a merged token's side.</param>
/// <param name="MinPixels">Smaller images are enlarged to this many pixels.</param>
/// <param name="MaxPixels">Larger images are reduced to this many pixels.</param>
/// <param name="Mean">Subtracted from each channel, of values from 0 to 1.</param>
/// <param name="Std">Each channel is divided by it.</param>
internal sealed record PreprocessorSettings(int PatchSize, int TemporalPatchSize, int MergeSize, int MinPixels, int MaxPixels, double[] Mean, double[] Std)
{
    /// <summary>[3, 256]: what each of the 256 levels of a channel is after normalisation.</summary>
    public float[] NormalisedLevels() => [.. Enumerable.Range(0, 3 * 256).Select(i => (float)(((i % 256 / 255.0) - Mean[i / 256]) / Std[i / 256]))];

    /// <summary>Reads a preprocessor_config.json; limits may be <c>min_pixels</c> and <c>max_pixels</c> or in <c>size</c>, under either of its names.</summary>
    /// <exception cref="InputException">It is unreadable or impossible.</exception>
    public static PreprocessorSettings Parse(string file)
    {
        using var json = JsonFile.Open(file);
        var root = json.Root;
        int Limit(string name, string sizeName, int otherwise)
        {
            if (root.Has(name) || !root.Has("size"))
            {
                return root.Count(name, otherwise);
            }

            var size = root.Object("size");
            return size.Count(size.Has(name) ? name : sizeName, otherwise);
        }

        var settings = new PreprocessorSettings(
            root.Count("patch_size", 14), root.Count("temporal_patch_size", 2), root.Count("merge_size", 2),
            Limit("min_pixels", "shortest_edge", 56 * 56), Limit("max_pixels", "longest_edge", 28 * 28 * 1280),
            root.Has("image_mean") ? root.Numbers("image_mean") : [0.48145466, 0.4578275, 0.40821073],
            root.Has("image_std") ? root.Numbers("image_std") : [0.26862954, 0.26130258, 0.27577711]);
        return settings.Mean.Length == 3 && settings.Std.Length == 3 && settings.Std.All(std => std > 0)
            ? settings
            : throw new InputException($"{file}: image_mean and image_std must have three values each, and no deviation may be 0.");
    }
}
