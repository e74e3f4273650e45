using LrIad.Engine.Model;

namespace LrIad.Engine.Rollout;

/// <summary>One answer of the model.</summary>
/// <param name="Sample">Its id: with the run's seed it determines every draw.</param>
/// <param name="Tokens">Token ids, the end token included where it came.</param>
/// <param name="LogProbs">Log-prob of each token under the policy that drew it, at the run's temperature, untruncated.</param>
/// <param name="Entropies">Entropy of each token's distribution, in nats.</param>
/// <param name="Ended">False where the length limit cut it off.</param>
internal sealed record Completion(uint Sample, int[] Tokens, float[] LogProbs, float[] Entropies, bool Ended);

/// <summary>What to draw for one prompt.</summary>
/// <param name="Prompt">The prompt.</param>
/// <param name="Completions">Completions wanted: G. 0 where only the probe is.</param>
/// <param name="FirstSample">Id of the first completion; the others follow.</param>
internal sealed record GroupRequest(EncodedPrompt Prompt, int Completions, uint FirstSample);

/// <summary>The completions of one prompt.</summary>
/// <param name="Prompt">The prompt.</param>
/// <param name="Completions">G of them.</param>
/// <param name="Probe">Log-odds of defect over normal after the forced, empty reasoning; null where it was not asked for.</param>
internal sealed record Group(EncodedPrompt Prompt, IReadOnlyList<Completion> Completions, float? Probe);
