using System.Runtime.InteropServices;

namespace LrIad.Engine.Tests.Data;

/// <summary>Tells whether a mask under a folder, or a folder of masks, was opened: Linux's inotify. Elsewhere the masks are only unreadable as images.</summary>
internal sealed partial class OpenWatch : IDisposable
{
    private const uint Access = 1, Open = 0x20;
    private const int NonBlocking = 0x800;

    private readonly int _handle = -1;
    private readonly string _aMask;

    public OpenWatch(string root)
    {
        _aMask = Directory.GetFiles(root, "*", SearchOption.AllDirectories).First(HoldsMasks);
        if (OperatingSystem.IsLinux())
        {
            _handle = inotify_init1(NonBlocking);
            foreach (var folder in Directory.GetDirectories(root, "*", SearchOption.AllDirectories).Where(HoldsMasks))
            {
                Assert.That(inotify_add_watch(_handle, folder, Access | Open), Is.Positive, folder);
            }
        }
    }

    /// <summary>Nothing was opened so far, and had it been, it would have been seen.</summary>
    public void ExpectNone()
    {
        if (_handle >= 0)
        {
            var events = new byte[4096];
            Assert.That((long)read(_handle, events, events.Length), Is.Negative, "a mask or its folder was opened");
            File.ReadAllBytes(_aMask);
            Assert.That((long)read(_handle, events, events.Length), Is.Positive, "opening a mask is seen");
        }
    }

    public void Dispose()
    {
        if (_handle >= 0)
        {
            _ = close(_handle);
        }
    }

    private static bool HoldsMasks(string path) => path.Contains("ground_truth", StringComparison.Ordinal) || path.Contains("asks", StringComparison.Ordinal);

    [LibraryImport("libc")]
    private static partial int inotify_init1(int flags);

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int inotify_add_watch(int handle, string path, uint events);

    [LibraryImport("libc")]
    private static partial nint read(int handle, byte[] buffer, nint length);

    [LibraryImport("libc")]
    private static partial int close(int handle);
}
