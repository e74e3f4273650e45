using System.Numerics;
using System.Runtime.InteropServices;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;
using OptimizerOptions = LrIad.Engine.Config.OptimizerOptions;
using Philox = LrIad.Engine.Compute.Philox;

namespace LrIad.Learn;

/// <summary>
/// LoRA factors as fp32 parameters, the GRPO family of objectives, and AdamW, in TorchSharp. The log-probs come in as a leaf and their gradient goes out; the
/// factors' gradients come in and go through the published, scaled factors to the parameters. No managed code runs inside a backward pass.
/// </summary>
public sealed class PolicyLearner : IPolicyLearner
{
    private const string NothingChanged = "Nothing was changed by this step; lower --learning-rate, or go on from the last checkpoint with --resume.";

    private readonly LoraOptions _lora;
    private readonly ObjectiveOptions _objective;
    private readonly OptimizerOptions _optimizerOptions;
    private readonly LayerParameters[] _layers;
    private readonly AdamW _optimizer;

    private PolicyLearner(AdapterShape shape, LoraOptions lora, ObjectiveOptions objective, OptimizerOptions optimizer, ulong seed)
    {
        (Shape, _lora, _objective, _optimizerOptions) = (shape, lora, objective, optimizer);
        _layers = [.. Enumerable.Range(0, shape.Layers).Select(layer => new LayerParameters(shape, seed, layer))];
        _optimizer = torch.optim.AdamW(AllParameters(), lr: optimizer.LearningRate, weight_decay: 0);
    }

    /// <inheritdoc/>
    public AdapterShape Shape { get; }

    private double Scale => _lora.Alpha / _lora.Rank;

    /// <summary>Makes a learner; a <see cref="LearnerFactory"/>.</summary>
    public static IPolicyLearner Create(AdapterShape shape, LoraOptions lora, ObjectiveOptions objective, OptimizerOptions optimizer, ulong seed)
    {
        LibTorch.Require();

        // The matrices are small, and the engine's own threads are waiting to go on.
        set_num_threads(1);
        return new PolicyLearner(shape, lora, objective, optimizer, seed);
    }

    /// <inheritdoc/>
    public IReadOnlyList<LayerFactors> Publish()
    {
        using var scope = NewDisposeScope();
        return [.. _layers.Select(layer => ToFactors(Effective(layer)))];
    }

    /// <inheritdoc/>
    public ObjectiveResult Objective(ObjectiveBatch batch)
    {
        ArgumentNullException.ThrowIfNull(batch);
        using var scope = NewDisposeScope();
        using var logProb = tensor(batch.LogProb, requires_grad: true);
        var (loss, klSum, clipped) = PolicyObjective.Loss(logProb, batch, _objective);
        loss.backward();
        var gradient = logProb.grad is { } grad ? Values(grad) : new float[batch.LogProb.Length];
        return new ObjectiveResult(gradient, loss.item<float>(), klSum, clipped);
    }

    /// <inheritdoc/>
    public double Step(IReadOnlyList<LayerFactors> gradients, double learningRate)
    {
        ArgumentNullException.ThrowIfNull(gradients);
        for (var i = 0; i < gradients.Count; i++)
        {
            RequireFinite(gradients[i], i);
        }

        using var scope = NewDisposeScope();
        _optimizer.zero_grad();
        var published = _layers.SelectMany(layer => Effective(layer).All()).ToList();
        var incoming = gradients.SelectMany(layer => ToTensors(layer)).ToList();
        autograd.backward(published, incoming);
        var parameters = AllParameters().ToArray();
        var norm = Math.Sqrt(parameters.Sum(parameter => Math.Pow(parameter.grad!.norm().item<float>(), 2)));
        if (!double.IsFinite(norm))
        {
            throw new InvalidOperationException($"The gradient's norm is too large for a float. {NothingChanged}");
        }

        if (_optimizerOptions.MaxGradNorm > 0)
        {
            nn.utils.clip_grad_norm_(parameters, _optimizerOptions.MaxGradNorm);
        }

        foreach (var group in _optimizer.ParamGroups)
        {
            group.LearningRate = learningRate;
        }

        _optimizer.step();
        return norm;
    }

    /// <inheritdoc/>
    public IReadOnlyList<LayerFactors> Parameters()
    {
        using var scope = NewDisposeScope();
        return [.. _layers.Select(layer => ToFactors(layer))];
    }

    /// <inheritdoc/>
    public void SetParameters(IReadOnlyList<LayerFactors> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        foreach (var (layer, values) in _layers.Zip(parameters))
        {
            foreach (var (parameter, value) in layer.All().Zip(ToTensors(values)))
            {
                parameter.copy_(value);
            }
        }
    }

    /// <inheritdoc/>
    public IReadOnlyList<StateArray> SaveOptimizer()
    {
        using var scope = NewDisposeScope();
        var arrays = new List<StateArray>();
        foreach (var (name, state) in States())
        {
            arrays.Add(new StateArray($"{name}.step", [1], [state.step]));
            arrays.Add(Array($"{name}.exp_avg", state.exp_avg));
            arrays.Add(Array($"{name}.exp_avg_sq", state.exp_avg_sq));
        }

        return arrays;

        static StateArray Array(string name, Tensor values) => new(name, [.. values.shape.Select(size => (int)size)], Values(values));
    }

