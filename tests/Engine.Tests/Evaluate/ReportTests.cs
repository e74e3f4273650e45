using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using CsCheck;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Evaluate;

[TestFixture]
internal sealed partial class ReportTests
{
    private static readonly string Image = Directory.GetFiles(TestFiles.Sample("parts-mvtec"), "*.png", SearchOption.AllDirectories).Order(StringComparer.Ordinal).First();

    [Test]
    public void NothingFromOutsideGetsInAsMarkup()
    {
        const string Hostile = "<script>alert('\"&')</script>";
        var prediction = Of(1, null, 0.5, Hostile) with { Object = Hostile, ImagePath = $"/data/{Hostile}/x.png", Valid = false };
        var result = Result([prediction]) with
        {
            Skipped = [new Skipped(Hostile, Hostile)],
            Settings = new Dictionary<string, object?> { ["data"] = "a/" + Hostile, ["model"] = Hostile, ["adapter"] = Hostile, [Hostile] = Hostile },
        };
        var page = Report.Render(new ReportData
        {
            Result = result,
            Predictions = [prediction],
            Before = result,
            Training = [new JsonObject { ["step"] = 1, ["rewards/<script>/mean"] = 1 }, new JsonObject { ["step"] = 2, ["rewards/<script>/mean"] = 2 }],
        });
        Assert.That(page, Does.Not.Contain("<script").And.Contain("&lt;script&gt;alert("));
        AssertWellFormed(page);
    }

    [Test]
    public void ThePageNeedsNothingElse()
    {
        var page = Report.Render(Example());
        Assert.Multiple(() =>
        {
            Assert.That(WithoutImages(page), Does.Not.Contain("http").And.Not.Contain("@import").And.Not.Contain("<link").And.Not.Contain("<script"));
            Assert.That(Source().Matches(page).Select(match => match.Groups[1].Value), Is.Not.Empty.And.All.StartsWith("data:image/jpeg;base64,"));
            Assert.That(WithoutImages(page), Does.Not.Contain("url("));
        });
        AssertWellFormed(page);
    }

    [Test]
    public void FiguresStandBesideTheTrivialAnswersAndThoseBefore()
    {
        var page = Report.Render(Example());
        foreach (var text in new[] { "after training", "before training", "always normal", "always defect", "balanced accuracy", "+0.250", "Training changed balanced accuracy by +0.250 (95%: ", "Finds <b>50%</b> of the defects", "Training", "gradient norm", "format reward" })
        {
            Assert.That(page, Does.Contain(text));
        }

        Assert.That(WithoutImages(page), Does.Not.Contain("NaN").And.Not.Contain("∞"));
    }

    [Test]
    public void WithoutDefectsThereAreDashesAndNoCrash([Values(0, 1, 3)] int images)
    {
        var predictions = Enumerable.Range(0, images).Select(i => Of(0, i == 0 ? 1 : 0, i)).ToArray();
        var page = Report.Render(new ReportData { Result = Result(predictions), Predictions = predictions });
        Assert.That(WithoutImages(page), Does.Contain("–").And.Not.Contain("NaN"));
        AssertWellFormed(page);
    }

    [Test]
    public void AnImageThatIsGoneIsSaid()
    {
        var prediction = Of(1, 0, -1) with { ImagePath = "/nowhere/at/all.png" };
        Assert.That(Report.Render(new ReportData { Result = Result([prediction]), Predictions = [prediction] }), Does.Contain("image not readable"));
    }

    [Test]
    public void TheGalleryBeginsWithTheWorstAndHasSomeOfBoth() => Gen.Select(Gen.Int[0, 1], Gen.OneOf<int?>(0, 1, null), Gen.Double[-5, 5]).Array[0, 300].Sample(items =>
    {
        var predictions = items.Select(item => Of(item.Item1, item.Item2, item.Item3)).ToArray();
        var chosen = ReportGallery.Choose(predictions);
        bool Wrong(Prediction p) => p.GtLabel != p.PredLabel;
        double Error(Prediction p) => p.GtLabel == 1 ? -p.PredScore : p.PredScore;
        var (wrong, right) = (predictions.Count(Wrong), predictions.Count(p => !Wrong(p)));
        var shown = chosen.TakeWhile(Wrong).ToArray();
        Assert.That(chosen, Has.Count.EqualTo(Math.Min(ReportGallery.Size, predictions.Length)));
        Assert.That(chosen.Skip(shown.Length).Any(Wrong), Is.False);
        Assert.That(chosen.Count - shown.Length, Is.GreaterThanOrEqualTo(Math.Min(right, ReportGallery.KeptForRight)));
        Assert.That(shown.Length, Is.GreaterThanOrEqualTo(Math.Min(wrong, ReportGallery.Size - ReportGallery.KeptForRight)));
        Assert.That(shown.Select(Error), Is.EqualTo(predictions.Where(Wrong).Select(Error).OrderDescending().Take(shown.Length)));
    });

    [Test]
    public void ThumbnailsAreSmallAndKeepTheShape()
    {
        var uri = ReportGallery.Thumbnail(Image)!;
        var file = Path.Combine(TestFiles.NewFolder(), "thumbnail.jpg");
        File.WriteAllBytes(file, Convert.FromBase64String(uri["data:image/jpeg;base64,".Length..]));
        var (small, full) = (ImageFile.Read(file), ImageFile.Read(Image));
        Assert.That((double)small.Width / small.Height, Is.EqualTo((double)full.Width / full.Height).Within(0.02));
        Assert.That(Math.Max(small.Width, small.Height), Is.LessThanOrEqualTo(192));
        Assert.That(small.Data.Average(value => (double)value), Is.EqualTo(full.Data.Average(value => (double)value)).Within(3));
    }

