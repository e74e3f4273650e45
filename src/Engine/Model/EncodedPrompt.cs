namespace LrIad.Engine.Model;

/// <summary>A prompt ready for the decoder.</summary>
/// <param name="Ids">Token ids; −f − 1 where row f of <see cref="Features"/> stands in for an image token.</param>
/// <param name="Positions">Rotary positions (temporal, height, width) of each token.</param>
/// <param name="NextPosition">Position of the first token after the prompt, the same on all three axes.</param>
/// <param name="Features">Image features, row-major [F, hidden], as bytes of the backend's activations: they come from there and go back as they are.</param>
internal sealed record EncodedPrompt(int[] Ids, (int T, int H, int W)[] Positions, int NextPosition, byte[] Features)
{
    /// <summary>Tokens in the prompt.</summary>
    public int Length => Ids.Length;
}
