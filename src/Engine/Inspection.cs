using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;

namespace LrIad.Engine;

/// <summary>How images are inspected.</summary>
internal sealed record InspectionOptions
{
    /// <summary>Images are scaled down to this many pixels; null: what the adapter was trained with, else 401,408.</summary>
    public int? MaxPixels { get; init; }

    /// <summary>Longest prompt in tokens.</summary>
    public int MaxPromptLength { get; init; } = 4096;

    /// <summary>Longest completion in tokens.</summary>
    public int MaxCompletionLength { get; init; } = 256;

    /// <summary>A file with another prompt; null: the paper's.</summary>
    public string? PromptTemplate { get; init; }

    /// <summary>Sampled completions an image whose share of "defect" is the score; 0: the probe is the score.</summary>
    public int Votes { get; init; }

    /// <summary>Seed of the votes.</summary>
    public ulong Seed { get; init; }

    /// <summary>Completions drawn side by side.</summary>
    public int Sequences { get; init; } = 32;
}

/// <summary>What the model says of one image.</summary>
/// <param name="Answer">The greedy completion, parsed: verdict and reasoning, or why it is invalid.</param>
/// <param name="Completion">The greedy completion as text, end token left out.</param>
/// <param name="Score">For ranking and thresholds, larger is more defective: the probe's log-odds, or with votes the share of "defect" (ties broken by the probe).</param>
/// <param name="Probe">Log-odds of defect over normal after forced, empty reasoning.</param>
/// <param name="Tokens">Length of the completion.</param>
internal sealed record Verdict(Answer Answer, string Completion, double Score, double Probe, int Tokens);

/// <summary>One question: an object's image, and images of the same kind to compare with, if any.</summary>
/// <param name="Object">What it is.</param>
/// <param name="Images">The features of its images, the inspected one last.</param>
internal sealed record Question(string Object, IReadOnlyList<ImageFeatures> Images);

/// <summary>THE OTHER PATH: image → verdict, reasoning, score.</summary>
internal sealed class Inspector : IDisposable
{
    private readonly InspectionOptions _options;
    private readonly Generator _generator;
    private readonly AdapterWeights? _adapter;