    [Test]
    public void TheAreaUnderTheCurveIsTheAuroc() => Gen.Select(Gen.Int[-4, 4], Gen.Bool).Array[2, 60].Sample(items =>
    {
        var scored = items.Select(item => ((double)item.Item1, item.Item2)).ToArray();
        var points = ReportCharts.RocPoints(scored);
        var area = points.Zip(points.Skip(1)).Sum(pair => (pair.Second.FalseAlarms - pair.First.FalseAlarms) * (pair.First.Recall + pair.Second.Recall) / 2);
        Assert.That(points.Count > 0 ? area : (double?)null, Metrics.Auroc(scored) is { } auroc ? Is.EqualTo(auroc).Within(1e-9) : Is.Null);
    });

    [TestCase(0, 1, new[] { 0, 0.5, 1 })]
    [TestCase(0.61, 0.98, new[] { 0.6, 0.7, 0.8, 0.9, 1 })]
    [TestCase(-3, 240, new double[] { -100, 0, 100, 200, 300 })]
    public void TicksAreRoundAndCoverTheRange(double low, double high, double[] ticks) => Assert.That(ReportCharts.Ticks(low, high, 4), Is.EqualTo(ticks).Within(1e-12));

    [Test]
    public void CurvesOfAnyValuesAreDrawable() => Gen.Double[-1e6, 1e6].Array[2, 60].Sample(values =>
    {
        foreach (var points in new[] { values, [.. values.Select(_ => values[0])], [0, 0], [1e-9, 1e-9] })
        {
            var svg = ReportCharts.Curve(new ChartLine("loss", [.. points.Select((value, i) => ((double)i, value))])).ToString();
            Assert.That(svg, Does.Not.Contain("NaN").And.Not.Contain("Infinity").And.Not.Contain("∞"));
            _ = XElement.Parse(svg);
        }
    });

    private static ReportData Example()
    {
        Prediction[] before = [Of(1, 0, -1), Of(1, 0, 0.2), Of(0, 0, -2), Of(0, 0, -1)];
        Prediction[] after = [Of(1, 1, 1, "A crack."), Of(1, 0, -0.2), Of(0, 0, -2), Of(0, 0, -1)];
        return new ReportData
        {
            Result = Result(after),
            Predictions = after,
            Before = Result(before),
            Training = [.. Enumerable.Range(1, 30).Select(step => new JsonObject { ["step"] = step, ["reward"] = step / 30.0, ["rewards/format/mean"] = 1.0, ["kl"] = null, ["grad_norm"] = 0.1 * step })],
            Course = [(0, Result(before).Pooled), (30, Result(after).Pooled)],
        };
    }

    private static Prediction Of(int label, int? verdict, double score, string reasoning = "Regular.") => new()
    {
        ImagePath = Image,
        Object = "metal_nut",
        GtLabel = label,
        PredLabel = verdict,
        PredScore = score,
        Explanation = reasoning,
        Completion = verdict is { } said ? $"<think>{reasoning}</think> <answer>{(said == 1 ? "A" : "B")}</answer>" : reasoning,
        Valid = verdict is not null,
    };

    private static EvalResult Result(Prediction[] predictions)
    {
        Judged[] judged = [.. predictions.Select(p => new Judged(p.Object, p.GtLabel == 1, p.PredLabel switch { 1 => AnswerKind.Defect, 0 => AnswerKind.Normal, _ => AnswerKind.Invalid }, p.PredScore))];
        var pooled = Metrics.Compute(judged, "wrong");
        return new EvalResult
        {
            Pooled = pooled,
            BalancedAccuracyInterval = Bootstrap.Of(judged, "wrong", seed: 0).BalancedAccuracy,
            Classes = judged.GroupBy(item => item.Object).ToDictionary(group => group.Key, group => Metrics.Compute([.. group], "wrong")),
            Baselines = new Dictionary<string, Figures> { ["always_normal"] = Metrics.Always(judged, AnswerKind.Normal), ["always_defect"] = Metrics.Always(judged, AnswerKind.Defect) },
            InvalidKinds = new Dictionary<string, int> { ["MissingTag"] = pooled.Invalid },
            Contradictions = 0,
            Skipped = [],
            Settings = new Dictionary<string, object?> { ["data"] = "samples/parts-mvtec", ["model"] = "samples/tiny-qwen2-vl", ["adapter"] = null, ["votes"] = 0 },
        };
    }

    // Base64 may spell anything.
    private static string WithoutImages(string page) => Source().Replace(page, "");

    // All tags but HTML's own void ones are closed, and nested as they are opened.
    private static void AssertWellFormed(string page)
    {
        var xml = VoidTag().Replace(page.Replace("<!DOCTYPE html>", "", StringComparison.Ordinal), match => match.Value[..^1] + "/>");
        Assert.That(() => XDocument.Parse(Boolean().Replace(xml, "")), Throws.Nothing);
    }

    [GeneratedRegex("<(?:meta|img|input)\\b[^>]*>")]
    private static partial Regex VoidTag();

    [GeneratedRegex(" (?:checked|open)(?=/?>)")]
    private static partial Regex Boolean();

    [GeneratedRegex("(?:src|href)=\"([^\"]*)\"")]
    private static partial Regex Source();
}
