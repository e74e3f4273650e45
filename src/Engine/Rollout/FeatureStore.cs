using LrIad.Engine.Data;

namespace LrIad.Engine.Rollout;

/// <summary>Features of image files, computed once and kept as long as they fit the budget.</summary>
internal sealed class FeatureStore(PromptEncoder encoder, ImageProcessor processor, long budgetBytes = FeatureStore.DefaultBudgetBytes)
{
    /// <summary>What is kept by default: over 1,000 images at 512 tokens of Qwen2-VL-7B.</summary>
    public const long DefaultBudgetBytes = 4L << 30;

    private readonly Dictionary<string, ImageFeatures> _kept = [];
    private readonly Dictionary<string, Task<ImagePatches>> _ahead = [];
    private long _bytes;

    /// <summary>Reads images that will be asked for next while other work goes on. What is wrong with one is told when it is asked for.</summary>
    public void ReadAhead(IEnumerable<string> files)
    {
        ArgumentNullException.ThrowIfNull(files);
        foreach (var file in files.Where(file => !_kept.ContainsKey(file)))
        {
            _ahead.TryAdd(file, Task.Run(() => processor.Process(file)));
        }
    }

    /// <summary>Features of each file, or what is wrong with it.</summary>
    public IReadOnlyList<(ImageFeatures? Features, InputException? Problem)> Get(IReadOnlyList<string> files, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(files);
        var found = new (ImageFeatures? Features, InputException? Problem)[files.Count];
        var patches = new ImagePatches?[files.Count];
        Parallel.For(0, files.Count, new ParallelOptions { CancellationToken = cancellation }, i =>
        {
            if (_kept.TryGetValue(files[i], out var features))
            {
                found[i] = (features, null);
                return;
            }

            try
            {
                patches[i] = _ahead.TryGetValue(files[i], out var read) ? read.GetAwaiter().GetResult() : processor.Process(files[i]);
            }
            catch (InputException problem)
            {
                found[i] = (null, problem);
            }
        });

        _ahead.Clear();
        var missing = Enumerable.Range(0, files.Count).Where(i => patches[i] is not null).ToArray();
        if (missing.Length > 0)
        {
            var encoded = encoder.Encode([.. missing.Select(i => patches[i]!)]);
            foreach (var (i, features) in missing.Zip(encoded))
            {
                found[i] = (features, null);
                Keep(files[i], features);
            }
        }

        return found;
    }

    private void Keep(string file, ImageFeatures features)
    {
        if (_bytes + features.Values.Length <= budgetBytes && _kept.TryAdd(file, features))
        {
            _bytes += features.Values.Length;
        }
    }
}
