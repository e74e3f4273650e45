using LrIad.Engine.Data;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;

namespace LrIad.Server.Inspect;

/// <summary>The images that lie in a folder of the allowed one, without those of the folders in it.</summary>
internal sealed class JobFolder
{
    // What bounds the memory of a job's results.
    private const int MostImages = 10_000;

    private readonly ImageSources _sources;

    /// <param name="name">The folder, as the request names it.</param>
    /// <param name="sources">Where images come from.</param>
    /// <exception cref="RequestException">It is not in the allowed folder, or there is nothing to inspect in it.</exception>
    public JobFolder(string name, ImageSources sources)
    {
        (Name, _sources) = (name, sources);
        try
        {
            Images = [.. Directory.EnumerateFiles(sources.Folder(name, "folder")).Where(ImageFolder.IsImage).Select(System.IO.Path.GetFileName).OfType<string>().Take(MostImages + 1).Order(StringComparer.Ordinal)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw RequestException.Bad("folder", "names no folder that can be read");
        }

        if (Images.Count is 0 or > MostImages)
        {
            throw RequestException.Bad("folder", Images.Count == 0 ? "has no images in it (PNG, JPEG, BMP, WebP or TIFF)" : $"has more than the {MostImages} images a job may have");
        }
    }

    public string Name { get; }

    /// <summary>Their file names.</summary>
    public IReadOnlyList<string> Images { get; }

    public string Path(string image) => System.IO.Path.Combine(Name, image);

    /// <summary>Reads one of them, unless a link leads out of the allowed folder meanwhile.</summary>
    /// <exception cref="RequestException">It cannot be read.</exception>
    public ImageData Read(string image) => _sources.FromFile(Path(image), "image_path") with { Name = Path(image) };
}
