using System.Collections.Concurrent;
using LrIad.Engine.Model;

namespace LrIad.Engine.Serving;

/// <summary>An adapter that requests can switch on.</summary>
internal sealed class LoadedAdapter(string folder, AdapterWeights weights, int? maxPixels)
{
    public string Folder { get; } = folder;

    public AdapterWeights Weights { get; } = weights;

    /// <summary>The image limit it was trained with, where it is known.</summary>
    public int? MaxPixels { get; } = maxPixels;

    /// <summary>Requests that use it, and 1 while it has a name.</summary>
    public int Users { get; set; } = 1;
}

/// <summary>Adapters by name. One that has lost its name stays in memory until the last request that uses it is done.</summary>
/// <param name="dispose">Frees an adapter's memory on the thread that owns the backend.</param>
internal sealed class Adapters(Action<LoadedAdapter> dispose)
{
    private readonly Lock _lock = new();
    private readonly ConcurrentDictionary<string, LoadedAdapter> _byName = [];

    public IReadOnlyCollection<string> Names => [.. _byName.Keys.Order(StringComparer.Ordinal)];

    /// <summary>Whether a name stands for this folder already.</summary>
    /// <exception cref="InputException">It stands for another one.</exception>
    public bool Has(string name, string folder) => _byName.TryGetValue(name, out var known)
        && (known.Folder == folder ? true : throw new InputException($"The adapter name '{name}' is taken by {known.Folder}. Unload it first, or take another name."));

    /// <summary>Gives an adapter its name; false where another one has got it meanwhile.</summary>
    public bool TryAdd(string name, LoadedAdapter adapter) => _byName.TryAdd(name, adapter);

    /// <summary>Takes an adapter's name away; false where there was none.</summary>
    public bool Remove(string name)
    {
        if (!_byName.TryRemove(name, out var adapter))
        {
            return false;
        }

        Release(adapter);
        return true;
    }

    /// <summary>The adapter of a name, until it is <see cref="Release">released</see>; null for none.</summary>
    /// <exception cref="InputException">No adapter has this name.</exception>
    public LoadedAdapter? Acquire(string? name)
    {
        if (name is null)
        {
            return null;
        }

        lock (_lock)
        {
            if (!_byName.TryGetValue(name, out var adapter) || adapter.Users == 0)
            {
                throw new InputException($"There is no adapter '{name}'; loaded are {(_byName.IsEmpty ? "none" : string.Join(", ", Names))}.");
            }

            adapter.Users++;
            return adapter;
        }
    }

    public void Release(LoadedAdapter adapter)
    {
        lock (_lock)
        {
            if (--adapter.Users > 0)
            {
                return;
            }
        }

        dispose(adapter);
    }

    /// <summary>Frees all, when no request is left.</summary>
    public void Clear()
    {
        foreach (var name in _byName.Keys)
        {
            Remove(name);
        }
    }
}
