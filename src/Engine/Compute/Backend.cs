namespace LrIad.Engine.Compute;

/// <summary>
/// THE SEAM: the sub-layer operations everything above is written in. Two backends compute the same function behind it.
/// Activations are of <see cref="ActivationType"/>, weights bfloat16, adapters and gradients float32 (but dO and dq of attention, which are rounded like o
/// and q); sums, norms, soft-maxes, rotary angles and log-probs are computed in float32. A row of a result depends on that row's own inputs alone, never on
/// its neighbours in the batch (on the CPU bit for bit). Public methods check shapes once and call the protected cores.
/// </summary>
internal abstract partial class Backend : IDisposable
{
    /// <summary>What to call it in messages: <c>cpu</c> or <c>cuda</c>.</summary>
    public abstract string Name { get; }

    /// <summary>Type of activations and of the key-value cache.</summary>
    public abstract ElementType ActivationType { get; }

    /// <summary>Bytes that can still be taken, or null where only trying tells.</summary>
    public virtual long? FreeBytes => null;

    /// <summary>Whether <see cref="AttendBackward"/> reads what attention has given; if not, nobody need keep it.</summary>
    public virtual bool KeepsAttentionOutput => true;

    /// <summary>A new, empty arena.</summary>
    /// <param name="name">What the memory is for; named in out-of-memory errors.</param>
    public Arena CreateArena(string name) => new(this, name);

    /// <summary>Zeroed memory of <paramref name="bytes"/> bytes.</summary>
    /// <exception cref="OutOfMemoryException">Says what wanted how much.</exception>
    protected internal abstract Storage CreateStorage(long bytes, string purpose);

    /// <summary>Makes weights that lie in host memory (mapped files) usable here, one behind the other; the CPU looks at them in place.</summary>
    public abstract Tensor[] Import(params Tensor[] hostWeights);

    /// <summary>Copies host values into <paramref name="destination"/>, in order with the operations.</summary>
    public abstract void Upload<T>(ReadOnlySpan<T> source, View<T> destination)
        where T : unmanaged;

    /// <summary>Copies host floats into a float32 tensor or, rounding to nearest even, a bfloat16 one.</summary>
    public abstract void Upload(ReadOnlySpan<float> source, Tensor destination);

    /// <summary>Copies values back, after all earlier operations have finished.</summary>
    public abstract void Download<T>(View<T> source, Span<T> destination)
        where T : unmanaged;

    /// <summary>Copies a tensor back as floats, after all earlier operations have finished.</summary>
    public abstract void Download(Tensor source, Span<float> destination);

    /// <summary>Copies one tensor onto another of the same shape and type.</summary>
    public abstract void Copy(Tensor source, Tensor destination);

    /// <summary>Sets every element to zero.</summary>
    public abstract void Clear(Tensor tensor);

    /// <summary>Waits until everything asked for has been done.</summary>
    public abstract void Synchronize();

    /// <summary>Times what the device does from now on, kernel by kernel, until <see cref="EndTrace"/>. A CPU has nothing to tell.</summary>
    public virtual void BeginTrace()
    {
    }

    /// <summary>Ends it: names, seconds since the beginning and seconds taken, in order.</summary>
    public virtual IReadOnlyList<(string Name, double Start, double Seconds)> EndTrace() => [];

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees what the backend holds.</summary>
    protected abstract void Dispose(bool disposing);
}
