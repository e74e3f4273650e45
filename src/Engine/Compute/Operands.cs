using System.Runtime.InteropServices;

namespace LrIad.Engine.Compute;

/// <summary>Which normalisation a sub-layer starts with.</summary>
internal enum NormKind
{
    /// <summary>x / rms(x) · weight (decoder).</summary>
    RootMeanSquare,

    /// <summary>(x − mean) / std · weight + bias (vision encoder).</summary>
    Layer,
}

/// <summary>A normalisation over the columns of a row.</summary>
/// <param name="Kind">RMS or layer norm.</param>
/// <param name="Weight">[1, C].</param>
/// <param name="Bias">[1, C] or empty.</param>
/// <param name="Epsilon">Added to the mean square or the variance.</param>
internal sealed record Norm(NormKind Kind, Tensor Weight, Tensor Bias, float Epsilon);

/// <summary>y = x·Wᵀ + b.</summary>
/// <param name="Weight">[outputs, inputs].</param>
/// <param name="Bias">[1, outputs] or empty.</param>
internal sealed record Linear(Tensor Weight, Tensor Bias)
{
    /// <summary>Columns of x.</summary>
    public int Inputs => Weight.Columns;

    /// <summary>Columns of y.</summary>
    public int Outputs => Weight.Rows;
}

/// <summary>What <see cref="Backend.ProjectQkv"/> starts from: one norm, three products.</summary>
internal sealed record QkvWeights(Norm Norm, Linear Query, Linear Key, Linear Value);

/// <summary>The two kinds of feed-forward block in Qwen2-VL.</summary>
internal enum FeedForwardKind
{
    /// <summary>down(silu(gate(x)) · up(x)), decoder.</summary>
    GatedSilu,

    /// <summary>fc2(quick_gelu(fc1(x))), quick_gelu(z) = z·sigmoid(1.702 z), vision encoder. fc1 is <see cref="FeedForwardWeights.Up"/>, fc2 is <see cref="FeedForwardWeights.Down"/>.</summary>
    QuickGelu,
}

/// <summary>One feed-forward block.</summary>
/// <param name="Kind">Which of the two forms.</param>
/// <param name="Norm">The norm it starts with.</param>
/// <param name="Gate">Gate product, null for <see cref="FeedForwardKind.QuickGelu"/>.</param>
/// <param name="Up">Up product, or fc1.</param>
/// <param name="Down">Down product, or fc2.</param>
internal sealed record FeedForwardWeights(FeedForwardKind Kind, Norm Norm, Linear? Gate, Linear Up, Linear Down)
{
    /// <summary>Columns that the forward pass keeps for the backward one: gate | up before the non-linearity.</summary>
    public int SavedColumns => Up.Outputs * (Gate is null ? 1 : 2);
}

/// <summary>The 2×2 patch merger: layer norm a patch, four patches side by side, linear, GELU (erf), linear.</summary>
internal sealed record MergerWeights(Norm Norm, Linear First, Linear Second);

/// <summary>The last norm and the product with the vocabulary.</summary>
/// <param name="Norm">Final norm.</param>
/// <param name="Weight">[vocabulary, hidden].</param>
internal sealed record HeadWeights(Norm Norm, Tensor Weight);

/// <summary>A low-rank update y += (x·Aᵀ)·Bᵀ, the LoRA scale folded into B.</summary>
/// <param name="A">[rank, inputs], float32.</param>
/// <param name="B">[outputs, rank], float32, already multiplied by alpha / rank.</param>
internal readonly record struct LowRank(Tensor A, Tensor B);

/// <summary>The adapter of one decoder layer (or, with the same shapes, its gradient).</summary>
internal sealed record AdapterLayer(LowRank Query, LowRank Value)
{
    /// <summary>Rank of both updates.</summary>
    public int Rank => Query.A.Rows;
}

/// <summary>
/// LoRA dropout as a pure function of where it acts. Inputs of A are kept with probability 1 − p and scaled by 1/(1 − p); the mask comes from
/// <see cref="Philox"/> with key <see cref="Seed"/> and counter (channel / 4, layer and projection, row id, row position, step).
/// </summary>
/// <param name="Probability">p; 0 switches dropout off.</param>
/// <param name="Seed">The run's seed.</param>
/// <param name="Step">The optimizer step.</param>
/// <param name="Layer">The decoder layer.</param>
internal readonly record struct Dropout(float Probability, ulong Seed, int Step, int Layer);

/// <summary>
/// Rotary position embedding over a head: frequency i rotates the pair (i, i + HeadDim/2) by angle position[Axis[i]] · InverseFrequency[i].
/// M-RoPE (three axes) and the vision encoder's two-dimensional rotary are both of this form.
/// </summary>
/// <param name="HeadDim">Columns of a head.</param>
/// <param name="Axis">For each of HeadDim/2 frequencies, which of a row's three positions it follows.</param>
/// <param name="InverseFrequency">Radians a position, float32 as the reference computes them.</param>
internal sealed record Rotary(int HeadDim, int[] Axis, float[] InverseFrequency);

