using LrIad.Engine.Compute;

namespace LrIad.Engine.Model;

/// <summary>The safetensors files of a model folder, one or many, and the memory of weights that had to be converted.</summary>
internal sealed class WeightFiles : IDisposable
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

    /// <summary>A weight of a given shape, in the backend's memory, bfloat16.</summary>
    public Tensor Get(string name, int rows, int columns)
    {
        if (!_where.TryGetValue(name, out var file))
        {
            throw new InputException($"{_folder}: tensor {name} is missing from the safetensors files.");
        }

        var view = file.View(name);
        if (view.Length != (long)rows * columns || (rows > 1 && view.Rows != rows))
        {
            throw new InputException($"{file.File}: tensor {name} has shape [{string.Join(", ", file.Shape(name))}]; config.json asks for {(rows == 1 ? $"[{columns}]" : $"[{rows}, {columns}]")}.");
        }

        if (view.Type == ElementType.Float32)
        {
            var rounded = _converted.Allocate(ElementType.BFloat16, rows, columns);
            _backend.Upload(file.Read(name), rounded);
            return rounded;
        }

        return _backend.Import(view.Reshape(rows, columns));
    }

    public void Dispose()
    {
        _files.ForEach(file => file.Dispose());
        _converted.Dispose();
    }

    private static IEnumerable<string> Shards(string folder)
    {
        var index = Path.Combine(folder, "model.safetensors.index.json");
        if (!File.Exists(index))
        {
            return File.Exists(Path.Combine(folder, "model.safetensors")) ? ["model.safetensors"] : throw new InputException($"{folder} has neither model.safetensors nor model.safetensors.index.json.");
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
