using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;

namespace LrIad.Engine.Tests.Backends;

/// <summary>A backend with memory for one test's operands.</summary>
internal sealed class Device(int threads = 2) : IDisposable
{
    private Arena? _arena;

    public CpuBackend Backend { get; } = new(threads);

    private Arena Arena => _arena ??= Backend.CreateArena("test");

    public Tensor New(int rows, int columns, ElementType type = ElementType.Float32) => Arena.Allocate(type, rows, columns);

    public View<T> New<T>(int length)
        where T : unmanaged => Arena.Allocate<T>(length);

    public Tensor Put(float[] values, int rows, ElementType type = ElementType.Float32)
    {
        var tensor = New(rows, values.Length / rows, type);
        Backend.Upload(values, tensor);
        return tensor;
    }

    public View<T> Put<T>(T[] values)
        where T : unmanaged
    {
        var view = New<T>(values.Length);
        Backend.Upload<T>(values, view);
        return view;
    }

    public float[] Get(Tensor tensor)
    {
        var values = new float[tensor.Length];
        Backend.Download(tensor, values);
        return values;
    }

    public T[] Get<T>(View<T> view)
        where T : unmanaged
    {
        var values = new T[view.Length];
        Backend.Download(view, values);
        return values;
    }

    public void Dispose()
    {
        _arena?.Dispose();
        Backend.Dispose();
    }
}
