using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Evaluate;

/// <summary>Questions that are asked side by side.</summary>
/// <param name="Samples">What they are about.</param>
/// <param name="Questions">A question each.</param>
/// <param name="First">Number of the first among all.</param>
internal sealed record QuestionBatch(IReadOnlyList<Sample> Samples, IReadOnlyList<Question> Questions, uint First);

/// <summary>The images of a set as questions, a batch at a time; bad ones are told of and passed over.</summary>
internal sealed class QuestionStream
{
    private readonly Inspector _inspector;
    private readonly EvalConfig _config;
    private readonly IProgress<EvalProgress>? _progress;
    private readonly Dictionary<string, ImageFeatures> _references;
    private readonly List<Skipped> _skipped;

    /// <param name="set">The images.</param>
    /// <param name="inspector">Reads and encodes them.</param>
    /// <param name="config">How many side by side, and whether a bad one is an error.</param>
    /// <param name="progress">Told of every batch.</param>
    /// <exception cref="InputException">A reference cannot be read.</exception>
    public QuestionStream(TestSet set, Inspector inspector, EvalConfig config, IProgress<EvalProgress>? progress)
    {
        (Set, _inspector, _config, _progress, _skipped) = (set, inspector, config, progress, [.. set.Problems]);
        _references = set.References.ToDictionary(category => category.Key, category => inspector.Prompts.Encode([inspector.Images.Process(category.Value)])[0]);
    }

    /// <summary>The images.</summary>
    public TestSet Set { get; }

    /// <summary>What could not be used, so far.</summary>
    public IReadOnlyList<Skipped> Skipped => _skipped;

    /// <summary>The questions, once.</summary>
    /// <exception cref="OperationCanceledException">While they are enumerated.</exception>
    public IEnumerable<QuestionBatch> Batches(CancellationToken cancellation)
    {
        var done = 0;
        foreach (var batch in Set.Samples.Zip(_inspector.Read(Set.Samples.Select(sample => sample.ImagePath), cancellation)).Chunk(_config.BatchSize))
        {
            var readable = Readable(batch);
            if (readable.Count > 0)
            {
                var features = _inspector.Prompts.Encode([.. readable.Select(item => item.Image)]);
                yield return new QuestionBatch([.. readable.Select(item => item.Sample)], [.. readable.Select((item, i) => Ask(item.Sample.Object, features[i]))], (uint)done);
            }

            done += batch.Length;
            _progress?.Report(new EvalProgress(done, Set.Samples.Count));
        }
    }

    private Question Ask(string category, ImageFeatures image) => new(category, _references.TryGetValue(category, out var reference) ? [reference, image] : [image]);

    private List<(Sample Sample, ImagePatches Image)> Readable((Sample, ReadImage)[] batch)
    {
        var readable = new List<(Sample, ImagePatches)>();
        foreach (var (sample, (file, image, problem)) in batch)
        {
            if (image is not null)
            {
                readable.Add((sample, image));
                continue;
            }

            if (_config.Strict)
            {
                throw problem!;
            }

            _skipped.Add(new Skipped(file, problem!.Message));
            _progress?.Report(new EvalProgress(0, 0, problem.Message + " It is passed over."));
        }

        return readable;
    }
}
