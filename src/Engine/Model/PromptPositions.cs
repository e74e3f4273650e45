namespace LrIad.Engine.Model;

/// <summary>
/// M-RoPE positions: a text token counts up on all three axes; an image's tokens share one temporal position and count rows and columns from there; the text
/// after an image goes on one after the largest position used.
/// </summary>
internal static class PromptPositions
{
    /// <summary>Positions of every prompt token, and that of the first token after them.</summary>
    /// <param name="ids">Token ids, image tokens in place.</param>
    /// <param name="grids">Patches (time, height, width) of each image, in order.</param>
    /// <param name="geometry">Which token stands for an image, and how patches merge.</param>
    public static ((int T, int H, int W)[] Positions, int Next) Compute(IReadOnlyList<int> ids, IReadOnlyList<(int T, int H, int W)> grids, ModelGeometry geometry)
    {
        ArgumentNullException.ThrowIfNull(ids);
        ArgumentNullException.ThrowIfNull(grids);
        ArgumentNullException.ThrowIfNull(geometry);
        var positions = new (int T, int H, int W)[ids.Count];
        var (next, image) = (0, 0);
        for (var i = 0; i < ids.Count;)
        {
            if (ids[i] != geometry.ImageTokenId)
            {
                positions[i++] = (next, next, next);
                next++;
                continue;
            }

            var grid = image < grids.Count ? grids[image++] : throw new ArgumentException($"The prompt has more image places than the {grids.Count} images given.");
            var (height, width) = (grid.H / geometry.Vision.MergeSize, grid.W / geometry.Vision.MergeSize);
            var tokens = grid.T * height * width;
            if (i + tokens > ids.Count)
            {
                throw new ArgumentException($"Image {image} needs {tokens} tokens, the prompt ends before.");
            }

            for (var token = 0; token < tokens; token++)
            {
                positions[i++] = (next + (token / (height * width)), next + (token / width % height), next + (token % width));
            }

            next += Math.Max(grid.T, Math.Max(height, width));
        }

        return (positions, next);
    }
}
