using LrIad.Engine.Compute;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Tests.Flow;

internal static class GoldenPass
{
    public static float[] LogProbs(QwenModel model, Backend backend, EncodedPrompt prompt, int[] completion, AdapterWeights? adapter)
    {
        using var pass = new PolicyPass(model, backend, prompt.Length + completion.Length, 2, rank: 4);
        return pass.Forward([GroupOf(prompt, completion)], 1f, adapter, default);
    }

    public static Group GroupOf(EncodedPrompt prompt, params int[][] completions) =>
        new(prompt, [.. completions.Select((tokens, i) => new Completion((uint)i, tokens, new float[tokens.Length], new float[tokens.Length], true))], null);
}
