namespace LrIad.Engine.Compute;

internal abstract partial class Backend
{
    /// <summary>dx of <see cref="LogProb"/>: ∂logp/∂logit = (1[token = target] − softmax) / temperature, through head and norm.</summary>
    /// <param name="x">[T, H] as in the forward pass.</param>
    /// <param name="head">Final norm and vocabulary product.</param>
    /// <param name="rows">[R] as in the forward pass. A row listed several times (a prompt's last row, which every completion starts from) gets the sum.</param>
    /// <param name="logSumExp">[R] from the forward pass.</param>
    /// <param name="dLogProb">[R] gradient of the loss with respect to each log-prob.</param>
    /// <param name="dx">[T, H] float32 out; zero for rows that are not listed.</param>
    public void LogProbBackward(Tensor x, HeadWeights head, View<LogProbRow> rows, View<float> logSumExp, View<float> dLogProb, Tensor dx)
    {
        ArgumentNullException.ThrowIfNull(head);
        Check.Columns(head.Weight.Columns, x, nameof(x));
        Check.Length(rows.Length, logSumExp, nameof(logSumExp));
        Check.Length(rows.Length, dLogProb, nameof(dLogProb));
        Check.Gradient(x, dx, nameof(dx));
        LogProbBackwardCore(x, head, rows, logSumExp, dLogProb, dx);
    }

    /// <summary>dx of <see cref="FeedForward"/>, the residual's own dy included. Frozen weights get no gradient.</summary>
    /// <param name="x">[T, H] as in the forward pass.</param>
    /// <param name="weights">Norm and products.</param>
    /// <param name="saved">What the forward pass kept.</param>
    /// <param name="dy">[T, H] float32.</param>
    /// <param name="dx">[T, H] float32 out; may be dy itself.</param>
    /// <param name="roundedDy">dy of <see cref="ActivationType"/>, as products take it, if it is there already.</param>
    /// <param name="roundedDx">Where dx is wanted so too; may be <paramref name="roundedDy"/> itself.</param>
    public void FeedForwardBackward(Tensor x, FeedForwardWeights weights, Tensor saved, Tensor dy, Tensor dx, Tensor roundedDy = default, Tensor roundedDx = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        Check.Columns(weights.Up.Inputs, x, nameof(x));
        Check.Shape(x.Rows, weights.SavedColumns, saved, nameof(saved));
        Check.Gradient(x, dy, nameof(dy));
        Check.Gradient(x, dx, nameof(dx));
        Check.Rounded(x, roundedDy, nameof(roundedDy));
        Check.Rounded(x, roundedDx, nameof(roundedDx));
        FeedForwardBackwardCore(x, weights, saved, dy, dx, roundedDy, roundedDx);
    }

    /// <summary>do = dy · W of <see cref="ProjectOut"/>; the residual's dy passes on unchanged.</summary>
    /// <param name="dy">[T, H] float32.</param>
    /// <param name="weights">Output product.</param>
    /// <param name="dO">[T, heads · HeadDim] of <see cref="ActivationType"/>, out.</param>
    /// <param name="roundedDy">dy of <see cref="ActivationType"/>, as products take it, if it is there already.</param>
    public void ProjectOutBackward(Tensor dy, Linear weights, Tensor dO, Tensor roundedDy = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        Check.Type(ElementType.Float32, dy, nameof(dy));
        Check.Columns(weights.Outputs, dy, nameof(dy));
        Check.Shape(dy.Rows, weights.Inputs, dO, nameof(dO));
        Check.Type(ActivationType, dO, nameof(dO));
        if (!roundedDy.IsEmpty)
        {
            Check.Shape(dy.Rows, dy.Columns, roundedDy, nameof(roundedDy));
            Check.Type(ActivationType, roundedDy, nameof(roundedDy));
        }

        ProjectOutBackwardCore(dy, weights, dO, roundedDy);
    }

    /// <summary>dq, dk and dv of <see cref="Attend"/>.</summary>
    /// <param name="q">[T, heads · HeadDim] rotated queries.</param>
    /// <param name="kv">Keys and values.</param>
    /// <param name="work">As in the forward pass.</param>
    /// <param name="o">[T, heads · HeadDim] output of the forward pass, where <see cref="KeepsAttentionOutput"/>; else anything of that shape.</param>
    /// <param name="logSumExp">[T, heads] from the forward pass.</param>
    /// <param name="dO">[T, heads · HeadDim] of <see cref="ActivationType"/>.</param>
    /// <param name="dq">[T, heads · HeadDim] of <see cref="ActivationType"/>, out.</param>
    /// <param name="dKv">Float32 gradient of keys and values in the cache's form; out: every slot named by the work list holds the sum over all rows that saw it.</param>
    public void AttendBackward(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, Tensor dO, Tensor dq, KvLayer dKv)
    {
        Check.Heads(kv, q);
        Check.Shape(q.Rows, q.Columns, o, nameof(o));
        Check.Shape(q.Rows, q.Columns / kv.HeadDim, logSumExp, nameof(logSumExp));
        Check.Same(q, dO, nameof(dO));
        Check.Same(q, dq, nameof(dq));
        Check.Gradient(kv.Data, dKv.Data, nameof(dKv));
        AttendBackwardCore(q, kv, work, o, logSumExp, dO, dq, dKv);
    }