/// <summary>Where a packed row stands: its rotary positions, the key-value slot it fills, and whether (and with which dropout mask) the adapter acts on it.</summary>
[StructLayout(LayoutKind.Sequential)]
internal record struct TokenRow(int Position0, int Position1, int Position2, int Slot, int Adapter, uint DropoutId, uint DropoutPosition, int Reserved = 0);

/// <summary>
/// One piece of attention: some query rows over one run of keys. Several items may name the same rows; their partial results
/// {o, max, sum} are merged by log-sum-exp in the order of the list.
/// </summary>
/// <param name="FirstRow">First query row.</param>
/// <param name="Rows">Number of query rows.</param>
/// <param name="FirstBlock">Where the run's block numbers start in <see cref="AttentionWork.Blocks"/>; key j lies in slot Blocks[FirstBlock + j / 64]·64 + j % 64.</param>
/// <param name="Keys">Number of keys.</param>
/// <param name="Causal">1: row i sees the first Keys − Rows + 1 + i keys (its own last); 0: every row sees all keys.</param>
/// <param name="Group">Items of one group may share rows or keys; items of different groups never do, so groups can be computed side by side.</param>
[StructLayout(LayoutKind.Sequential)]
internal record struct AttentionItem(int FirstRow, int Rows, int FirstBlock, int Keys, int Causal, int Group);

/// <summary>
/// Keys and values of one layer, in blocks of <see cref="BlockSize"/> slots: [block][K|V][head][slot in block][column]. Its gradient has the same form in float32.
/// </summary>
/// <param name="Data">[blocks, 2 · Heads · 64 · HeadDim].</param>
/// <param name="Heads">Key-value heads.</param>
/// <param name="HeadDim">Columns of a head.</param>
internal readonly record struct KvLayer(Tensor Data, int Heads, int HeadDim)
{
    /// <summary>Slots in a block.</summary>
    public const int BlockSize = 64;

    /// <summary>Columns that one block's row of <see cref="Data"/> has.</summary>
    public static int BlockColumns(int heads, int headDim) => 2 * heads * BlockSize * headDim;
}

/// <summary>A row whose log-prob is wanted: the distribution after packed row <paramref name="Row"/>, at token <paramref name="Target"/>.</summary>
/// <param name="Row">Row of x.</param>
/// <param name="Target">Token id.</param>
/// <param name="Temperature">The run's temperature: logits are divided by it before the soft-max. Must be positive.</param>
/// <param name="Top">How many of the likeliest tokens are wanted too.</param>
[StructLayout(LayoutKind.Sequential)]
internal record struct LogProbRow(int Row, int Target, float Temperature, int Top = 0);

/// <summary>A row to draw a token from. Temperature 0 takes the most likely token (the lowest id among equals) and reports its log-prob at temperature 1.</summary>
/// <param name="Row">Row of x.</param>
/// <param name="Temperature">0 or positive.</param>
/// <param name="TopK">Only the k most likely tokens are drawn (0: all).</param>
/// <param name="TopP">Only the smallest set of tokens that holds this much probability is drawn (1: all).</param>
/// <param name="SeedLow">Low half of the run's seed.</param>
/// <param name="SeedHigh">High half of the run's seed.</param>
/// <param name="Sample">Which completion: with the seed and the position it determines the draw.</param>
/// <param name="Position">Which token of the completion.</param>
/// <param name="Mask">Which of the masks says what can be drawn, before top-k and top-p look at it; −1: everything. The log-prob stays that of the whole distribution.</param>
/// <param name="Top">How many of the likeliest tokens are wanted too, allowed or not.</param>
[StructLayout(LayoutKind.Sequential)]
internal record struct SampleRow(int Row, float Temperature, int TopK, float TopP, uint SeedLow, uint SeedHigh, uint Sample, uint Position, int Mask = -1, int Top = 0);

/// <summary>What <see cref="Backend.LogProb"/> and <see cref="Backend.Sample"/> report for each listed row, R of them.</summary>
/// <param name="Token">[R] drawn tokens; empty for LogProb.</param>
/// <param name="LogProb">[R] log-probability of the target or drawn token under the full soft-max at the row's temperature, untruncated.</param>
/// <param name="Entropy">[R] entropy of that distribution in nats.</param>
/// <param name="LogSumExp">[R] log Σ exp(logit / temperature); what <see cref="Backend.LogProbBackward"/> starts from. Empty for Sample.</param>
/// <param name="Options">[R, options] log-probability of each option token; empty where none are asked for.</param>
/// <param name="TopToken">[R · N] the likeliest tokens of each row, as many as it asks for, most likely first, the lowest id among equals; empty where no row asks.</param>
/// <param name="TopLogProb">[R · N] their log-probabilities.</param>
internal readonly record struct HeadResult(
    View<int> Token, View<float> LogProb, View<float> Entropy, View<float> LogSumExp, Tensor Options, View<int> TopToken = default, View<float> TopLogProb = default)
{
    /// <summary>Likeliest tokens that a row can ask for at most.</summary>
    public const int MostTop = 20;
}