    /// <param name="model">The model.</param>
    /// <param name="backend">Where it runs.</param>
    /// <param name="adapter">Its adapter, or null for the base model. Not disposed with the inspector.</param>
    /// <param name="options">How to inspect.</param>
    public Inspector(QwenModel model, Backend backend, AdapterWeights? adapter, InspectionOptions options)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(options);
        (_options, _adapter, Device) = (options, adapter, backend.Name);
        Tokenizer = Tokenizer.Load(model.TokenizerFile);
        Prompts = new PromptEncoder(model, backend, Tokenizer, PromptTemplate.Load(options.PromptTemplate), options.MaxPromptLength);
        Images = new ImageProcessor(model.Preprocessor, options.MaxPixels ?? DefaultMaxPixels);
        var sequences = Math.Max(options.Sequences, options.Votes);
        _generator = new Generator(model, backend, AnswerOptions.Find(Tokenizer), new GeneratorLimits(sequences, sequences, options.MaxPromptLength, options.MaxCompletionLength));
    }

    /// <summary>max_pixels of the paper: 512 image tokens.</summary>
    public const int DefaultMaxPixels = 401_408;

    /// <summary>What it runs on: cpu or cuda.</summary>
    public string Device { get; }

    /// <summary>The model's tokenizer.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>Makes questions.</summary>
    public PromptEncoder Prompts { get; }

    /// <summary>Reads images.</summary>
    public ImageProcessor Images { get; }

    /// <summary>The images of files, in their order; while the model works on as many as it answers side by side, the next as many are read.</summary>
    /// <exception cref="OperationCanceledException">While it is enumerated.</exception>
    public IEnumerable<ReadImage> Read(IEnumerable<string> files, CancellationToken cancellation) => ImageStream.Read(files, Images, _options.Sequences, cancellation);

    /// <summary>Answers questions, side by side; the verdicts come back in their order.</summary>
    /// <param name="questions">What to look at.</param>
    /// <param name="firstSample">Number of the first question among all that are asked: it keys the draws of the votes.</param>
    /// <param name="cancellation">Looked at before every token.</param>
    public IReadOnlyList<Verdict> Inspect(IReadOnlyList<Question> questions, uint firstSample, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(questions);
        var prompts = Build(questions);
        var greedy = new SamplingOptions { Temperature = 0, MaxCompletionLength = _options.MaxCompletionLength };
        var groups = _generator.Run([.. prompts.Select(prompt => new GroupRequest(prompt, 1, 0))], greedy, _options.Seed, _adapter?.Layers, probe: true, cancellation);
        var votes = Vote(prompts, firstSample, cancellation);
        return [.. groups.Select((group, i) => ToVerdict(group, votes?[i]))];
    }

    /// <summary>The scores alone, those of <see cref="Inspect"/>: without a greedy completion, which takes most of the time.</summary>
    /// <inheritdoc cref="Inspect"/>
    public IReadOnlyList<double> Score(IReadOnlyList<Question> questions, uint firstSample, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(questions);
        var prompts = Build(questions);
        var probes = Probe(prompts, _adapter, cancellation);
        var votes = Vote(prompts, firstSample, cancellation);
        return [.. probes.Select((probe, i) => ToScore(probe, votes?[i]))];
    }

    /// <summary>The probe of the model without its adapter, for each question: what a trained one is compared with.</summary>
    internal IReadOnlyList<double> ProbeUntrained(IReadOnlyList<Question> questions, CancellationToken cancellation) => Probe(Build(questions), adapter: null, cancellation);

    /// <inheritdoc/>
    public void Dispose()
    {
        Prompts.Dispose();
        _generator.Dispose();
    }

    private EncodedPrompt[] Build(IReadOnlyList<Question> questions) => [.. questions.Select(question => Prompts.Build(question.Object, question.Images))];

    private double[] Probe(EncodedPrompt[] prompts, AdapterWeights? adapter, CancellationToken cancellation)
    {
        var groups = _generator.Run([.. prompts.Select(prompt => new GroupRequest(prompt, 1, 0))], new SamplingOptions { Temperature = 0, MaxCompletionLength = 1 }, _options.Seed, adapter?.Layers, probe: true, cancellation);
        return [.. groups.Select(group => (double)group.Probe!.Value)];
    }

    private double[]? Vote(EncodedPrompt[] prompts, uint firstSample, CancellationToken cancellation)
    {
        if (_options.Votes == 0)
        {
            return null;
        }

        var sampling = new SamplingOptions { MaxCompletionLength = _options.MaxCompletionLength };
        var requests = prompts.Select((prompt, i) => new GroupRequest(prompt, _options.Votes, (firstSample + (uint)i) * (uint)_options.Votes));
        var groups = _generator.Run([.. requests], sampling, _options.Seed, _adapter?.Layers, probe: false, cancellation);
        return [.. groups.Select(group => group.Completions.Average(completion => Parse(completion).Answer.Kind == AnswerKind.Defect ? 1.0 : 0.0))];
    }

    private Verdict ToVerdict(Group group, double? votes)
    {
        var (answer, text) = Parse(group.Completions[0]);
        double probe = group.Probe!.Value;
        return new Verdict(answer, text, ToScore(probe, votes), probe, group.Completions[0].Tokens.Length);
    }

    // A tie between shares is broken by the probe: squeezed into less than half a vote, it never outweighs one.
    private double ToScore(double probe, double? votes) => votes is { } share ? share + (0.5 / (_options.Votes + 1) * Math.Tanh(probe / 8)) : probe;

    private (Answer Answer, string Text) Parse(Completion completion)
    {
        var text = Tokenizer.Decode(completion.Ended ? completion.Tokens[..^1] : completion.Tokens);
        return (Answer.Parse(text, completion.Ended), text);
    }
}
