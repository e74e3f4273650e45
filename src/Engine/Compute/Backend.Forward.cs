namespace LrIad.Engine.Compute;

internal abstract partial class Backend
{
    /// <summary>x[t] = table[ids[t]], or row −ids[t] − 1 of <paramref name="features"/> where ids[t] is negative (an image token).</summary>
    /// <param name="ids">[T].</param>
    /// <param name="table">[vocabulary, H].</param>
    /// <param name="features">[F, H] image features, or empty.</param>
    /// <param name="x">[T, H].</param>
    public void Embed(View<int> ids, Tensor table, Tensor features, Tensor x)
    {
        Check.Rows(ids.Length, x, nameof(x));
        Check.Columns(table.Columns, x, nameof(x));
        if (!features.IsEmpty)
        {
            Check.Columns(table.Columns, features, nameof(features));
        }

        EmbedCore(ids, table, features, x);
    }

    /// <summary>pixels[p, (c, frame, i)] = values[c, levels[p, c, i]], the same in every frame: what eight bits a channel stand for.</summary>
    /// <param name="levels">[P, 3·14·14].</param>
    /// <param name="values">[3, 256] float32.</param>
    /// <param name="pixels">[P, 3·2·14·14] of <see cref="ActivationType"/>, out.</param>
    public void LookUpPixels(View<byte> levels, View<float> values, Tensor pixels)
    {
        Check.Length(3 * 256, values, nameof(values));
        Check.Type(ActivationType, pixels, nameof(pixels));
        if (levels.Length == 0 || pixels.Length % levels.Length != 0 || levels.Length % (3 * pixels.Rows) != 0)
        {
            throw new ArgumentException($"LookUpPixels: {levels.Length} levels do not make {pixels.Rows} patches of {pixels.Columns} values.");
        }

        LookUpPixelsCore(levels, values, pixels);
    }

    /// <summary>x = pixels · weightᵀ: the patch convolution, whose stride is its size.</summary>
    /// <param name="pixels">[P, 3·2·14·14] of <see cref="ActivationType"/>.</param>
    /// <param name="weight">[E, 3·2·14·14].</param>
    /// <param name="x">[P, E].</param>
    public void PatchEmbed(Tensor pixels, Tensor weight, Tensor x)
    {
        Check.Type(ActivationType, pixels, nameof(pixels));
        Check.Columns(weight.Columns, pixels, nameof(pixels));
        Check.Shape(pixels.Rows, weight.Rows, x, nameof(x));
        PatchEmbedCore(pixels, weight, x);
    }

    /// <summary>
    /// The start of attention: norm, query, key and value products with bias, the adapter's low-rank update of query and value for rows whose
    /// <see cref="TokenRow.Adapter"/> is set, rotary on query and key, and key and value written to the row's slot.
    /// </summary>
    /// <param name="x">[T, H] residual stream.</param>
    /// <param name="weights">Norm and products.</param>
    /// <param name="adapter">Low-rank updates, or null.</param>
    /// <param name="dropout">Dropout on the adapter's input.</param>
    /// <param name="rotary">Rotary embedding.</param>
    /// <param name="rows">[T] positions, slots and switches.</param>
    /// <param name="q">[T, heads · HeadDim] out: rotated queries.</param>
    /// <param name="kv">Cache of this layer.</param>
    /// <param name="lowRank">[T, 2 · rank] float32 out: A·x of query then value (zero for rows without adapter), kept for the backward pass; empty: not kept.</param>
    /// <param name="mask">2 · T · ⌈H / 32⌉ words in which the backend may leave dropout's mask for the backward pass; empty: not kept.</param>
    public void ProjectQkv(Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows, Tensor q, KvLayer kv, Tensor lowRank, View<uint> mask = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(rotary);
        Check.Columns(weights.Query.Inputs, x, nameof(x));
        Check.Length(x.Rows, rows, nameof(rows));
        Check.Shape(x.Rows, weights.Query.Outputs, q, nameof(q));
        Check.Kv(kv, rotary, weights.Key.Outputs, q.Columns);
        Check.Adapter(adapter, weights);
        if (adapter is not null && !lowRank.IsEmpty)
        {
            Check.Shape(x.Rows, 2 * adapter.Rank, lowRank, nameof(lowRank));
        }

        ProjectQkvCore(x, weights, adapter, dropout, rotary, rows, q, kv, lowRank, mask);
    }

