using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace LrIad.Engine.Compute;

/// <summary>How a matrix's elements are stored.</summary>
internal enum ElementType
{
    /// <summary>IEEE single precision.</summary>
    Float32,

    /// <summary>The upper half of a single: what Qwen2-VL weights are published in.</summary>
    BFloat16,
}

/// <summary>What element types are.</summary>
internal static class ElementTypes
{
    /// <summary>Bytes of an element.</summary>
    public static int Bytes(this ElementType type) => type == ElementType.Float32 ? sizeof(float) : sizeof(ushort);
}

/// <summary>
/// A row-major matrix somewhere in a backend's memory: a view, which never frees anything. Empty (<c>default</c>) stands for "not there".
/// </summary>
/// <param name="Storage">The memory the view looks into; it keeps that memory reachable.</param>
/// <param name="Offset">Bytes from the start of the storage.</param>
/// <param name="Type">Element type.</param>
/// <param name="Rows">Number of rows.</param>
/// <param name="Columns">Elements in a row; rows follow each other without gaps.</param>
[DebuggerDisplay("{Type}[{Rows}, {Columns}]")]
internal readonly record struct Tensor(Storage? Storage, long Offset, ElementType Type, int Rows, int Columns)
{
    /// <summary>True for the absent tensor.</summary>
    public bool IsEmpty => Storage is null;

    /// <summary>Number of elements.</summary>
    public long Length => (long)Rows * Columns;

    /// <summary>Bytes of one element.</summary>
    public int ElementBytes => Type.Bytes();

    /// <summary>Address of the first element (host or device, as the backend has it).</summary>
    public nint Address => Storage!.Address + checked((nint)Offset);

    /// <summary>The elements as plain bytes.</summary>
    public View<byte> Bytes => new(Storage, Offset, checked((int)(Length * ElementBytes)));

    /// <summary>Rows <paramref name="first"/> to <paramref name="first"/> + <paramref name="count"/> − 1.</summary>
    public Tensor Slice(int first, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first + (long)count, Rows);
        return this with { Offset = Offset + (long)first * Columns * ElementBytes, Rows = count };
    }

    /// <summary>The same elements seen as another number of rows and columns.</summary>
    public Tensor Reshape(int rows, int columns)
    {
        if ((long)rows * columns != Length)
        {
            throw new ArgumentException($"A tensor of {Rows} x {Columns} cannot be seen as {rows} x {columns}.");
        }

        return this with { Rows = rows, Columns = columns };
    }

    /// <inheritdoc/>
    public override string ToString() => IsEmpty ? "(none)" : $"{Type}[{Rows}, {Columns}]";
}

/// <summary>A run of plain values (indices, rows, work items) in a backend's memory: a view, like <see cref="Tensor"/>.</summary>
/// <param name="Storage">The memory the view looks into.</param>
/// <param name="Offset">Bytes from the start of the storage.</param>
/// <param name="Length">Number of values.</param>
internal readonly record struct View<T>(Storage? Storage, long Offset, int Length)
    where T : unmanaged
{
    /// <summary>True for the absent view.</summary>
    public bool IsEmpty => Length == 0;

    /// <summary>Address of the first value.</summary>
    public nint Address => Storage is null ? 0 : Storage.Address + checked((nint)Offset);

    /// <summary>The values from <paramref name="first"/> on, <paramref name="count"/> of them.</summary>
    public View<T> Slice(int first, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first + (long)count, Length);
        return new View<T>(Storage, Offset + (long)first * Unsafe.SizeOf<T>(), count);
    }
}
