using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;

namespace LrIad.Engine.Tests.Model;

/// <summary>A tensor's bytes as a safetensors file has them.</summary>
internal sealed record RawTensor(string Type, long[] Shape, byte[] Bytes)
{
    public static RawTensor Float32(long[] shape, params float[] values) => new("F32", shape, MemoryMarshal.AsBytes(values.AsSpan()).ToArray());

    public static RawTensor Float16(long[] shape, params Half[] values) => new("F16", shape, MemoryMarshal.AsBytes(values.AsSpan()).ToArray());
}

/// <summary>A safetensors file taken apart, to be changed and written again. Shares no code with the reader it tests.</summary>
internal sealed class TensorSet
{
    public SortedDictionary<string, RawTensor> Tensors { get; } = new(StringComparer.Ordinal);

    public static TensorSet Read(string file)
    {
        var bytes = File.ReadAllBytes(file);
        var dataStart = 8 + (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        var set = new TensorSet();
        foreach (var (name, node) in JsonNode.Parse(bytes.AsSpan(8, dataStart - 8))!.AsObject())
        {
            if (name != "__metadata__")
            {
                var offsets = node!["data_offsets"]!.AsArray().Select(offset => (int)offset!).ToArray();
                set.Tensors[name] = new RawTensor(
                    (string)node["dtype"]!, [.. node["shape"]!.AsArray().Select(size => (long)size!)], bytes[(dataStart + offsets[0])..(dataStart + offsets[1])]);
            }
        }

        return set;
    }

    public void Write(string file)
    {
        var header = new JsonObject();
        long offset = 0;
        foreach (var (name, tensor) in Tensors)
        {
            header[name] = new JsonObject
            {
                ["dtype"] = tensor.Type,
                ["shape"] = new JsonArray([.. tensor.Shape.Select(size => (JsonNode)size)]),
                ["data_offsets"] = new JsonArray(offset, offset += tensor.Bytes.Length),
            };
        }

        File.WriteAllBytes(file, Bytes(header.ToJsonString(), [.. Tensors.Values.SelectMany(tensor => tensor.Bytes)]));
    }

    /// <summary>The bytes of a file with this header, whatever it says.</summary>
    public static byte[] Bytes(string header, byte[] data)
    {
        var text = System.Text.Encoding.UTF8.GetBytes(header);
        var length = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)text.Length);
        return [.. length, .. text, .. data];
    }

    public void Rename(Func<string, string> name)
    {
        var renamed = Tensors.ToDictionary(pair => name(pair.Key), pair => pair.Value);
        Tensors.Clear();
        foreach (var (key, value) in renamed)
        {
            Tensors[key] = value;
        }
    }
}
