namespace LrIad.Engine.Data;

/// <summary>
/// An image cut into patches, as Qwen2-VL's processor does it: patches of a 2×2 square one after another. What is kept is the eight bits a channel that the image has
/// (<see cref="PreprocessorSettings.NormalisedLevels"/> says what they stand for); a still image fills all frames of a patch alike.
/// </summary>
/// <param name="Levels">[patches, 3, side · side], one frame.</param>
/// <param name="GridT">Patches in time: 1.</param>
/// <param name="GridH">Patches in height.</param>
/// <param name="GridW">Patches in width.</param>
internal sealed record ImagePatches(byte[] Levels, int GridT, int GridH, int GridW)
{
    /// <summary>Number of patches.</summary>
    public int Patches => GridT * GridH * GridW;

    /// <summary>Image tokens they merge into.</summary>
    public int MergedTokens => Patches / 4;
}
