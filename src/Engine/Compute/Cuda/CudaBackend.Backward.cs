namespace LrIad.Engine.Compute.Cuda;

// Training on the GPU is still to come; until then these say so.
public sealed unsafe partial class CudaBackend
{
    /// <inheritdoc/>
    protected override void LogProbBackwardCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<float> logSumExp, View<float> dLogProb, Tensor dx) => throw NotYet(nameof(LogProbBackward));

    /// <inheritdoc/>
    protected override void FeedForwardBackwardCore(Tensor x, FeedForwardWeights weights, Tensor saved, Tensor dy, Tensor dx) => throw NotYet(nameof(FeedForwardBackward));

    /// <inheritdoc/>
    protected override void ProjectOutBackwardCore(Tensor dy, Linear weights, Tensor dO) => throw NotYet(nameof(ProjectOutBackward));

    /// <inheritdoc/>
    protected override void AttendBackwardCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, Tensor dO, Tensor dq, KvLayer dKv) => throw NotYet(nameof(AttendBackward));

    /// <inheritdoc/>
    protected override void ProjectQkvBackwardCore(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows,
        Tensor lowRank, Tensor dq, KvLayer dKv, Tensor dy, Tensor dx, AdapterLayer? gradient) => throw NotYet(nameof(ProjectQkvBackward));
}
