using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>The safetensors files of a model folder, one or many, and the memory of weights that had to be converted.</summary>
internal sealed class WeightFiles : IWeights
{
    private readonly string _folder;
    private readonly Backend _backend;
    private readonly Arena _converted;
    private readonly Dictionary<string, SafeTensors> _where = [];
    private readonly List<SafeTensors> _files = [];

    private WeightFiles(string folder, Backend backend)
    {
        _folder = folder;
        _backend = backend;
        _converted = backend.CreateArena("weights converted to bfloat16");
    }

    public static WeightFiles Open(string folder, Backend backend)
    {
        var files = new WeightFiles(folder, backend);
        try
        {
            foreach (var name in Shards(folder))
            {
                files.Add(Path.Combine(folder, name));
            }

            return files;
        }
        catch
        {
            files.Dispose();
            throw;
        }
    }

    /// <summary>The part before the last names of whichever of the names exists.</summary>
    public string Prefix(params string[] names)
    {
        var found = names.FirstOrDefault(_where.ContainsKey) ?? throw new InputException($"{_folder}: none of the tensors {string.Join(", ", names)} is in the safetensors files.");
        return found[..^names[^1].Length];
    }

    /// <summary>A weight of a given shape, in the backend's memory, bfloat16: a vector as one row, more than two dimensions as [first, all others].</summary>
    public Tensor Get(string name, params int[] shape)
    {
        var file = Find(name, shape);
        return file.IsBFloat16(name) ? _backend.Import(file.View(name))[0] : Round(file, name, shape);
    }

    /// <inheritdoc/>
    public Tensor[] Get(int columns, params (string Name, int Rows)[] matrices)
    {
        int[] Shape(int rows) => columns == 0 ? [rows] : [rows, columns];
        var views = matrices.Select(matrix => (matrix.Name, File: Find(matrix.Name, Shape(matrix.Rows)))).ToArray();
        return views.All(view => view.File.IsBFloat16(view.Name)) ? _backend.Import([.. views.Select(view => view.File.View(view.Name))]) : [.. matrices.Select(matrix => Get(matrix.Name, Shape(matrix.Rows)))];
    }

    private SafeTensors Find(string name, int[] shape)
    {
        if (!_where.TryGetValue(name, out var file))
        {
            throw new InputException($"{_folder}: tensor {name} is missing from the safetensors files; config.json asks for it with shape [{string.Join(", ", shape)}].");
        }

        if (!file.Shape(name).SequenceEqual(shape.Select(size => (long)size)))
        {
            throw new InputException($"{file.File}: tensor {name} has shape [{string.Join(", ", file.Shape(name))}]; config.json asks for [{string.Join(", ", shape)}].");
        }

        return file;
    }

    public void Dispose()
    {
        _files.ForEach(file => file.Dispose());
        _converted.Dispose();
    }

    // Weights in float32 or float16 are kept a second time, rounded to bfloat16.
    private Tensor Round(SafeTensors file, string name, int[] shape)
    {
        const int ValuesAtATime = 1 << 20;
        var (rows, columns) = shape.Length == 1 ? (1, shape[0]) : (shape[0], shape[1..].Aggregate(1, (product, size) => product * size));
        var rounded = _converted.Allocate(ElementType.BFloat16, rows, columns);
        var rowsAtATime = Math.Max(1, ValuesAtATime / columns);
        var buffer = new float[Math.Min(rows, rowsAtATime) * columns];
        for (var row = 0; row < rows; row += rowsAtATime)
        {
            var part = rounded.Slice(row, Math.Min(rowsAtATime, rows - row));
            var values = buffer.AsSpan(0, (int)part.Length);
            file.Read(name, (long)row * columns, values);
            _backend.Upload(values, part);
        }

        return rounded;
    }

    // As transformers chooses: one file before shards.
    private static IEnumerable<string> Shards(string folder)
    {
        if (File.Exists(Path.Combine(folder, "model.safetensors")))
        {
            return ["model.safetensors"];
        }

        var index = Path.Combine(folder, "model.safetensors.index.json");
        if (!File.Exists(index))
        {
            throw new InputException($"{folder} has neither model.safetensors nor model.safetensors.index.json.");
        }

        using var json = JsonFile.Open(index);
        var names = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var property in json.Root.Object("weight_map").Strings())
        {
            // A shard is a file of this folder; a path that leads elsewhere is not followed.
            names.Add(Path.GetFileName(property) == property ? property : throw new InputException($"{index} names the shard '{property}', which is not a file of the model folder."));
        }

        foreach (var name in names)
        {
            if (!File.Exists(Path.Combine(folder, name)))
            {
                throw new InputException($"{index} names the shard {name}, which is missing from {folder}.");
            }
        }

        return names;
    }

    private void Add(string path)
    {
        var file = SafeTensors.Open(path);
        _files.Add(file);
        foreach (var name in file.Names)
        {
            if (!_where.TryAdd(name, file))
            {
                throw new InputException($"{path}: tensor {name} is also in {_where[name].File}.");
            }
        }
    }
}
