using System.Runtime.InteropServices;
using LrIad.Engine.Compute;
using LrIad.Engine.Learn;
using LrIad.Engine.Model;
using TorchSharp;
using static TorchSharp.torch;
using Tensor = TorchSharp.torch.Tensor;

namespace LrIad.Engine.Tests.Flow;

/// <summary>
/// The Qwen2-VL decoder once more, in double and as plainly as TorchSharp allows: one sequence at a time, the whole prompt again for every completion, nothing
/// packed, cached or fused, and autograd for the way back.
/// </summary>
internal sealed class TorchDecoder : IDisposable
{
    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly TextGeometry _text;
    private readonly Dictionary<string, Tensor> _weights;
    private readonly Tensor[][] _factors;
    private readonly AdapterShape _shape;

    public TorchDecoder(RandomModel model, AdapterShape shape, IReadOnlyList<LayerFactors> factors)
    {
        (_text, _shape) = (model.Text, shape);
        _weights = model.Weights.ToDictionary(pair => pair.Key, pair => Double(pair.Value.Values, pair.Value.Shape));
        _factors = [.. factors.Select(layer => new[]
        {
            Leaf(layer.QueryA, shape.Rank, shape.Hidden), Leaf(layer.QueryB, shape.QueryOutputs, shape.Rank),
            Leaf(layer.ValueA, shape.Rank, shape.Hidden), Leaf(layer.ValueB, shape.ValueOutputs, shape.Rank),
        })];
    }

    /// <summary>Log-probs of a completion's tokens.</summary>
    /// <param name="prompt">What comes before.</param>
    /// <param name="tokens">The completion.</param>
    /// <param name="temperature">Divides the logits.</param>
    /// <param name="adapter">Whether the adapter acts.</param>
    /// <param name="dropout">LoRA dropout.</param>
    /// <param name="promptId">The prompt's dropout id.</param>
    /// <param name="completionId">The completion's.</param>
    public Tensor LogProbs(EncodedPrompt prompt, int[] tokens, float temperature, bool adapter, Dropout dropout, uint promptId, uint completionId)
    {
        var inputs = prompt.Ids.Concat(tokens).ToArray();
        (int T, int H, int W)[] positions = [.. prompt.Positions, .. tokens.Select((_, i) => (prompt.NextPosition + i, prompt.NextPosition + i, prompt.NextPosition + i))];
        var x = Embed(inputs, MemoryMarshal.Cast<byte, float>(prompt.Features).ToArray());
        var (cos, sin) = Rotations(positions);
        var future = ones(inputs.Length, inputs.Length, dtype: ScalarType.Bool).triu(1);
        for (var i = 0; i < _text.Layers; i++)
        {
            x = Layer(i, x, cos, sin, future, adapter, projection => Mask(dropout with { Layer = i }, projection, prompt.Length, tokens.Length, promptId, completionId));
        }

        var head = _weights[_text.TiedHead ? "model.embed_tokens.weight" : "lm_head.weight"];
        var logits = Norm(x, "model.norm").matmul(head.t()) / temperature;
        var before = logits.log_softmax(-1).narrow(0, prompt.Length - 1, tokens.Length);
        return before.gather(1, tensor(Array.ConvertAll(tokens, token => (long)token)).unsqueeze(1)).squeeze(1);
    }

    /// <summary>Gradient of a sum with respect to every factor.</summary>
    public IReadOnlyList<LayerFactors> Backward(Tensor sum)
    {
        sum.backward();
        return [.. _factors.Select(layer =>
        {
            var gradients = layer.Select(factor => factor.grad!.to(ScalarType.Float32).contiguous().data<float>().ToArray()).ToArray();
            return new LayerFactors(gradients[0], gradients[1], gradients[2], gradients[3]);
        })];
    }

    public void Dispose() => _scope.Dispose();

    private static Tensor Double(float[] values, params int[] shape) => tensor(values).to(ScalarType.Float64).reshape([.. shape.Select(size => (long)size)]);

    private static Tensor Leaf(float[] values, int rows, int columns) => Double(values, rows, columns).requires_grad_();

