using System.Security.Cryptography;
using LrIad.Engine.Data;
using LrIad.Engine.Rollout;

namespace LrIad.Engine.Serving;

/// <summary>An image that requests use: being read, read, or encoded.</summary>
/// <param name="key">Its content and its pixel limit.</param>
/// <param name="name">What the first who brought it called it.</param>
/// <param name="patches">Its pixels, while there are no features.</param>
internal sealed class StoredImage(string key, string name, Task<ImagePatches> patches)
{
    public string Key { get; } = key;

    public string Name { get; } = name;

    /// <summary>Its pixels; null once there are features.</summary>
    public Task<ImagePatches>? Patches { get; set; } = patches;

    /// <summary>What the decoder sees; null until the engine's thread has encoded it.</summary>
    public ImageFeatures? Features { get; set; }

    /// <summary>Requests that use it.</summary>
    public int Users { get; set; }
}

/// <summary>
/// Images by their content: read and cut on worker threads, encoded once however many requests bring them, and kept as long as their features fit the limit, the one that was
/// not used for longest going first. Safe to use from any thread.
/// </summary>
internal sealed class ImageStore(PreprocessorSettings settings, EngineLimits limits)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, StoredImage> _images = [];

    // Those that no request uses, the least recently used first.
    private readonly LinkedList<StoredImage> _idle = [];
    private long _bytes;

    public long Encoded { get; private set; }

    public long Kept { get; private set; }

    public long Bytes => Interlocked.Read(ref _bytes);

    /// <summary>The image with this content. It stays until it is <see cref="Release">released</see>.</summary>
    public StoredImage Acquire(ImageData image, int maxPixels)
    {
        var key = $"{Convert.ToHexString(SHA256.HashData(image.Bytes.Span))} {maxPixels}";
        lock (_lock)
        {
            if (!_images.TryGetValue(key, out var stored))
            {
                _images[key] = stored = new StoredImage(key, image.Name, Task.Run(() => Read(image, maxPixels)));
            }
            else
            {
                Kept += stored.Features is null ? 0 : 1;
                if (stored.Users == 0)
                {
                    _idle.Remove(stored);
                }
            }

            stored.Users++;
            return stored;
        }
    }

    /// <summary>Tokens that an image takes, once it is read.</summary>
    /// <exception cref="InputException">It cannot be read.</exception>
    public async Task<int> TokensAsync(StoredImage stored, ImageData image, int maxPixels)
    {
        Task<ImagePatches>? patches;
        lock (_lock)
        {
            if (stored.Features is { } features)
            {
                return features.Tokens;
            }

            patches = stored.Patches;
        }

        try
        {
            return (await patches!.ConfigureAwait(false)).MergedTokens;
        }
        catch (InputException) when (stored.Name != image.Name)
        {
            // Somebody else brought the same bytes first; what is wrong with them is told under the name that this request has for them.
            return Read(image, maxPixels).MergedTokens;
        }
    }

    /// <summary>Takes over what the vision encoder made of an image.</summary>
    public void Keep(StoredImage stored, ImageFeatures features)
    {
        lock (_lock)
        {
            (stored.Features, stored.Patches) = (features, null);
            Encoded++;
            _bytes += features.Values.Length;
            Shrink();
        }
    }

    /// <summary>Lets go of an image.</summary>
    public void Release(StoredImage stored)
    {
        lock (_lock)
        {
            if (--stored.Users > 0)
            {
                return;
            }

            if (stored.Features is null)
            {
                _images.Remove(stored.Key);
                return;
            }

            _idle.AddLast(stored);
            Shrink();
        }
    }

    private void Shrink()
    {
        while (_bytes > limits.ImageCacheBytes && _idle.First is { Value: var oldest })
        {
            _idle.RemoveFirst();
            _images.Remove(oldest.Key);
            _bytes -= oldest.Features!.Values.Length;
        }
    }

    private ImagePatches Read(ImageData image, int maxPixels) => new ImageProcessor(settings, maxPixels).Process(image.Name, image.Bytes.ToArray(), limits.ImagePixels);
}
