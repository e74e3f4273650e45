using System.IO.Compression;
using System.Text.Json;
using System.Text.Json.Nodes;
using LrIad.Engine.Evaluate;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Evaluate;

/// <summary>Figures beside scikit-learn's; bench/peers/metrics_cases.py makes the file.</summary>
[TestFixture]
internal sealed class MetricsGoldenTests
{
    private static readonly string[] Names = ["accuracy", "f1_macro", "balanced_accuracy", "recall", "specificity", "precision", "auroc", "average_precision"];

    [Test]
    public void TheFiguresAreThoseOfScikitLearn()
    {
        var cases = Cases();
        Assert.That(cases, Has.Count.EqualTo(200));
        Assert.Multiple(() =>
        {
            foreach (var (number, item) in cases.Index())
            {
                var figures = JsonSerializer.SerializeToNode(Metrics.Compute(Images(item!), (string)item!["invalid"]!))!;
                Assert.That((int)figures["n"]!, Is.EqualTo((int)item["figures"]!["n"]!), $"case {number}: n");
                foreach (var name in Names)
                {
                    var (ours, theirs) = ((double?)figures[name], (double?)item["figures"]![name]);
                    Assert.That(ours, theirs is null ? Is.Null : Is.EqualTo(theirs).Within(1e-12), $"case {number}: {name}");
                }
            }
        });
    }

    [Test]
    public void TheCasesCoverWhatIsOdd()
    {
        var cases = Cases();
        Assert.Multiple(() =>
        {
            foreach (var name in Names)
            {
                Assert.That(cases.Count(item => item!["figures"]![name] is null), Is.InRange(1, 150), $"cases where {name} does not exist");
            }

            Assert.That(cases.Select(item => (string)item!["invalid"]!).Distinct(), Is.EquivalentTo(new[] { "wrong", "normal", "defect", "drop" }));
            Assert.That(cases.Any(item => item!["verdict"]!.AsArray().All(verdict => verdict is null)), "all invalid");
            Assert.That(cases.Any(item => item!["score"]!.AsArray() is { Count: > 1 } scores && scores.Select(score => (double)score!).Distinct().Count() == 1), "constant scores");
        });
    }

    private static JsonArray Cases()
    {
        using var file = new GZipStream(File.OpenRead(TestFiles.GoldenFile("metrics.json.gz")), CompressionMode.Decompress);
        return JsonNode.Parse(file)!["cases"]!.AsArray();
    }

    private static Judged[] Images(JsonNode item)
    {
        var (defects, verdicts, scores) = (item["defect"]!.AsArray(), item["verdict"]!.AsArray(), item["score"]!.AsArray());
        return
        [
            .. defects.Select((defect, i) => new Judged(
                "a", (int)defect! == 1, (int?)verdicts[i] switch { 1 => AnswerKind.Defect, 0 => AnswerKind.Normal, _ => AnswerKind.Invalid }, (double)scores[i]!)),
        ];
    }
}
