using System.Diagnostics;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using LrIad.Engine.Evaluate;
using SkiaSharp;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>The report as a browser shows it.</summary>
[TestFixture]
[Category("Browser")]
internal sealed class ReportBrowserTests
{
    private const string Shown = "[...document.querySelectorAll('.card')].map(card => card.querySelector('.verdict').textContent)";

    private static readonly string[] Hostile =
    [
        "</script><script>document.title='broken'</script>", "</noscript></table><img src=x onerror=\"document.title='broken'\">", "'\"><svg onload=alert(1)>", "<!-- & &amp; --> ]]>",
        "🔩🧵 e\u0301 \ud800 \u202egnp.exe\u202c مرحبا, שלום", "a\0b\u0001\u001b[31m\u007f\u0085\ufffe", new string('w', 3000), "line\nline\n\n\nline", "",
    ];

    [Test]
    public async Task FiltersOrderSearchAndZoomWork()
    {
        await using var browser = await Browser.Open();
        var image = Path.Combine(TestFiles.NewFolder(), "50% of #1; ü&.png");
        File.Copy(ReportExamples.Image, image);
        await browser.Load(Write(Many(200, image)));
        Assert.That(await browser.Value<int>("document.querySelectorAll('.card').length"), Is.EqualTo(60));
        Assert.That(await browser.Value<string>("document.querySelector('[role=status]').textContent"), Is.EqualTo("60 of 200 shown"));

        foreach (var (kind, name) in new[] { ("missed", "missed defect"), ("alarm", "false alarm"), ("invalid", "invalid answer"), ("passed", "normal, passed") })
        {
            await browser.Value<bool>($"document.querySelector('input[value={kind}]').click() ?? true");
            Assert.That(await browser.Value<string[]>(Shown), Is.Not.Empty.And.All.EqualTo(name));
        }

        await browser.Value<bool>("document.querySelector('input[value=\"\"]').click() ?? true");
        await browser.Value<bool>("(document.querySelector('[name=order]').value = 'high', document.querySelector('[name=order]').dispatchEvent(new Event('input', {bubbles: true})))");
        Assert.That(await browser.Value<double[]>("[...document.querySelectorAll('.card')].map(card => Number(card.dataset.score))"), Is.Ordered.Descending.And.Length.EqualTo(60));
        await browser.Value<bool>("(document.querySelector('[name=category]').value = 'gear', document.querySelector('[name=text]').value = 'NUMBER 17', document.querySelector('[name=text]').dispatchEvent(new Event('input', {bubbles: true})))");
        Assert.That(await browser.Value<string[]>("[...document.querySelectorAll('.card .reason')].map(p => p.textContent)"), Is.EquivalentTo(Many(200).Predictions.Where(p => p.Object == "gear" && p.Explanation.Contains("number 17", StringComparison.Ordinal)).Select(p => p.Explanation)));
        await browser.Value<bool>("(document.querySelector('.controls').reset(), document.querySelector('[name=text]').dispatchEvent(new Event('input', {bubbles: true})))");
        for (var shown = 60; shown < 200; shown += 60)
        {
            await browser.Value<bool>("document.getElementById('more').click() ?? true");
        }

        Assert.That(await browser.Value<int>("document.querySelectorAll('.card').length"), Is.EqualTo(200));
        Assert.That(await browser.Value<bool>("document.getElementById('more').hidden"), Is.True);

        // Enter on a picture opens it large, and the file itself takes the thumbnail's place; arrows go on; Escape closes and gives the focus to the card looked at last.
        await browser.Value<bool>("document.querySelector('button.picture').focus() ?? true");
        await browser.Press("Enter", 13, "\r");
        await browser.Until("document.querySelector('dialog').open && document.querySelector('dialog img').src.startsWith('file:')");
        await browser.Press("ArrowRight", 39);
        await browser.Press("ArrowRight", 39);
        await browser.Press("ArrowLeft", 37);
        Assert.That(await browser.Value<string>("document.querySelector('dialog .bar span').textContent"), Is.EqualTo("2 of 200"));
        Assert.That(await browser.Value<bool>("document.querySelector('dialog .reason').textContent === document.querySelectorAll('.card .reason')[1].textContent"), Is.True);
        await browser.Press("Escape", 27);
        await browser.Until("!document.querySelector('dialog').open && document.activeElement === document.querySelectorAll('button.picture')[1]");
        Assert.That(browser.Errors, Is.Empty);
    }