    /// <summary>
    /// Soft-max attention over the work list, scores scaled by 1/√HeadDim, query head h reading key-value head h / (heads / kv.Heads).
    /// </summary>
    /// <param name="q">[T, heads · HeadDim].</param>
    /// <param name="kv">Keys and values.</param>
    /// <param name="work">Which rows see which keys.</param>
    /// <param name="o">[T, heads · HeadDim] out.</param>
    /// <param name="logSumExp">[T, heads] float32 out: log Σ exp(score) over all of a row's items.</param>
    public void Attend(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp)
    {
        Check.Heads(kv, q);
        Check.Shape(q.Rows, q.Columns, o, nameof(o));
        Check.Shape(q.Rows, q.Columns / kv.HeadDim, logSumExp, nameof(logSumExp));
        AttendCore(q, kv, work, o, logSumExp);
    }

    /// <summary>y = x + o · Wᵀ + b.</summary>
    /// <param name="o">[T, heads · HeadDim] attention output.</param>
    /// <param name="weights">Output product.</param>
    /// <param name="x">[T, H] residual stream.</param>
    /// <param name="y">[T, H] out; may be x itself.</param>
    public void ProjectOut(Tensor o, Linear weights, Tensor x, Tensor y)
    {
        ArgumentNullException.ThrowIfNull(weights);
        Check.Columns(weights.Inputs, o, nameof(o));
        Check.Shape(o.Rows, weights.Outputs, x, nameof(x));
        Check.Same(x, y, nameof(y));
        ProjectOutCore(o, weights, x, y);
    }

    /// <summary>y = x + mlp(norm(x)).</summary>
    /// <param name="x">[T, H].</param>
    /// <param name="weights">Norm and products.</param>
    /// <param name="y">[T, H] out; may be x itself.</param>
    /// <param name="saved">[T, <see cref="FeedForwardWeights.SavedColumns"/>] out: gate | up before the non-linearity, kept for the backward pass; empty: not kept.</param>
    public void FeedForward(Tensor x, FeedForwardWeights weights, Tensor y, Tensor saved)
    {
        ArgumentNullException.ThrowIfNull(weights);
        Check.Columns(weights.Up.Inputs, x, nameof(x));
        Check.Same(x, y, nameof(y));
        if (!saved.IsEmpty)
        {
            Check.Shape(x.Rows, weights.SavedColumns, saved, nameof(saved));
        }

        FeedForwardCore(x, weights, y, saved);
    }

    /// <summary>features = second(gelu(first([norm(x₄ᵢ) | … | norm(x₄ᵢ₊₃)]))): four neighbouring patches become one image token.</summary>
    /// <param name="x">[P, E], patches of a 2×2 square one after another.</param>
    /// <param name="weights">Norm and products.</param>
    /// <param name="features">[P / 4, H] out.</param>
    public void MergePatches(Tensor x, MergerWeights weights, Tensor features)
    {
        ArgumentNullException.ThrowIfNull(weights);
        Check.Shape(features.Rows * 4, weights.First.Inputs / 4, x, nameof(x));
        Check.Columns(weights.Second.Outputs, features, nameof(features));
        MergePatchesCore(x, weights, features);
    }