    /// <summary>
    /// dx of <see cref="ProjectQkv"/> plus the residual's dy, and the gradients of the four adapter factors, which are added to what
    /// <paramref name="gradient"/> holds. B's gradient is that of the scaled B the forward pass was given.
    /// </summary>
    /// <param name="x">[T, H] as in the forward pass.</param>
    /// <param name="weights">Norm and products.</param>
    /// <param name="adapter">Low-rank updates, or null.</param>
    /// <param name="dropout">As in the forward pass: its mask is drawn again.</param>
    /// <param name="rotary">Rotary embedding.</param>
    /// <param name="rows">[T] as in the forward pass.</param>
    /// <param name="lowRank">[T, 2 · rank] what the forward pass kept.</param>
    /// <param name="dq">[T, heads · HeadDim] of <see cref="ActivationType"/>, with respect to the rotated queries.</param>
    /// <param name="dKv">Float32 gradient of keys and values; a row's own slot is read.</param>
    /// <param name="dy">[T, H] float32 gradient of the residual stream after attention.</param>
    /// <param name="dx">[T, H] float32 out; may be dy itself.</param>
    /// <param name="gradient">Factor gradients, float32, added to.</param>
    /// <param name="roundedDx">Where dx is wanted in <see cref="ActivationType"/> too, as products take it.</param>
    /// <param name="mask">As it came out of the forward pass; empty: it is drawn again.</param>
    public void ProjectQkvBackward(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows,
        Tensor lowRank, Tensor dq, KvLayer dKv, Tensor dy, Tensor dx, AdapterLayer? gradient, Tensor roundedDx = default, View<uint> mask = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(rotary);
        Check.Columns(weights.Query.Inputs, x, nameof(x));
        Check.Length(x.Rows, rows, nameof(rows));
        Check.Shape(x.Rows, weights.Query.Outputs, dq, nameof(dq));
        Check.Type(ActivationType, dq, nameof(dq));
        Check.Kv(dKv, rotary, weights.Key.Outputs, dq.Columns);
        Check.Gradient(x, dy, nameof(dy));
        Check.Gradient(x, dx, nameof(dx));
        Check.Rounded(x, roundedDx, nameof(roundedDx));
        Check.Adapter(adapter, weights);
        Check.Adapter(gradient, weights);
        if (adapter is not null)
        {
            ArgumentNullException.ThrowIfNull(gradient);
            Check.Shape(x.Rows, 2 * adapter.Rank, lowRank, nameof(lowRank));
        }

        ProjectQkvBackwardCore(x, weights, adapter, dropout, rotary, rows, lowRank, dq, dKv, dy, dx, gradient, roundedDx, mask);
    }

    /// <summary>Core of <see cref="LogProbBackward"/>.</summary>
    protected abstract void LogProbBackwardCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<float> logSumExp, View<float> dLogProb, Tensor dx);

    /// <summary>Core of <see cref="FeedForwardBackward"/>.</summary>
    protected abstract void FeedForwardBackwardCore(Tensor x, FeedForwardWeights weights, Tensor saved, Tensor dy, Tensor dx, Tensor roundedDy, Tensor roundedDx);

    /// <summary>Core of <see cref="ProjectOutBackward"/>.</summary>
    protected abstract void ProjectOutBackwardCore(Tensor dy, Linear weights, Tensor dO, Tensor roundedDy);

    /// <summary>Core of <see cref="AttendBackward"/>.</summary>
    protected abstract void AttendBackwardCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp, Tensor dO, Tensor dq, KvLayer dKv);

    /// <summary>Core of <see cref="ProjectQkvBackward"/>.</summary>
    protected abstract void ProjectQkvBackwardCore(
        Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows,
        Tensor lowRank, Tensor dq, KvLayer dKv, Tensor dy, Tensor dx, AdapterLayer? gradient, Tensor roundedDx, View<uint> mask);
}