    private Tensor Layer(int i, Tensor x, Tensor cos, Tensor sin, Tensor future, bool adapter, Func<int, Tensor> mask)
    {
        var prefix = $"model.layers.{i}.";
        var normed = Norm(x, prefix + "input_layernorm");
        var (q, k, v) = (Linear(normed, prefix + "self_attn.q_proj"), Linear(normed, prefix + "self_attn.k_proj"), Linear(normed, prefix + "self_attn.v_proj"));
        if (adapter)
        {
            var factors = _factors[i];
            q += (normed * mask(0)).matmul(factors[0].t()).matmul(factors[1].t());
            v += (normed * mask(1)).matmul(factors[2].t()).matmul(factors[3].t());
        }

        var (queries, keys, values) = (Rotate(Heads(q, _text.Heads), cos, sin), Rotate(Heads(k, _text.KeyValueHeads), cos, sin), Heads(v, _text.KeyValueHeads));
        var share = _text.Heads / _text.KeyValueHeads;
        var scores = queries.matmul(keys.repeat_interleave(share, 0).transpose(1, 2)) / Math.Sqrt(_text.HeadDim);
        var seen = scores.masked_fill(future, double.NegativeInfinity).softmax(-1).matmul(values.repeat_interleave(share, 0));
        x += Linear(seen.transpose(0, 1).reshape(x.shape[0], -1), prefix + "self_attn.o_proj");

        normed = Norm(x, prefix + "post_attention_layernorm");
        var gated = nn.functional.silu(Linear(normed, prefix + "mlp.gate_proj")) * Linear(normed, prefix + "mlp.up_proj");
        return x + Linear(gated, prefix + "mlp.down_proj");
    }

    private Tensor Embed(int[] ids, float[] features)
    {
        var table = _weights["model.embed_tokens.weight"];
        var images = features.Length > 0 ? Double(features, features.Length / _text.Hidden, _text.Hidden) : null;
        return stack([.. ids.Select(id => id < 0 ? images![-id - 1] : table[id])]);
    }

    private Tensor Norm(Tensor x, string name) => x * (x.square().mean([-1], keepdim: true) + (double)_text.NormEpsilon).rsqrt() * _weights[name + ".weight"];

    private Tensor Linear(Tensor x, string name)
    {
        var y = x.matmul(_weights[name + ".weight"].t());
        return _weights.TryGetValue(name + ".bias", out var bias) ? y + bias : y;
    }

    private Tensor Heads(Tensor rows, int heads) => rows.reshape(rows.shape[0], heads, _text.HeadDim).transpose(0, 1);

    // Frequencies in three sections, of the temporal, height and width position; the head's two halves are the two coordinates of the rotated pairs.
    private (Tensor Cos, Tensor Sin) Rotations((int T, int H, int W)[] positions)
    {
        var half = _text.HeadDim / 2;
        var angles = new double[positions.Length, half];
        for (var row = 0; row < positions.Length; row++)
        {
            for (var f = 0; f < half; f++)
            {
                var (t, h, w) = positions[row];
                var position = f < _text.MRopeSection[0] ? t : f < _text.MRopeSection[0] + _text.MRopeSection[1] ? h : w;
                angles[row, f] = position * Math.Pow(_text.RopeTheta, -2.0 * f / _text.HeadDim);
            }
        }

        var both = tensor(angles).repeat(1, 2);
        return (both.cos(), both.sin());
    }

    private static Tensor Rotate(Tensor heads, Tensor cos, Tensor sin)
    {
        var halves = heads.chunk(2, -1);
        return (heads * cos) + (cat([-halves[1], halves[0]], -1) * sin);
    }

    private Tensor Mask(Dropout dropout, int projection, int promptLength, int completionLength, uint promptId, uint completionId)
    {
        var mask = new float[(promptLength + completionLength) * _shape.Hidden];
        mask.AsSpan().Fill(1);
        if (dropout.Probability > 0)
        {
            for (var row = 0; row < promptLength + completionLength; row++)
            {
                var (id, position) = row < promptLength ? (promptId, row) : (completionId, row - promptLength);
                Philox.DropoutMask(dropout, projection, id, (uint)position, mask.AsSpan(row * _shape.Hidden, _shape.Hidden));
            }
        }

        return Double(mask, promptLength + completionLength, _shape.Hidden);
    }
}