    [Test]
    public async Task TablesSortAndTheThemeIsRemembered()
    {
        await using var browser = await Browser.Open();
        var file = Write(Many(200));
        await browser.Load(file);
        const string Column = "[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[2].textContent)";
        var before = await browser.Value<string[]>(Column);
        await browser.Value<bool>("document.querySelectorAll('.sortable th button')[2].click() ?? true");
        Assert.That(await browser.Value<string[]>(Column), Is.EqualTo(before.OrderDescending()));
        await browser.Value<bool>("document.querySelectorAll('.sortable th button')[2].click() ?? true");
        Assert.That(await browser.Value<string[]>(Column), Is.EqualTo(before.Order()));
        Assert.That(await browser.Value<string>("document.querySelectorAll('.sortable th')[2].getAttribute('aria-sort')"), Is.EqualTo("ascending"));

        await browser.Call("Emulation.setEmulatedMedia", new() { ["features"] = new JsonArray(new JsonObject { ["name"] = "prefers-color-scheme", ["value"] = "light" }) });
        const string Paper = "getComputedStyle(document.body).backgroundColor";
        var light = await browser.Value<string>(Paper);
        await browser.Value<bool>("document.getElementById('theme').click() ?? true");
        var dark = await browser.Value<string>(Paper);
        Assert.That(dark, Is.Not.EqualTo(light));
        await browser.Load(file);
        Assert.That(await browser.Value<string>(Paper), Is.EqualTo(dark));
        Assert.That(browser.Errors, Is.Empty);
    }

    [Test]
    public async Task NothingFromOutsideGetsInAsMarkup()
    {
        var predictions = Hostile.Select((text, i) => ReportExamples.Of(i % 2, i % 3 == 0 ? null : i % 2, i, text) with { Object = text, Completion = text, ImagePath = i == 2 ? "/gone/" + text : ReportExamples.Image }).ToArray();
        var many = Enumerable.Repeat(predictions, 300).SelectMany(set => set).ToArray();
        var data = new ReportData { Result = ReportExamples.Result(predictions), Predictions = many };
        var file = Write(data);
        await using var browser = await Browser.Open();
        await browser.Load(file);
        await browser.Value<bool>("document.querySelector('.controls').dispatchEvent(new Event('input', {bubbles: true}))");
        for (var shown = 60; shown < many.Length; shown += 60)
        {
            await browser.Value<bool>("document.getElementById('more').click() ?? true");
        }

        var texts = await browser.Value<string[]>("[...new Set([...document.querySelectorAll('.card .reason')].map(p => p.textContent))]");
        Assert.Multiple(async () =>
        {
            Assert.That(texts, Is.EquivalentTo(Hostile.Select(text => text switch { "" => "(no reasoning)", _ when text[0] == 'a' => "a␀b␁␛[31m␡\ufffd\ufffd", _ => text.Replace(" \ud800 ", " \ufffd ", StringComparison.Ordinal) })));
            Assert.That(await browser.Value<int>("document.querySelectorAll('.card').length"), Is.EqualTo(many.Length));
            Assert.That(await browser.Value<string>("document.title"), Does.EndWith("lriad-fast"));
            Assert.That(await browser.Value<int>("document.querySelectorAll('script').length"), Is.EqualTo(1));
            Assert.That(await browser.Value<int>("[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length"), Is.Zero);
            Assert.That(browser.Errors, Is.Empty);
        });
        await browser.AssertFits(360);
    }

    [Test]
    public async Task APhoneShowsItWithoutScrollingSidewaysAndTextStandsOutInBothThemes()
    {
        await using var browser = await Browser.Open();
        await browser.Load(Write(Many(200)));
        foreach (var theme in new[] { "light", "dark" })
        {
            await browser.Value<string>($"document.documentElement.dataset.theme = '{theme}'");
            foreach (var width in new[] { 360, 700, 1280 })
            {
                await browser.AssertFits(width);
            }

            Assert.That(await browser.Value<string[]>(Browser.LowContrast), Is.Empty, theme);
        }

        await browser.Call("Emulation.setEmulatedMedia", new() { ["media"] = "print" });
        await browser.AssertFits(718);
        Assert.That(await browser.Value<bool>("[...document.querySelectorAll('.scroll')].every(part => part.scrollWidth <= part.clientWidth)"), Is.True, "no table is cut off on paper");
        Assert.That(await browser.Value<bool>("[...document.querySelectorAll('.controls, #theme, #more')].some(part => part.checkVisibility())"), Is.False, "controls on paper");
        Assert.That(await browser.Value<string>("getComputedStyle(document.body).backgroundColor"), Is.EqualTo("rgb(255, 255, 255)"));

        var levels = await browser.Value<int[]>("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.localName[1]))");
        Assert.That(levels[0], Is.EqualTo(1));
        Assert.That(levels.Count(level => level == 1), Is.EqualTo(1));
        Assert.That(levels.Zip(levels.Skip(1)).All(pair => pair.Second <= pair.First + 1), Is.True, "no heading level is left out");
        Assert.That(await browser.Value<int>("document.querySelectorAll('img:not([alt]), main img[alt=\"\"], th:not([scope]), svg:not([aria-label]), button:not([type])').length"), Is.Zero);
    }

