using LrIad.Engine.Data;
using LrIad.Engine.Text;
using SkiaSharp;

namespace LrIad.Engine.Evaluate;

/// <summary>The report's gallery: images with verdict, score and reasoning, the worst first.</summary>
internal static class ReportGallery
{
    /// <summary>Images shown at most, and the share of them that is kept for right verdicts.</summary>
    internal const int Size = 60, KeptForRight = 12;

    private const int ThumbnailSide = 192, JpegQuality = 82;

    private static readonly (string Class, string Name)[] Kinds =
        [("missed", "missed defect"), ("alarm", "false alarm"), ("invalid", "invalid answer"), ("found", "defect found"), ("passed", "normal, passed")];

    /// <summary>The gallery.</summary>
    public static Html Render(IReadOnlyList<Prediction> predictions)
    {
        var chosen = Choose(predictions);
        var images = chosen.AsParallel().AsOrdered().Select(prediction => Thumbnail(prediction.ImagePath)).ToArray();
        var counts = Kinds.Select(kind => chosen.Count(prediction => KindOf(prediction) == kind)).ToArray();
        return Html.Of($"""
            <div class="gallery">
            <input type="radio" name="kind" id="k-all" checked><label for="k-all">all {chosen.Count}</label>
            {Kinds.Zip(counts).Where(kind => kind.Second > 0).Select(kind => Html.Of($"""<input type="radio" name="kind" id="k-{kind.First.Class}"><label for="k-{kind.First.Class}">{kind.First.Name} {kind.Second}</label>"""))}
            <div class="cards">
            {chosen.Zip(images).Select(item => Card(item.First, item.Second))}
            </div></div>
            """);
    }

    /// <summary>Wrong and invalid verdicts, the surest errors first, then right ones, the narrowest first; some of both where there are both.</summary>
    internal static IReadOnlyList<Prediction> Choose(IReadOnlyList<Prediction> predictions)
    {
        static double Error(Prediction prediction) => prediction.GtLabel == 1 ? -prediction.PredScore : prediction.PredScore;
        var byError = predictions.OrderByDescending(Error).ToLookup(prediction => prediction.PredLabel == prediction.GtLabel);
        var (wrong, right) = (byError[false].ToArray(), byError[true].ToArray());
        var shownWrong = wrong[..Math.Min(wrong.Length, Size - Math.Min(right.Length, KeptForRight))];
        return [.. shownWrong, .. right.Take(Size - shownWrong.Length)];
    }

    /// <summary>A small JPEG of an image as a data URI; null where it cannot be read any more.</summary>
    internal static string? Thumbnail(string file)
    {
        RgbImage image;
        try
        {
            image = ImageFile.Read(file);
        }
        catch (InputException)
        {
            return null;
        }

        using var full = ToBitmap(image);
        var scale = Math.Min(1.0, (double)ThumbnailSide / Math.Max(image.Width, image.Height));
        var size = new SKImageInfo(Math.Max(1, (int)Math.Round(image.Width * scale)), Math.Max(1, (int)Math.Round(image.Height * scale)), SKColorType.Rgba8888, SKAlphaType.Opaque);
        using var small = full.Resize(size, new SKSamplingOptions(SKFilterMode.Linear, SKMipmapMode.Linear));
        using var jpeg = small.Encode(SKEncodedImageFormat.Jpeg, JpegQuality);
        return "data:image/jpeg;base64," + Convert.ToBase64String(jpeg.Span);
    }

    private static SKBitmap ToBitmap(RgbImage image)
    {
        var bitmap = new SKBitmap(new SKImageInfo(image.Width, image.Height, SKColorType.Rgba8888, SKAlphaType.Opaque));
        var pixels = bitmap.GetPixelSpan();
        for (int source = 0, target = 0; source < image.Data.Length; source += 3, target += 4)
        {
            image.Data.AsSpan(source, 3).CopyTo(pixels[target..]);
            pixels[target + 3] = byte.MaxValue;
        }

        return bitmap;
    }

    private static (string Class, string Name) KindOf(Prediction prediction) => Kinds[prediction switch
    {
        { PredLabel: null } => 2,
        { GtLabel: 1, PredLabel: 0 } => 0,
        { GtLabel: 0, PredLabel: 1 } => 1,
        { GtLabel: 1 } => 3,
        _ => 4,
    }];

    private static Html Card(Prediction prediction, string? image)
    {
        var kind = KindOf(prediction);
        var contradicts = Answer.Parse(prediction.Completion).Contradicts == true;
        var text = prediction.Explanation.Length > 0 ? prediction.Explanation : "(no reasoning)";
        return Html.Of($"""
            <figure class="card {kind.Class}">
            {(image is null ? Html.Of($"""<div class="gone">image not readable</div>""") : Html.Of($"""<img src="{image}" alt="{prediction.Object}" loading="lazy">"""))}
            <figcaption><p class="verdict"><b>{kind.Name}</b><span title="score: larger is more defective">{prediction.PredScore:+0.00;-0.00;0.00}</span></p>
            <p class="what" title="{prediction.ImagePath}">{prediction.Object.Replace('_', ' ')} · {ShortPath(prediction.ImagePath)}</p>
            {(prediction.Valid ? Html.None : Html.Of($"""<p class="note">labelled {(prediction.GtLabel == 1 ? "defect" : "normal")}; all of the answer:</p>"""))}
            <p class="reason{(prediction.Valid ? "" : " whole")}" tabindex="0">{text}</p>
            {(contradicts ? Html.Of($"""<p class="note">the reasoning says the opposite of the answer</p>""") : Html.None)}</figcaption></figure>
            """);
    }

    private static string ShortPath(string path) => $"{Path.GetFileName(Path.GetDirectoryName(path))}/{Path.GetFileName(path)}";
}