    /// <summary>Log-prob of a given token after each listed row: final norm, head, log-soft-max; no rows × vocabulary array is kept.</summary>
    /// <param name="x">[T, H] output of the last layer.</param>
    /// <param name="head">Final norm and vocabulary product.</param>
    /// <param name="rows">[R] rows, targets and temperatures.</param>
    /// <param name="options">Token ids whose log-probs are wanted at every row, or empty.</param>
    /// <param name="result">Where the results go.</param>
    public void LogProb(Tensor x, HeadWeights head, View<LogProbRow> rows, View<int> options, HeadResult result)
    {
        ArgumentNullException.ThrowIfNull(head);
        Check.Columns(head.Weight.Columns, x, nameof(x));
        Check.Length(rows.Length, result.LogProb, nameof(result));
        Check.Length(rows.Length, result.Entropy, nameof(result));
        Check.Length(rows.Length, result.LogSumExp, nameof(result));
        if (!options.IsEmpty)
        {
            Check.Shape(rows.Length, options.Length, result.Options, nameof(result));
        }

        Check.Top(rows.Length, result);
        LogProbCore(x, head, rows, options, result);
    }

    /// <summary>
    /// Draws a token after each listed row: the largest logit / temperature + Gumbel noise among the tokens that top-k, then top-p leave
    /// (<c>Philox.Gumbel</c>), and its log-prob in the untruncated distribution.
    /// </summary>
    /// <param name="x">[T, H] output of the last layer.</param>
    /// <param name="head">Final norm and vocabulary product.</param>
    /// <param name="rows">[R] rows and how to draw from each.</param>
    /// <param name="result">Where the results go.</param>
    /// <param name="masks">[masks · ⌈vocabulary / 32⌉] bits of the tokens that rows with a mask can draw, at least one of them; empty where no row has one.</param>
    public void Sample(Tensor x, HeadWeights head, View<SampleRow> rows, HeadResult result, View<uint> masks = default)
    {
        ArgumentNullException.ThrowIfNull(head);
        Check.Columns(head.Weight.Columns, x, nameof(x));
        Check.Length(rows.Length, result.Token, nameof(result));
        Check.Length(rows.Length, result.LogProb, nameof(result));
        Check.Length(rows.Length, result.Entropy, nameof(result));
        Check.Top(rows.Length, result);
        SampleCore(x, head, rows, masks, result);
    }

    /// <summary>Core of <see cref="Embed"/>.</summary>
    protected abstract void EmbedCore(View<int> ids, Tensor table, Tensor features, Tensor x);

    /// <summary>Core of <see cref="LookUpPixels"/>.</summary>
    protected abstract void LookUpPixelsCore(View<byte> levels, View<float> values, Tensor pixels);

    /// <summary>Core of <see cref="PatchEmbed"/>.</summary>
    protected abstract void PatchEmbedCore(Tensor pixels, Tensor weight, Tensor x);

    /// <summary>Core of <see cref="ProjectQkv"/>.</summary>
    protected abstract void ProjectQkvCore(Tensor x, QkvWeights weights, AdapterLayer? adapter, Dropout dropout, Rotary rotary, View<TokenRow> rows, Tensor q, KvLayer kv, Tensor lowRank, View<uint> mask);

    /// <summary>Core of <see cref="Attend"/>.</summary>
    protected abstract void AttendCore(Tensor q, KvLayer kv, AttentionWork work, Tensor o, Tensor logSumExp);

    /// <summary>Core of <see cref="ProjectOut"/>.</summary>
    protected abstract void ProjectOutCore(Tensor o, Linear weights, Tensor x, Tensor y);

    /// <summary>Core of <see cref="FeedForward"/>.</summary>
    protected abstract void FeedForwardCore(Tensor x, FeedForwardWeights weights, Tensor y, Tensor saved);

    /// <summary>Core of <see cref="MergePatches"/>.</summary>
    protected abstract void MergePatchesCore(Tensor x, MergerWeights weights, Tensor features);

    /// <summary>Core of <see cref="LogProb"/>.</summary>
    protected abstract void LogProbCore(Tensor x, HeadWeights head, View<LogProbRow> rows, View<int> options, HeadResult result);

    /// <summary>Core of <see cref="Sample"/>.</summary>
    protected abstract void SampleCore(Tensor x, HeadWeights head, View<SampleRow> rows, View<uint> masks, HeadResult result);
}
