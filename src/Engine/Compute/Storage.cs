using System.Runtime.InteropServices;

namespace LrIad.Engine.Compute;

/// <summary>A block of memory with one owner. Arenas and weight files own storages; tensors and views only look into them.</summary>
internal abstract class Storage : SafeHandle
{
    /// <param name="bytes">Size of the block.</param>
    protected Storage(long bytes)
        : base(0, ownsHandle: true) => Bytes = bytes;

    /// <summary>Size of the block in bytes.</summary>
    public long Bytes { get; }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == 0;

    /// <summary>Where the block starts.</summary>
    /// <exception cref="ObjectDisposedException">The owner has freed it.</exception>
    public nint Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return handle;
        }
    }
}
