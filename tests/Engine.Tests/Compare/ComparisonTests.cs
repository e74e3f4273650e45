using System.Numerics;
using LrIad.Engine.Compare;

namespace LrIad.Engine.Tests.Compare;

[TestFixture]
internal sealed class ComparisonTests
{
    private string _folder = "";

    [SetUp]
    public void NewFolder() => _folder = TestFiles.NewFolder();

    [TestCase(10, 2, 0.0386)]
    [TestCase(2, 10, 0.0386)]
    [TestCase(5, 5, 1)]
    [TestCase(0, 0, 1)]
    [TestCase(0, 6, 0.03125)]
    public void McNemar_of_known_counts(int a, int b, double p) => Assert.That(Comparison.McNemar(a, b), Is.EqualTo(p).Within(5e-5));

    [Test]
    public void McNemar_is_the_exact_binomial_sum()
    {
        var random = new Random(1);
        for (var i = 0; i < 200; i++)
        {
            var (a, b) = (random.Next(400), random.Next(400));
            BigInteger sum = 0, term = 1;
            for (var k = 0; k <= Math.Min(a, b); k++)
            {
                sum += term;
                term = term * (a + b - k) / (k + 1);
            }

            // Fifteen digits of the fraction, in whole numbers.
            var exact = Math.Min(1, (double)(2 * sum * BigInteger.Pow(10, 30) / BigInteger.Pow(2, a + b)) / 1e30);
            Assert.That(Comparison.McNemar(a, b), Is.EqualTo(exact).Within(1e-9 * exact + 1e-28), $"{a}, {b}");
        }
    }

    [Test]
    public void Many_images_do_not_overflow() => Assert.That(Comparison.McNemar(60_000, 60_700), Is.EqualTo(0.0441).Within(0.001));

    [Test]
    public void Columns_of_others_paths_with_other_beginnings_and_lines_within_quotes()
    {
        var ours = Write("ours.jsonl", """
            {"image_path":"/data/mvtec/gear/test/good/000.png","object":"gear","gt_label":0,"pred_label":0,"pred_score":-2.5}
            {"image_path":"/data/mvtec/gear/test/crack/000.png","object":"gear","gt_label":1,"pred_label":1,"pred_score":1.5}
            {"image_path":"/data/mvtec/tile/test/crack/000.png","object":"tile","gt_label":1,"pred_label":null,"pred_score":0.5}
            {"image_path":"/data/mvtec/tile/test/good/001.png","object":"tile","gt_label":0,"pred_label":1,"pred_score":0.1}
            """);
        var other = Write("other.csv", "Image_Path,Label,pred_score,explanation\r\nD:\\sets\\gear\\test\\good\\000.png,good,0.1,\"fine,\nreally\"\r\nD:\\sets\\gear\\test\\crack\\000.png,anomaly,0.9,\r\n"
            + "D:\\sets\\tile\\test\\crack\\000.png,1.0,0.4,\"a \"\"crack\"\"\"\r\nD:\\sets\\tile\\test\\good\\001.png,0.0,0.4,\r\n");
        var comparison = Comparison.Of([("ours", ours), ("other", other)]);
        Assert.Multiple(() =>
        {
            Assert.That(comparison.Images, Is.EqualTo(4));
            Assert.That(comparison.Systems[0].Figures.Invalid, Is.EqualTo(1));
            Assert.That(comparison.Systems[0].Figures.Recall, Is.EqualTo(0.5));
            Assert.That(comparison.Systems[0].BestF1Threshold, Is.Null);

            // 0.4 finds both defects with one false alarm (F1 0.8), 0.9 one without any (0.67).
            Assert.That(comparison.Systems[1].BestF1Threshold, Is.EqualTo(0.4));
            Assert.That(comparison.Systems[1].Figures.Recall, Is.EqualTo(1));
            Assert.That(comparison.Pairs.Single(), Is.EqualTo(new ComparedPair("ours", "other", 0, 1, 1)));
            Assert.That(comparison.Baselines["always normal"].BalancedAccuracy, Is.EqualTo(0.5));
        });
    }

    [Test]
    public void Images_that_one_lacks_are_not_counted_and_the_truth_may_stand_in_one_file_alone()
    {
        var ours = Write("ours.csv", "image,gt_label,pred_label\na/1.png,1,1\na/2.png,0,0\na/3.png,1,0\n");
        var other = Write("other.csv", "image,pred_label\na/3.png,defect\na/1.png,normal\n");
        var comparison = Comparison.Of([("other", other), ("ours", ours)]);
        Assert.Multiple(() =>
        {
            Assert.That(comparison.Images, Is.EqualTo(2));
            Assert.That(comparison.Systems.Select(system => system.Images), Is.EqualTo(new[] { 2, 3 }));
            Assert.That(comparison.Systems.Select(system => system.Figures.Recall), Is.All.EqualTo(0.5));
            Assert.That(comparison.Systems[0].Figures.BalancedAccuracy, Is.Null);
            Assert.That((comparison.Pairs[0].FirstAlone, comparison.Pairs[0].SecondAlone), Is.EqualTo((1, 1)));
        });
    }

    [TestCase("image,gt_label,pred_label\na.png,1,1\n", "image,gt_label,pred_label\na.png,0,1\n", "contradict")]
    [TestCase("image,gt_label,pred_label\na.png,1,1\n", "image,verdict\na.png,1\n", "no column for a verdict or a score")]
    [TestCase("image,gt_label,pred_label\na.png,1,1\n", "picture,pred_label\na.png,1\n", "no column for the image")]
    [TestCase("image,gt_label,pred_label\na.png,1,1\n", "image,pred_label\nb.png,1\n", "no labelled image in common")]
    [TestCase("image,gt_label,pred_label\na.png,1,1\n", "image,pred_label\na.png,1\na.png,0\n", "more than once")]
    [TestCase("image,gt_label,pred_label\nx/a.png,1,1\n", "image,pred_label\ny/a.png,1\nz/a.png,0\n", "same image")]
    [TestCase("image,gt_label,pred_label\na.png,1,1\n", "image,pred_score\na.png,much\n", "'much' is no score")]
    [TestCase("image,gt_label,pred_label\na.png,1,perhaps\n", "image,pred_score\na.png,1\n", "'perhaps' is no known label")]
    [TestCase("image,pred_label\na.png,1\n", "image,pred_label\na.png,1\n", "one needs a column gt_label")]
    [TestCase("image,gt_label,pred_label\n", "image,pred_label\na.png,1\n", "no column")]
    public void What_cannot_be_compared_is_told(string one, string other, string message) =>
        Assert.That(() => Comparison.Of([("one", Write("one.csv", one)), ("other", Write("other.csv", other))]), Throws.TypeOf<InputException>().With.Message.Contains(message));

    private string Write(string name, string text)
    {
        var file = Path.Combine(_folder, name);
        File.WriteAllText(file, text);
        return file;
    }
}
