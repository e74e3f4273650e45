using System.Runtime.CompilerServices;

namespace LrIad.Engine.Compute;

/// <summary>
/// Memory that lives and dies together. Small buffers are carved from it one after another, large ones have their own; all are freed at once, when the arena is disposed.
/// Fresh memory is zero.
/// </summary>
internal sealed class Arena : IDisposable
{
    private const int Alignment = 256;
    private const long ChunkBytes = 1L << 20;

    private readonly Backend _backend;
    private readonly List<Storage> _storages = [];

    // What small pieces are carved from.
    private Storage? _chunk;
    private long _free;

    internal Arena(Backend backend, string name)
    {
        _backend = backend;
        Name = name;
    }

    /// <summary>What the memory is for; named in out-of-memory errors.</summary>
    public string Name { get; }

    /// <summary>Bytes taken from the backend so far.</summary>
    public long Bytes { get; private set; }

    /// <summary>A zeroed matrix.</summary>
    public Tensor Allocate(ElementType type, int rows, int columns)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(rows);
        ArgumentOutOfRangeException.ThrowIfNegative(columns);
        var (storage, offset) = Take((long)rows * columns * type.Bytes());
        return new Tensor(storage, offset, type, rows, columns);
    }

    /// <summary>A zeroed run of <paramref name="length"/> values.</summary>
    public View<T> Allocate<T>(int length)
        where T : unmanaged
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        var (storage, offset) = Take((long)length * Unsafe.SizeOf<T>());
        return new View<T>(storage, offset, length);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var storage in _storages)
        {
            storage.Dispose();
        }

        _storages.Clear();
        (_chunk, _free) = (null, 0);
    }

    private (Storage Storage, long Offset) Take(long bytes)
    {
        bytes = Math.Max(Alignment, (bytes + Alignment - 1) / Alignment * Alignment);
        if (bytes >= ChunkBytes)
        {
            return (Add(bytes), 0);
        }

        if (_chunk is null || bytes > _free)
        {
            _chunk = Add(ChunkBytes);
            _free = ChunkBytes;
        }

        var offset = ChunkBytes - _free;
        _free -= bytes;
        return (_chunk, offset);
    }

    private Storage Add(long bytes)
    {
        var storage = _backend.CreateStorage(bytes, Name);
        _storages.Add(storage);
        Bytes += bytes;
        return storage;
    }
}
