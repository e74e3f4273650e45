using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using CsCheck;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Evaluate;

[TestFixture]
internal sealed partial class ReportTests
{
    [Test]
    public void NothingFromOutsideGetsInAsMarkup()
    {
        const string Hostile = "<script>alert('\"&')</script>";
        var prediction = ReportExamples.Of(1, null, 0.5, Hostile) with { Object = Hostile, ImagePath = $"/data/{Hostile}/x.png", Valid = false };
        var result = ReportExamples.Result([prediction]) with
        {
            Skipped = [new Skipped(Hostile, Hostile)],
            Settings = new Dictionary<string, object?> { ["data"] = "a/" + Hostile, ["model"] = Hostile, ["adapter"] = Hostile, [Hostile] = Hostile },
        };
        var page = ReportExamples.Render(new ReportData
        {
            Result = result,
            Predictions = [prediction],
            Before = result,
            Training = [new JsonObject { ["step"] = 1, ["rewards/<script>/mean"] = 1 }, new JsonObject { ["step"] = 2, ["rewards/<script>/mean"] = 2 }],
        });
        Assert.That(OwnScript().Replace(page, ""), Does.Not.Contain("<script").And.Contain("&lt;script&gt;alert("));
        AssertWellFormed(page);
    }

    [Test]
    public void ThePageNeedsNothingElse()
    {
        var page = ReportExamples.Render(ReportExamples.Training());
        Assert.Multiple(() =>
        {
            Assert.That(WithoutImages(page), Does.Not.Contain("://").And.Not.Contain("@import").And.Not.Contain("<link").And.Not.Contain("url("));
            Assert.That(Source().Matches(page).Select(match => match.Groups[1].Value), Is.Not.Empty.And.All.StartsWith("data:image/webp;base64,"));
            Assert.That(Handler().Matches(WithoutImages(page)), Is.Empty, "handlers in the markup");
            Assert.That(Regex.Count(page, "<script"), Is.EqualTo(1));
        });
        AssertWellFormed(page);
    }

    [Test]
    public void FiguresStandBesideTheTrivialAnswersAndThoseBefore()
    {
        var page = ReportExamples.Render(ReportExamples.Training());
        foreach (var text in new[] { "after training", "before training", "always normal", "always defect", "balanced accuracy", "+0.250", "Training changed balanced accuracy by +0.250 (95%: ", "Finds <b>1 of 2</b> defects", "cries wolf on <b>0 of 2</b> normal parts", "beside: always normal 0.500, always defect 0.500", "in the required form", "Settings and versions", "Training", "loss", "gradient norm", "format reward" })
        {
            Assert.That(page, Does.Contain(text));
        }

        Assert.That(WithoutImages(page), Does.Not.Contain("NaN").And.Not.Contain("∞"));
    }