    [Test]
    public async Task WithoutScriptsEverythingIsThere()
    {
        var data = Many(ReportGallery.Pictures + 300);
        var file = Write(data);
        await using var browser = await Browser.Open(scripts: false);
        await browser.Load(file);
        await browser.Until($"document.querySelectorAll('.card .reason, .rows .reason').length === {data.Predictions.Count}");
        Assert.That(await browser.Value<int>("document.querySelectorAll('.rows tbody tr').length"), Is.EqualTo(300));
        Assert.That(await browser.Value<bool>("document.querySelector('.controls').checkVisibility() || document.getElementById('more').checkVisibility() || document.getElementById('theme').checkVisibility()"), Is.False, "controls that do nothing");

        // The parser made no corrections: as many elements as tags, each where it was written.
        var tags = Regex.Matches(await File.ReadAllTextAsync(file), "<([a-z][a-z0-9]*)[ >]").Select(match => match.Groups[1].Value).ToArray();
        var script = Regex.Matches(await browser.Value<string>("document.querySelector('script').textContent"), "<([a-z][a-z0-9]*)[ >]").Count;
        Assert.That(await browser.Value<int>("document.querySelectorAll('*').length"), Is.EqualTo(tags.Length - script));
        Assert.That(await browser.Value<bool>("[...document.querySelectorAll('[id]')].every((e, i, all) => all.findIndex(o => o.id === e.id) === i)"), Is.True);
        Assert.That(browser.Errors, Is.Empty);
    }

    [Test]
    public async Task TenThousandImagesOpenInTwoSecondsAndStayUnderThirtyMegabytes()
    {
        const int Count = 10_000;
        var images = Photographs(40);
        var random = new Random(5);
        Prediction[] predictions = [.. Enumerable.Range(0, Count).Select(i => ReportExamples.Of(random.Next(5) == 0 ? 1 : 0, random.Next(9) switch { 0 => null, < 4 => 1, _ => 0 }, random.NextDouble() * 8 - 4, $"Number {i}. " + string.Concat(Enumerable.Repeat("The edge is regular and the texture is even. ", 9))) with { ImagePath = images[i % images.Length] })];
        var clock = Stopwatch.StartNew();
        var file = Write(new ReportData { Result = ReportExamples.Result(predictions), Predictions = predictions });
        var written = clock.Elapsed;
        var size = new FileInfo(file).Length;
        await using var browser = await Browser.Open();
        await browser.Load(file);
        await browser.Until("performance.getEntriesByType('navigation')[0].loadEventEnd > 0");
        var open = await browser.Value<double>("performance.getEntriesByType('navigation')[0].loadEventEnd");
        var filter = await browser.Value<double>("(() => { const start = performance.now(); document.querySelector('input[value=missed]').click(); document.body.offsetHeight; return performance.now() - start; })()");
        TestContext.Out.WriteLine(FormattableString.Invariant($"written in {written.TotalSeconds:F1} s, {size / 1e6:F1} MB, open after {open:F0} ms, first filter {filter:F0} ms"));
        Assert.Multiple(async () =>
        {
            Assert.That(size, Is.LessThan(30_000_000));
            Assert.That(open, Is.LessThan(2000));
            Assert.That(await browser.Value<int>("Number(document.querySelector('[role=status]').textContent.split(' ')[2])"), Is.EqualTo(predictions.Count(p => p.GtLabel == 1 && p.PredLabel == 0)));
            Assert.That(browser.Errors, Is.Empty);
        });
    }

    private static string Write(ReportData data)
    {
        var file = Path.Combine(TestFiles.NewFolder(), "report.html");
        Report.Write(file, data);
        return file;
    }

    private static ReportData Many(int count, string? image = null)
    {
        string[] categories = ["gear", "metal_nut", "tile"];
        var predictions = Enumerable.Range(0, count).Select(i => ReportExamples.Of(i % 5 == 0 ? 1 : 0, i % 7 == 0 ? null : i % 3 == 0 ? 1 : 0, Math.Sin(i) * 3, $"Image number {i}.") with { Object = categories[i % 3], ImagePath = image ?? ReportExamples.Image }).ToArray();
        return ReportExamples.Training() with { Result = ReportExamples.Result(predictions), Predictions = predictions };
    }

    // As hard to compress as photographs of rough surfaces: noise over a gradient.
    private static string[] Photographs(int count)
    {
        var folder = TestFiles.NewFolder();
        var random = new Random(3);
        return [.. Enumerable.Range(0, count).Select(i =>
        {
            using var bitmap = new SKBitmap(new SKImageInfo(420, 420, SKColorType.Rgba8888, SKAlphaType.Opaque));
            var pixels = bitmap.GetPixelSpan();
            for (var at = 0; at < pixels.Length; at += 4)
            {
                var value = (byte)((at / 1680 / 3) + random.Next(60));
                (pixels[at], pixels[at + 1], pixels[at + 2], pixels[at + 3]) = (value, (byte)(value / 2 + random.Next(30)), (byte)(255 - value), 255);
            }

            var file = Path.Combine(folder, $"{i}.png");
            using var data = bitmap.Encode(SKEncodedImageFormat.Png, 100);
            File.WriteAllBytes(file, data.ToArray());
            return file;
        })];
    }
}
