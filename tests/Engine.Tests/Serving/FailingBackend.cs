using LrIad.Engine.Compute;

namespace LrIad.Engine.Tests.Serving;

/// <summary>A backend that does what another does, until it is told to fail.</summary>
internal sealed class FailingBackend(Backend inner) : Backend
{
    /// <summary>Attention passes until one fails; none does while it is negative.</summary>
    public int FailAfter { get; set; } = -1;

    public override string Name => inner.Name;

    public override ElementType ActivationType => inner.ActivationType;

    protected internal override Storage CreateStorage(long bytes, string purpose) => inner.CreateStorage(bytes, purpose);

    public override Tensor[] Import(params Tensor[] hostWeights) => inner.Import(hostWeights);

    public override void Upload<T>(ReadOnlySpan<T> source, View<T> destination) => inner.Upload(source, destination);

    public override void Upload(ReadOnlySpan<float> source, Tensor destination) => inner.Upload(source, destination);

    public override void Download<T>(View<T> source, Span<T> destination) => inner.Download(source, destination);

    public override void Download(Tensor source, Span<float> destination) => inner.Download(source, destination);

    public override void Copy(Tensor source, Tensor destination) => inner.Copy(source, destination);

    public override void Clear(Tensor tensor) => inner.Clear(tensor);

    public override void Synchronize() => inner.Synchronize();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            inner.Dispose();
        }
    }

    protected override void EmbedCore(View<int> ids, Tensor table, Tensor features, Tensor x) => inner.Embed(ids, table, features, x);

    protected override void LookUpPixelsCore(View<byte> levels, View<float> values, Tensor pixels) => inner.LookUpPixels(levels, values, pixels);

    protected override void PatchEmbedCore(Tensor pixels, Tensor weight, Tensor x) => inner.PatchEmbed(pixels, weight, x);

    protected override void ProjectQkvCore(Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows, Tensor q, KvLayer kv, Tensor lowRank, View<uint> mask) =>
        inner.ProjectQkv(x, weights, adapter, dropout, rotary, rows, q, kv, lowRank, mask);

    protected override void AttendCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp)
    {
        if (FailAfter >= 0 && FailAfter-- == 0)
        {
            throw new InvalidOperationException("the device has failed");
        }

        inner.Attend(q, kv, work, o, logSumExp);
    }

    protected override void ProjectOutCore(Tensor o, Linear weights, Tensor x, Tensor y) => inner.ProjectOut(o, weights, x, y);

    protected override void FeedForwardCore(Tensor x, FeedForwardWeights weights, Tensor y, Tensor saved) => inner.FeedForward(x, weights, y, saved);

    protected override void MergePatchesCore(Tensor x, MergerWeights weights, Tensor features) => inner.MergePatches(x, weights, features);

    protected override void LogProbCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<int> options, HeadResult result) => inner.LogProb(x, head, rows, options, result);

    protected override void SampleCore(Tensor x, HeadWeights head, View<SampleRow> rows, View<uint> masks, HeadResult result) => inner.Sample(x, head, rows, result, masks);

    protected override void ProjectQkvBackwardCore(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows, Tensor lowRank, Tensor dq, KvLayer dKv, Tensor dy, Tensor dx, AdapterLayer? gradient, Tensor roundedDx, View<uint> mask) =>
        throw new NotSupportedException();

    protected override void AttendBackwardCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, Tensor dO, Tensor dq, KvLayer dKv) => throw new NotSupportedException();

    protected override void ProjectOutBackwardCore(Tensor dy, Linear weights, Tensor dO, Tensor roundedDy) => throw new NotSupportedException();

    protected override void FeedForwardBackwardCore(Tensor x, FeedForwardWeights weights, Tensor saved, Tensor dy, Tensor dx, Tensor roundedDy, Tensor roundedDx) => throw new NotSupportedException();

    protected override void LogProbBackwardCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<float> logSumExp, View<float> dLogProb, Tensor dx) => throw new NotSupportedException();
}