    [Test]
    public void AnInterruptedReportLeavesTheOneBefore()
    {
        var file = Path.Combine(TestFiles.NewFolder(), "report.html");
        Report.Write(file, ReportExamples.Training());
        var before = File.ReadAllText(file);
        Assert.That(() => Report.Write(file, ReportExamples.Training() with { Before = null }, new CancellationToken(canceled: true)), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(Directory.GetFiles(Path.GetDirectoryName(file)!), Is.EqualTo(new[] { file }));
        Assert.That(File.ReadAllText(file), Is.EqualTo(before));
    }

    [Test]
    public void ThresholdIntervalsAndSettingsOfAnyKindAreShown()
    {
        var example = ReportExamples.Training();
        Judged[] judged = [.. example.Predictions.Select(prediction => prediction.ToJudged())];
        var chosen = new ChosenOn { Data = "others", Split = "test", Figures = Metrics.Compute(judged, "wrong") };
        var result = example.Result with
        {
            Intervals = new IntervalSet { Pooled = new FigureIntervals { Recall = [0.125, 0.875], Auroc = [0.25, 0.75] }, Classes = new Dictionary<string, FigureIntervals>() },
            Thresholded = new Thresholded
            {
                Threshold = -0.25,
                Rule = "f1",
                ChosenOn = chosen,
                Pooled = Metrics.Compute([.. judged.Select(image => image.At(-0.25))], "wrong"),
                Classes = new Dictionary<string, Figures>(),
                Intervals = IntervalSet.Of(judged, "wrong", seed: 0),
            },
            Settings = new Dictionary<string, object?> { ["categories"] = new[] { "gear" }, ["without_categories"] = Array.Empty<string>(), ["references"] = new Dictionary<string, string> { ["gear"] = "a.png" }, ["device"] = "cpu" },
        };
        var page = WithoutImages(ReportExamples.Render(example with { Result = result }));
        Assert.Multiple(() =>
        {
            Assert.That(page, Does.Contain("score from -0.25 on (f1)").And.Contain("0.125 to 0.875").And.Contain("0.250 to 0.750"));
            Assert.That(page, Does.Contain("gear").And.Contain("a.png").And.Contain("cpu").And.Not.Contain("without categories"));
            Assert.That(page, Does.Not.Contain("System."));
        });
    }

    [Test]
    public void WithoutDefectsThereAreDashesAndNoCrash([Values(0, 1, 3)] int images)
    {
        var predictions = Enumerable.Range(0, images).Select(i => ReportExamples.Of(0, i == 0 ? 1 : 0, i)).ToArray();
        var page = ReportExamples.Render(new ReportData { Result = ReportExamples.Result(predictions), Predictions = predictions });
        Assert.That(WithoutImages(page), Does.Contain("–").And.Not.Contain("NaN"));
        AssertWellFormed(page);
    }

    [Test]
    public void AnImageThatIsGoneIsSaid()
    {
        var prediction = ReportExamples.Of(1, 0, -1) with { ImagePath = "/nowhere/at/all.png" };
        Assert.That(ReportExamples.Render(new ReportData { Result = ReportExamples.Result([prediction]), Predictions = [prediction] }), Does.Contain("image not readable"));
    }

    [Test]
    public void PicturesAreOfTheWorstAndOfSomeOfBoth() => Gen.Select(Gen.Int[0, 1], Gen.OneOf<int?>(0, 1, null), Gen.Double[-5, 5], Gen.Int[1, 20]).Array[0, 300].Sample(items =>
    {
        // Each item some times over, so that there are at times more than have a picture.
        var predictions = items.SelectMany(item => Enumerable.Range(0, item.Item4).Select(_ => ReportExamples.Of(item.Item1, item.Item2, item.Item3))).ToArray();
        var (pictured, others) = ReportGallery.Choose(predictions);
        bool Wrong(Prediction p) => p.GtLabel != p.PredLabel;
        double Error(Prediction p) => p.GtLabel == 1 ? -p.PredScore : p.PredScore;
        var (wrong, right) = (predictions.Count(Wrong), predictions.Count(p => !Wrong(p)));
        var shown = pictured.TakeWhile(Wrong).ToArray();
        Assert.That(pictured, Has.Count.EqualTo(Math.Min(ReportGallery.Pictures, predictions.Length)));
        Assert.That(pictured.Concat(others).ToHashSet(ReferenceEqualityComparer.Instance).SetEquals(predictions), Is.True);
        Assert.That(pictured.Count + others.Count, Is.EqualTo(predictions.Length));
        Assert.That(pictured.Skip(shown.Length).Any(Wrong), Is.False);
        Assert.That(pictured.Count - shown.Length, Is.GreaterThanOrEqualTo(Math.Min(right, ReportGallery.KeptForRight)));
        Assert.That(shown.Length, Is.GreaterThanOrEqualTo(Math.Min(wrong, ReportGallery.Pictures - ReportGallery.KeptForRight)));
        Assert.That(shown.Select(Error), Is.EqualTo(predictions.Where(Wrong).Select(Error).OrderDescending().Take(shown.Length)));
    }, iter: 60);

    [Test]
    public void PicturesKeepTheShapeAndTheBudget([Values(24_000, 4_000, 1_500)] int budget)
    {
        var uri = ReportPicture.Of(ReportExamples.Image, budget)!;
        var file = Path.Combine(TestFiles.NewFolder(), "picture.webp");
        File.WriteAllBytes(file, Convert.FromBase64String(uri["data:image/webp;base64,".Length..]));
        var (small, full) = (ImageFile.Read(file), ImageFile.Read(ReportExamples.Image));
        Assert.That((double)small.Width / small.Height, Is.EqualTo((double)full.Width / full.Height).Within(0.02));
        Assert.That(new FileInfo(file).Length, Is.LessThanOrEqualTo(budget));
        Assert.That(Math.Max(small.Width, small.Height), Is.LessThanOrEqualTo(320));
        Assert.That(small.Data.Average(value => (double)value), Is.EqualTo(full.Data.Average(value => (double)value)).Within(3));
    }

    [Test]
    public void AnOriginalIsFoundFromWhereThePageLies()
    {
        var folder = TestFiles.NewFolder();
        var file = Path.Combine(folder, "a b", "50% #1?.png");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.Copy(ReportExamples.Image, file);
        var page = Path.Combine(folder, "run");
        Assert.Multiple(() =>
        {
            Assert.That(Path.GetFullPath(Path.Combine(page, Uri.UnescapeDataString(ReportPicture.Address(file, page)!))), Is.EqualTo(file));
            Assert.That(ReportPicture.Address(Path.Combine(folder, "gone.png"), folder), Is.Null);
        });
    }

    [Test]
    public void HistogramsCountEveryImageOnce() => Gen.Select(Gen.Int[0, ReportHistogram.Bins - 1], Gen.Bool).Array[1, 80].Sample(drawn =>
    {
        const double Low = -5, High = 5;
        var items = drawn.Select(item => (Low + ((item.Item1 + 0.5) * (High - Low) / ReportHistogram.Bins), item.Item2)).ToArray();
        foreach (var defect in new[] { true, false })
        {
            Assert.That(ReportHistogram.Count(items, defect, Low, High), Is.EqualTo(Enumerable.Range(0, ReportHistogram.Bins).Select(bin => drawn.Count(item => item == (bin, defect)))));
        }

        var svg = ReportHistogram.Render(items).ToString();
        Assert.That(svg, Does.Not.Contain("NaN").And.Not.Contain("∞"));
        _ = XElement.Parse(svg);
    });

    [Test]
    public void TextOfAnyKindStaysTextAndLegal() => Gen.Char.Array[0, 200].Select(letters => new string(letters)).Sample(text =>
    {
        var xml = XElement.Parse("<p>" + Html.Of($"{text}") + "</p>");
        foreach (var (was, now) in text.ReplaceLineEndings("\n").Zip(xml.Value.ReplaceLineEndings("\n")))
        {
            if (!char.IsControl(was) && !char.IsSurrogate(was) && was < '\ufffe')
            {
                Assert.That(now, Is.EqualTo(was));
            }
        }
    });

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

    // Base64 may spell anything.
    private static string WithoutImages(string page) => Source().Replace(OwnScript().Replace(page, ""), "");

    // All tags but HTML's own void ones are closed, and nested as they are opened.
    private static void AssertWellFormed(string page)
    {
        var xml = VoidTag().Replace(OwnScript().Replace(page, "").Replace("<!DOCTYPE html>", "", StringComparison.Ordinal), match => match.Value[..^1] + "/>");
        Assert.That(() => XDocument.Parse(Boolean().Replace(xml, "")), Throws.Nothing);
    }

    [GeneratedRegex("<script>'use strict'.*?</script>", RegexOptions.Singleline)]
    private static partial Regex OwnScript();

    [GeneratedRegex("<(?:meta|img|input|br)\\b[^>]*>")]
    private static partial Regex VoidTag();

    [GeneratedRegex(" (?:checked|hidden)(?=[ />])")]
    private static partial Regex Boolean();

    [GeneratedRegex("<[^>]* on\\w+=")]
    private static partial Regex Handler();

    [GeneratedRegex("(?:src|href)=\"([^\"]*)\"")]
    private static partial Regex Source();
}
