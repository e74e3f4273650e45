using LrIad.Engine.Config;

namespace LrIad.Engine.Learn;

/// <summary>What an adapter looks like.</summary>
/// <param name="Layers">Decoder layers.</param>
/// <param name="Rank">r.</param>
/// <param name="Hidden">Inputs of q_proj and v_proj.</param>
/// <param name="QueryOutputs">Outputs of q_proj.</param>
/// <param name="ValueOutputs">Outputs of v_proj.</param>
internal sealed record AdapterShape(int Layers, int Rank, int Hidden, int QueryOutputs, int ValueOutputs);

/// <summary>Host copies of one layer's four matrices, row-major float32: A is [r, hidden], B is [outputs, r].</summary>
internal sealed record LayerFactors(float[] QueryA, float[] QueryB, float[] ValueA, float[] ValueB)
{
    /// <summary>The four, in this order.</summary>
    public IReadOnlyList<float[]> All => [QueryA, QueryB, ValueA, ValueB];

    /// <summary>Zeros of the right sizes.</summary>
    public static LayerFactors Zeros(AdapterShape shape)
    {
        ArgumentNullException.ThrowIfNull(shape);
        return new(
            new float[shape.Rank * shape.Hidden], new float[shape.QueryOutputs * shape.Rank],
            new float[shape.Rank * shape.Hidden], new float[shape.ValueOutputs * shape.Rank]);
    }
}

/// <summary>The completions of one micro-batch, flattened: what the objective sees. T tokens, C completions.</summary>
internal sealed record ObjectiveBatch
{
    /// <summary>[T] log-probs under the policy being trained.</summary>
    public required float[] LogProb { get; init; }

    /// <summary>[T] log-probs when the tokens were drawn; null where there is one update per rollout (then it is LogProb, detached).</summary>
    public float[]? OldLogProb { get; init; }

    /// <summary>[T] log-probs with the adapter off; null where beta is 0 or the KL is to the old policy.</summary>
    public float[]? ReferenceLogProb { get; init; }

    /// <summary>[C + 1] where each completion's tokens start.</summary>
    public required int[] Start { get; init; }

    /// <summary>[C] advantage of each completion.</summary>
    public required float[] Advantage { get; init; }

    /// <summary>Completions in the whole batch, of which this may be a part.</summary>
    public required int BatchCompletions { get; init; }

    /// <summary>Completion tokens in the whole batch.</summary>
    public required int BatchTokens { get; init; }

    /// <summary>The run's longest allowed completion.</summary>
    public required int MaxCompletionLength { get; init; }
}

/// <summary>What the objective says of a micro-batch. Sums over micro-batches give the batch's value.</summary>
/// <param name="Gradient">[T] ∂loss/∂log-prob.</param>
/// <param name="Loss">This micro-batch's share of the loss.</param>
/// <param name="KlSum">Σ k3 over its tokens (0 without KL).</param>
/// <param name="ClippedTokens">Tokens whose ratio was clipped (for gspo: tokens of clipped completions).</param>
internal sealed record ObjectiveResult(float[] Gradient, double Loss, double KlSum, int ClippedTokens);

/// <summary>A named fp32 array of an optimizer or parameter state, as checkpoints keep it.</summary>
internal sealed record StateArray(string Name, int[] Shape, float[] Values);

/// <summary>
/// What learns: it owns the adapter's parameters, how they turn into effective factors, the loss and the optimizer. The engine owns everything else.
/// </summary>
internal interface IPolicyLearner : IDisposable
{
    /// <summary>Shape of the adapter it was made for.</summary>
    AdapterShape Shape { get; }

    /// <summary>The effective factors now, a layer each: A, and B already multiplied by alpha / r. The next call overwrites them.</summary>
    IReadOnlyList<LayerFactors> Publish();

    /// <summary>Loss of a micro-batch and its gradient with respect to each token's log-prob.</summary>
    ObjectiveResult Objective(ObjectiveBatch batch);

    /// <summary>
    /// One optimizer step from gradients with respect to the published factors (summed over micro-batches); returns the gradient's norm before clipping.
    /// Throws, leaving parameters and optimizer as they were, when a gradient is not finite, naming the matrix.
    /// </summary>
    double Step(IReadOnlyList<LayerFactors> gradients, double learningRate);

    /// <summary>The adapter's own parameters in PEFT's meaning (B unscaled), a layer each.</summary>
    IReadOnlyList<LayerFactors> Parameters();

    /// <summary>Starts from these parameters instead (PEFT's meaning).</summary>
    void SetParameters(IReadOnlyList<LayerFactors> parameters);

    /// <summary>Optimizer state, to be put back with <see cref="LoadOptimizer"/> bit for bit.</summary>
    IReadOnlyList<StateArray> SaveOptimizer();

    /// <summary>Puts back what <see cref="SaveOptimizer"/> gave.</summary>
    void LoadOptimizer(IReadOnlyList<StateArray> state);
}

/// <summary>Makes a learner for a run; the command line passes in the one of LrIad.Learn.</summary>
internal delegate IPolicyLearner LearnerFactory(AdapterShape shape, LoraOptions lora, ObjectiveOptions objective, OptimizerOptions optimizer, ulong seed);
