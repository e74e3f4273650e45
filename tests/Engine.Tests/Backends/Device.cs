using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;

namespace LrIad.Engine.Tests.Backends;

/// <summary>A backend with memory for one test's operands.</summary>
internal sealed class Device(Backend backend) : IDisposable
{
    private Arena? _arena;

    public Device(int threads = 2)
        : this(new CpuBackend(threads))
    {
    }

    public Backend Backend => backend;

    private Arena Arena => _arena ??= Backend.CreateArena("test");

    /// <summary>A tensor of the backend's own type, or of another.</summary>
    public Tensor New(int rows, int columns, ElementType? type = null) => Arena.Allocate(type ?? backend.ActivationType, rows, columns);

    public View<T> New<T>(int length)
        where T : unmanaged => Arena.Allocate<T>(length);

    public Tensor Put(float[] values, int rows, ElementType? type = null)
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

    public AttentionWork Work(AttentionItem[] items, int[] blocks)
    {
        var work = new AttentionWork(Backend, Arena);
        work.Set(items, blocks);
        return work;
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
