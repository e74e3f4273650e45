using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Text.Json;
using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>
/// A safetensors file, memory-mapped: 8 bytes of header length, a JSON header, then the tensors without gaps. Nothing in the header is believed before it has
/// been checked: sizes, ranges, overlaps and holes.
/// </summary>
internal sealed unsafe class SafeTensors : IDisposable
{
    private const long MaxHeaderBytes = 100_000_000;

    private readonly MappedStorage _storage;
    private readonly Dictionary<string, Entry> _entries;

    private SafeTensors(string file, MappedStorage storage, Dictionary<string, Entry> entries)
    {
        (File, _storage, _entries) = (file, storage, entries);
    }

    /// <summary>Where it was read from.</summary>
    public string File { get; }

    /// <summary>Names of its tensors.</summary>
    public IReadOnlyCollection<string> Names => _entries.Keys;

    /// <summary>Maps a file and checks its header.</summary>
    /// <exception cref="InputException">It is missing, truncated, or its header lies.</exception>
    public static SafeTensors Open(string file)
    {
        if (!System.IO.File.Exists(file))
        {
            throw new InputException($"{file} does not exist.");
        }

        var bytes = new FileInfo(file).Length;
        if (bytes < 10)
        {
            throw Bad(file, $"it has {bytes} bytes, too few for a safetensors file");
        }

        var storage = Map(file, bytes);
        try
        {
            var headerBytes = BinaryPrimitives.ReadUInt64LittleEndian(new ReadOnlySpan<byte>((void*)storage.Address, 8));
            if (headerBytes > MaxHeaderBytes || (long)headerBytes > bytes - 8)
            {
                throw Bad(file, $"it says that its header has {headerBytes:N0} bytes, of {bytes:N0} in the file (truncated, or not a safetensors file)");
            }

            var header = new ReadOnlySpan<byte>((byte*)storage.Address + 8, (int)headerBytes);
            return new SafeTensors(file, storage, ReadHeader(file, header, 8 + (long)headerBytes, bytes));
        }
        catch
        {
            storage.Dispose();
            throw;
        }
    }

    /// <summary>Whether there is a tensor of that name.</summary>
    public bool Contains(string name) => _entries.ContainsKey(name);

    /// <summary>A tensor's shape.</summary>
    public IReadOnlyList<long> Shape(string name) => _entries[name].Shape;

    /// <summary>Whether a tensor is bfloat16, and so can be used where it lies.</summary>
    public bool IsBFloat16(string name) => _entries[name].Type == "BF16";

    /// <summary>A view of a bfloat16 tensor where it lies in the file: a vector is one row, more than two dimensions are seen as [first, all others].</summary>
    public Tensor View(string name)
    {
        var entry = _entries[name];
        var rows = entry.Shape.Length <= 1 ? 1 : entry.Shape[0];
        var columns = rows == 0 ? 0 : entry.Elements / rows;
        return rows <= int.MaxValue && columns <= int.MaxValue && IsBFloat16(name)
            ? new Tensor(_storage, entry.Begin, ElementType.BFloat16, (int)rows, (int)columns)
            : throw Bad(File, $"tensor {name} is {entry.Type} of shape [{string.Join(", ", entry.Shape)}]; a BF16 matrix is needed");
    }

    /// <summary>A copy of a float tensor (BF16, F16 or F32) as float32.</summary>
    public float[] Read(string name)
    {
        var entry = _entries[name];
        if (entry.Elements > Array.MaxLength)
        {
            throw Bad(File, $"tensor {name} of shape [{string.Join(", ", entry.Shape)}] is too large to copy");
        }

        var values = new float[entry.Elements];
        Read(name, 0, values);
        return values;
    }

