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
/// factors' gradients come in and go through the published, scaled factors to the parameters, which hold all layers' matrices of a kind in one. No managed code runs inside a backward pass.
/// </summary>
internal sealed class PolicyLearner : IPolicyLearner
{
    private const string NothingChanged = "Nothing was changed by this step; lower --learning-rate, or go on from the last checkpoint with --resume.";

    // More do not make a step of some megabytes faster.
    private const int StepThreads = 8;

    private readonly LoraOptions _lora;
    private readonly ObjectiveOptions _objective;
    private readonly OptimizerOptions _optimizerOptions;
    private readonly Parameter[] _parameters;
    private readonly AdamW _optimizer;

    // What comes in and goes out with every step has its place: megabytes of fresh memory a step would cost more than the arithmetic.
    private readonly Tensor[] _incoming;
    private readonly LayerFactors[] _published;

    private PolicyLearner(AdapterShape shape, LoraOptions lora, ObjectiveOptions objective, OptimizerOptions optimizer, ulong seed)
    {
        (Shape, _lora, _objective, _optimizerOptions) = (shape, lora, objective, optimizer);
        _parameters = [A(shape, seed, 0), B(shape.QueryOutputs), A(shape, seed, 1), B(shape.ValueOutputs)];
        _optimizer = torch.optim.AdamW(_parameters, lr: optimizer.LearningRate, weight_decay: 0);
        _incoming = [.. _parameters.Select(parameter => zeros(parameter.shape))];
        _published = NewFactors();
    }

    /// <inheritdoc/>
    public AdapterShape Shape { get; }

    private Parameter B(int outputs) => new(zeros(Shape.Layers, outputs, Shape.Rank));

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
        Unstack(Effective(), _published);
        return _published;
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
        Stack(gradients, _incoming);
        autograd.backward([.. Effective()], [.. _incoming]);
        var norm = Math.Sqrt(_parameters.Sum(parameter => Math.Pow(parameter.grad!.norm().item<float>(), 2)));
        if (!double.IsFinite(norm))
        {
            throw new InvalidOperationException($"The gradient's norm is too large for a float. {NothingChanged}");
        }

        if (_optimizerOptions.MaxGradNorm > 0)
        {
            nn.utils.clip_grad_norm_(_parameters, _optimizerOptions.MaxGradNorm);
        }

        foreach (var group in _optimizer.ParamGroups)
        {
            group.LearningRate = learningRate;
        }

        // Element by element: as many threads as there are give the same bits, which the sums of the norm would not.
        set_num_threads(Math.Min(Environment.ProcessorCount, StepThreads));
        _optimizer.step();
        set_num_threads(1);
        return norm;
    }

    /// <inheritdoc/>
    public IReadOnlyList<LayerFactors> Parameters()
    {
        var factors = NewFactors();
        Unstack(_parameters, factors);
        return factors;
    }

    /// <inheritdoc/>
    public void SetParameters(IReadOnlyList<LayerFactors> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        Stack(parameters, _parameters);
    }

    /// <inheritdoc/>
    public IReadOnlyList<StateArray> SaveOptimizer()
    {
        using var scope = NewDisposeScope();
        var arrays = new List<StateArray>();
        foreach (var (name, state, mean, square) in States())
        {
            arrays.Add(new StateArray($"{name}.step", [1], [state.step]));
            arrays.Add(Array($"{name}.exp_avg", mean));
            arrays.Add(Array($"{name}.exp_avg_sq", square));
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
        foreach (var (name, target, mean, square) in States())
        {
            target.step = (long)Values("step", 1)[0];
            Fill(mean, "exp_avg");
            Fill(square, "exp_avg_sq");

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
        foreach (var tensor in _parameters.Concat(_incoming))
        {
            tensor.Dispose();
        }
    }

    // Moments of each layer's matrices, as views.
    private IEnumerable<(string Name, AdamW.State State, Tensor Mean, Tensor Square)> States() =>
        from layer in Enumerable.Range(0, Shape.Layers)
        from pair in _optimizer.state_dict().State.Cast<AdamW.State>().Zip(Names)
        select ($"{layer}.{pair.Second}", pair.First, pair.First.exp_avg[layer], pair.First.exp_avg_sq[layer]);

    // As LayerFactors.All and the parameters are ordered.
    private static readonly string[] Names = ["q_proj.A", "q_proj.B", "v_proj.A", "v_proj.B"];

    /// <summary>How parameters turn into the factors that act. Another parametrisation changes this alone.</summary>
    private Tensor[] Effective() => [_parameters[0].alias(), _parameters[1] * Scale, _parameters[2].alias(), _parameters[3] * Scale];

    private LayerFactors[] NewFactors() => [.. Enumerable.Range(0, Shape.Layers).Select(_ => LayerFactors.Zeros(Shape))];

    // In one piece: an accessor would go element by element.
    private static float[] Values(Tensor tensor)
    {
        using var whole = tensor.detach().contiguous();
        return Elements(whole).ToArray();
    }

    private static Span<float> Elements(Tensor tensor) => MemoryMarshal.Cast<byte, float>(tensor.bytes);

    private static void Stack(IReadOnlyList<LayerFactors> layers, Tensor[] stacks)
    {
        foreach (var (stack, i) in stacks.Select((stack, i) => (stack, i)))
        {
            var rest = Elements(stack);
            foreach (var layer in layers)
            {
                var values = layer.All[i];
                values.CopyTo(rest);
                rest = rest[values.Length..];
            }
        }
    }

    private static void Unstack(Tensor[] stacks, LayerFactors[] layers)
    {
        foreach (var (stack, i) in stacks.Select((stack, i) => (stack, i)))
        {
            var rest = Elements(stack);
            foreach (var layer in layers)
            {
                var values = layer.All[i];
                rest[..values.Length].CopyTo(values);
                rest = rest[values.Length..];
            }
        }
    }

    private static void RequireFinite(LayerFactors gradient, int layer)
    {
        foreach (var (name, values) in Names.Zip(gradient.All))
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

    // PEFT's start: A uniform within ±1/√inputs (Kaiming, a = √5), B zero; drawn from the run's seed, layer by layer.
    private static Parameter A(AdapterShape shape, ulong seed, int projection)
    {
        const uint stream = 0x4C4F5241;
        var bound = 1 / Math.Sqrt(shape.Hidden);
        var size = shape.Rank * shape.Hidden;
        var values = new float[shape.Layers * size];
        for (var i = 0; i < values.Length; i++)
        {
            var word = Philox.Block(seed, (uint)(i % size), (uint)((i / size * 2) + projection), stream, 0).X0;
            values[i] = (float)(((word + 0.5) / 4294967296.0 * 2 * bound) - bound);
        }

        return new Parameter(tensor(values, shape.Layers, shape.Rank, shape.Hidden));
    }
}