    /// <inheritdoc/>
    public void LoadOptimizer(IReadOnlyList<StateArray> state)
    {
        var arrays = state.ToDictionary(array => array.Name);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        foreach (var (name, target) in States())
        {
            target.step = (long)Values("step", 1)[0];
            Fill(target.exp_avg, "exp_avg");
            Fill(target.exp_avg_sq, "exp_avg_sq");

            void Fill(Tensor values, string field) => values.copy_(tensor(Values(field, values.numel())).reshape(values.shape));

            float[] Values(string field, long length) => arrays.TryGetValue($"{name}.{field}", out var array) && array.Values.Length == length
                ? array.Values
                : throw new Engine.InputException($"The optimizer state has no {name}.{field} of {length} values; it belongs to another kind of run.");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _optimizer.Dispose();
        foreach (var parameter in AllParameters())
        {
            parameter.Dispose();
        }
    }

    private IEnumerable<Parameter> AllParameters() => _layers.SelectMany(layer => layer.All().Cast<Parameter>());

    private IEnumerable<(string Name, AdamW.State State)> States() =>
        _optimizer.state_dict().State.Cast<AdamW.State>().Select((state, i) => ($"{i / 4}.{Names[i % 4]}", state));

    private static readonly string[] Names = ["q_proj.A", "q_proj.B", "v_proj.A", "v_proj.B"];

    /// <summary>How parameters turn into the factors that act. Another parametrisation changes this alone.</summary>
    private Factors Effective(LayerParameters layer) => new(layer.QueryA.alias(), layer.QueryB * Scale, layer.ValueA.alias(), layer.ValueB * Scale);

    private static LayerFactors ToFactors(Factors factors)
    {
        var values = factors.All().Select(Values).ToArray();
        return new LayerFactors(values[0], values[1], values[2], values[3]);
    }

    // In one piece: an accessor would go element by element.
    private static float[] Values(Tensor tensor)
    {
        using var whole = tensor.detach().contiguous();
        return MemoryMarshal.Cast<byte, float>(whole.bytes).ToArray();
    }

    private IEnumerable<Tensor> ToTensors(LayerFactors layer) =>
    [
        tensor(layer.QueryA, Shape.Rank, Shape.Hidden), tensor(layer.QueryB, Shape.QueryOutputs, Shape.Rank),
        tensor(layer.ValueA, Shape.Rank, Shape.Hidden), tensor(layer.ValueB, Shape.ValueOutputs, Shape.Rank),
    ];

    private static void RequireFinite(LayerFactors gradient, int layer)
    {
        foreach (var (name, values) in Names.Zip(new[] { gradient.QueryA, gradient.QueryB, gradient.ValueA, gradient.ValueB }))
        {
            if (!IsFinite(values))
            {
                throw new InvalidOperationException($"The gradient of layer {layer}, {name} is not finite. {NothingChanged}");
            }
        }
    }

    // A sum of x − x is zero for finite values alone.
    private static bool IsFinite(ReadOnlySpan<float> values)
    {
        var sum = Vector<float>.Zero;
        foreach (var vector in MemoryMarshal.Cast<float, Vector<float>>(values))
        {
            sum += vector - vector;
        }

        var rest = 0f;
        foreach (var value in values[^(values.Length % Vector<float>.Count)..])
        {
            rest += value - value;
        }

        return Vector.Sum(sum) + rest == 0;
    }

    private record Factors(Tensor QueryA, Tensor QueryB, Tensor ValueA, Tensor ValueB)
    {
        public IEnumerable<Tensor> All() => [QueryA, QueryB, ValueA, ValueB];
    }

    private sealed record LayerParameters : Factors
    {
        public LayerParameters(AdapterShape shape, ulong seed, int layer)
            : base(A(shape, seed, layer, 0), new Parameter(zeros(shape.QueryOutputs, shape.Rank)), A(shape, seed, layer, 1), new Parameter(zeros(shape.ValueOutputs, shape.Rank)))
        {
        }

        // PEFT's start: A uniform within ±1/√inputs (Kaiming, a = √5), B zero; drawn from the run's seed.
        private static Parameter A(AdapterShape shape, ulong seed, int layer, int projection)
        {
            const uint stream = 0x4C4F5241;
            var bound = 1 / Math.Sqrt(shape.Hidden);
            var values = new float[shape.Rank * shape.Hidden];
            for (var i = 0; i < values.Length; i++)
            {
                var word = Philox.Block(seed, (uint)i, (uint)((layer * 2) + projection), stream, 0).X0;
                values[i] = (float)(((word + 0.5) / 4294967296.0 * 2 * bound) - bound);
            }

            return new Parameter(tensor(values, shape.Rank, shape.Hidden));
        }
    }
}