    /// <summary>Copies values of a float tensor (BF16, F16 or F32) from element <paramref name="first"/> on.</summary>
    public void Read(string name, long first, Span<float> values)
    {
        var entry = _entries[name];
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first + values.Length, entry.Elements);
        var from = (byte*)_storage.Address + entry.Begin;
        switch (entry.Type)
        {
            case "F32":
                new ReadOnlySpan<float>(from + (4 * first), values.Length).CopyTo(values);
                break;
            case "BF16":
                Numbers.FromBFloat16((ushort*)from + first, values);
                break;
            case "F16":
                var halves = new ReadOnlySpan<Half>(from + (2 * first), values.Length);
                for (var i = 0; i < values.Length; i++)
                {
                    values[i] = (float)halves[i];
                }

                break;
            default:
                throw Bad(File, $"tensor {name} is {entry.Type}; a float type is needed");
        }
    }

    /// <summary>A copy of an I64 tensor.</summary>
    public long[] ReadIntegers(string name)
    {
        var entry = _entries[name];
        return entry.Type == "I64" && entry.Elements <= int.MaxValue
            ? new ReadOnlySpan<long>((byte*)_storage.Address + entry.Begin, (int)entry.Elements).ToArray()
            : throw Bad(File, $"tensor {name} is {entry.Type}; I64 is needed");
    }

    /// <inheritdoc/>
    public void Dispose() => _storage.Dispose();

    private static MappedStorage Map(string file, long bytes)
    {
        try
        {
            return new MappedStorage(file, bytes);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InputException($"{file} cannot be read: {e.Message}", e);
        }
    }

    private static Dictionary<string, Entry> ReadHeader(string file, ReadOnlySpan<byte> header, long dataStart, long fileBytes)
    {
        var entries = new Dictionary<string, Entry>();
        try
        {
            var reader = new Utf8JsonReader(header);
            using var document = JsonDocument.ParseValue(ref reader);
            if (reader.Read())
            {
                throw Bad(file, "its header goes on after the JSON object");
            }

            foreach (var property in document.RootElement.EnumerateObject())
            {
                if (property.Name == "__metadata__")
                {
                    continue;
                }

                if (!entries.TryAdd(property.Name, ReadEntry(file, property, dataStart, fileBytes)))
                {
                    throw Bad(file, $"tensor {property.Name} is listed twice");
                }
            }
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new InputException($"{file}: its header is not a safetensors header ({e.Message})", e);
        }

        var end = dataStart;
        foreach (var (name, entry) in entries.OrderBy(pair => pair.Value.Begin).ThenBy(pair => pair.Value.End))
        {
            if (entry.Begin != end)
            {
                throw Bad(file, entry.Begin < end ? $"tensor {name} overlaps another" : $"there is a hole of {entry.Begin - end} bytes before tensor {name}");
            }

            end = entry.End;
        }

        return end == fileBytes ? entries : throw Bad(file, $"its tensors end at byte {end:N0}, the file at {fileBytes:N0} (truncated, or overwritten)");
    }

    private static Entry ReadEntry(string file, JsonProperty property, long dataStart, long fileBytes)
    {
        var type = property.Value.GetProperty("dtype").GetString() ?? "";
        var shape = property.Value.GetProperty("shape").EnumerateArray().Select(size => size.GetInt64()).ToArray();
        var offsets = property.Value.GetProperty("data_offsets").EnumerateArray().Select(offset => offset.GetInt64()).ToArray();
        var elementBytes = type switch
        {
            "BOOL" or "U8" or "I8" or "F8_E4M3" or "F8_E5M2" => 1,
            "BF16" or "F16" or "I16" or "U16" => 2,
            "F32" or "I32" or "U32" => 4,
            "F64" or "I64" or "U64" => 8,
            _ => throw Bad(file, $"tensor {property.Name} has the unknown type {type}"),
        };
        if (offsets.Length != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > fileBytes - dataStart)
        {
            throw Bad(file, $"tensor {property.Name} lies outside the file (truncated?)");
        }

        long elements = 1;
        foreach (var size in shape)
        {
            if (size < 0 || (size > 0 && elements > long.MaxValue / 8 / size))
            {
                throw Bad(file, $"tensor {property.Name} has an impossible shape [{string.Join(", ", shape)}]");
            }

            elements *= size;
        }

        return elements * elementBytes == offsets[1] - offsets[0]
            ? new Entry(type, shape, elements, dataStart + offsets[0], dataStart + offsets[1])
            : throw Bad(file, $"tensor {property.Name} of shape [{string.Join(", ", shape)}] and type {type} cannot have {offsets[1] - offsets[0]:N0} bytes");
    }

    private static InputException Bad(string file, string what) => new($"{file} cannot be read: {what}.");

    private sealed record Entry(string Type, long[] Shape, long Elements, long Begin, long End);

    private sealed class MappedStorage : Storage
    {
        private readonly MemoryMappedFile _file;
        private readonly MemoryMappedViewAccessor _view;

        public MappedStorage(string file, long bytes)
            : base(bytes)
        {
            _file = MemoryMappedFile.CreateFromFile(file, FileMode.Open, null, 0, MemoryMappedFileAccess.Read);
            _view = _file.CreateViewAccessor(0, bytes, MemoryMappedFileAccess.Read);
            byte* address = null;
            _view.SafeMemoryMappedViewHandle.AcquirePointer(ref address);
            SetHandle((nint)(address + _view.PointerOffset));
        }

        protected override bool ReleaseHandle()
        {
            _view.SafeMemoryMappedViewHandle.ReleasePointer();
            _view.Dispose();
            _file.Dispose();
            return true;
        }
    }
}

/// <summary>Writes small float32 sets: adapters, optimizer state.</summary>
internal static class SafeTensorsWriter
{
    /// <summary>Writes the tensors, sorted by name, with metadata <c>{"format": "pt"}</c>.</summary>
    public static void Write(Stream stream, IEnumerable<(string Name, int[] Shape, float[] Values)> tensors)
    {
        ArgumentNullException.ThrowIfNull(stream);
        var sorted = tensors.OrderBy(tensor => tensor.Name, StringComparer.Ordinal).ToArray();
        var header = new Dictionary<string, object> { ["__metadata__"] = new Dictionary<string, string> { ["format"] = "pt" } };
        long offset = 0;
        foreach (var (name, shape, values) in sorted)
        {
            header[name] = new { dtype = "F32", shape, data_offsets = new[] { offset, offset + (4L * values.Length) } };
            offset += 4L * values.Length;
        }

        // The header is padded with blanks so that the data are aligned.
        var json = JsonSerializer.SerializeToUtf8Bytes(header);
        var padded = new byte[(json.Length + 7) / 8 * 8];
        padded.AsSpan().Fill((byte)' ');
        json.CopyTo(padded, 0);
        Span<byte> length = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)padded.Length);
        stream.Write(length);
        stream.Write(padded);
        foreach (var (_, _, values) in sorted)
        {
            stream.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes(values.AsSpan()));
        }
    }
}
