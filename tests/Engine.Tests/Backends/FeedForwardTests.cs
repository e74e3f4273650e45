using LrIad.Engine.Compute;
using LrIad.Engine.Tests.Oracle;

namespace LrIad.Engine.Tests.Backends;

internal sealed class FeedForwardTests
{
    private static IEnumerable<TestCaseData> Cases()
    {
        yield return Named("decoder", new FeedForwardCase(5, 384, 768, FeedForwardKind.GatedSilu, ElementType.BFloat16, 1));
        yield return Named("vision", new FeedForwardCase(37, 160, 640, FeedForwardKind.QuickGelu, ElementType.BFloat16, 2));
        yield return Named("decoder, odd sizes", new FeedForwardCase(19, 29, 53, FeedForwardKind.GatedSilu, ElementType.Float32, 3));
        yield return Named("vision, odd sizes", new FeedForwardCase(33, 17, 41, FeedForwardKind.QuickGelu, ElementType.Float32, 4));
        yield return Named("one row of one column", new FeedForwardCase(1, 2, 1, FeedForwardKind.GatedSilu, ElementType.BFloat16, 5));
        yield return Named("deep", new FeedForwardCase(7, 1100, 70, FeedForwardKind.GatedSilu, ElementType.BFloat16, 6));

        static TestCaseData Named(string name, FeedForwardCase value) => new TestCaseData(value).SetArgDisplayNames(name);
    }

    [TestCaseSource(nameof(Cases))]
    public void Feed_forward_equals_the_oracle(FeedForwardCase c)
    {
        using var device = new Device();
        var (y, saved) = Forward(device, c, c.X);
        var (expected, expectedSaved) = c.Oracle(Reference.Widen(c.X));
        using (Assert.EnterMultipleScope())
        {
            Assert.That(y, Is.EqualTo(expected).Within(3e-5));
            Assert.That(saved, Is.EqualTo(expectedSaved).Within(1e-5));
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void The_gradient_equals_finite_differences_of_the_oracle(FeedForwardCase c)
    {
        using var device = new Device();
        var random = new Random(c.Inner);
        var dy = Reference.Normal(random, c.X.Length, 1f);
        var dx = Backward(device, c, c.X, Forward(device, c, c.X).Saved, dy);
        Assert.That(Reference.GradientError(x => Matrix.Dot(c.Oracle(x).Y, dy), Reference.Widen(c.X), dx, null, random, 12), Is.LessThan(2e-6));
    }

    [TestCaseSource(nameof(Cases))]
    public void A_row_comes_out_the_same_in_any_company_and_with_any_number_of_threads(FeedForwardCase c)
    {
        var dy = Reference.Normal(new Random(1), c.X.Length, 1f);
        var (y, saved, dx) = Run(1, Enumerable.Range(0, c.Rows));
        foreach (var threads in new[] { 2, 3 })
        {
            AssertSame(threads, [.. Enumerable.Range(0, c.Rows)]);
            AssertSame(threads, [c.Rows - 1]);
            AssertSame(threads, [.. Enumerable.Range(0, c.Rows).Reverse().Where(row => row % 3 != 1)]);
        }

        void AssertSame(int threads, int[] rows)
        {
            var some = Run(threads, rows);
            Matrix.AssertSame(some.Y, Matrix.Rows(y, c.Hidden, rows), "y");
            Matrix.AssertSame(some.Saved, Matrix.Rows(saved, saved.Length / c.Rows, rows), "saved");
            Matrix.AssertSame(some.Dx, Matrix.Rows(dx, c.Hidden, rows), "dx");
        }

        (float[] Y, float[] Saved, float[] Dx) Run(int threads, IEnumerable<int> rows)
        {
            using var device = new Device(threads);
            var x = Matrix.Rows(c.X, c.Hidden, rows);
            var (someY, someSaved) = Forward(device, c, x);
            return (someY, someSaved, Backward(device, c, x, someSaved, Matrix.Rows(dy, c.Hidden, rows)));
        }
    }

    [TestCaseSource(nameof(Cases))]
    public void Works_in_place_and_without_keeping_anything(FeedForwardCase c)
    {
        using var device = new Device();
        var (y, saved) = Forward(device, c, c.X);
        var dy = Reference.Normal(new Random(1), c.X.Length, 1f);
        var dx = Backward(device, c, c.X, saved, dy);

        var (x, place, weights) = (device.Put(c.X, c.Rows), device.Put(c.X, c.Rows), c.On(device));
        device.Backend.FeedForward(place, weights, place, default);
        Matrix.AssertSame(device.Get(place), y, "y");
        device.Backend.Upload(dy, place);
        device.Backend.FeedForwardBackward(x, weights, device.Put(saved, c.Rows), place, place);
        Matrix.AssertSame(device.Get(place), dx, "dx");
    }

    [Test]
    public void Large_inputs_of_the_non_linearity_neither_overflow_nor_become_NaN([Values] FeedForwardKind kind)
    {
        using var device = new Device();
        var c = new FeedForwardCase(4, 16, 24, kind, ElementType.Float32, 9);
        var weights = c.On(device);
        var saved = device.Put([.. Enumerable.Range(0, 4 * weights.SavedColumns).Select(i => (i % 5) switch { 0 => -3e4f, 1 => 3e4f, 2 => -88f, 3 => 89f, _ => 0f })], 4);
        var dx = device.New(4, 16);
        device.Backend.FeedForwardBackward(device.Put(c.X, 4), weights, saved, device.Put(c.X, 4), dx);
        Assert.That(device.Get(dx), Has.All.Matches<float>(float.IsFinite));
    }

    private static (float[] Y, float[] Saved) Forward(Device device, FeedForwardCase c, float[] x)
    {
        var weights = c.On(device);
        var rows = x.Length / c.Hidden;
        var (y, saved) = (device.New(rows, c.Hidden), device.New(rows, weights.SavedColumns));
        device.Backend.FeedForward(device.Put(x, rows), weights, y, saved);
        return (device.Get(y), device.Get(saved));
    }

    private static float[] Backward(Device device, FeedForwardCase c, float[] x, float[] saved, float[] dy)
    {
        var rows = x.Length / c.Hidden;
        var dx = device.New(rows, c.Hidden);
        device.Backend.FeedForwardBackward(device.Put(x, rows), c.On(device), device.Put(saved, rows), device.Put(dy, rows), dx);
        return device.Get(dx);
    }
}
