using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Data;

/// <summary>Images read ahead: in order, bounded, the bad ones reported, and nothing left running.</summary>
internal sealed class ImageStreamTests
{
    private static readonly PreprocessorSettings Settings = new(14, 2, 2, 56 * 56, 28 * 28 * 1280, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]);

    private static Sample[] Numbered(int count) => [.. Enumerable.Range(0, count).Select(i => new Sample($"{i}", "nut", false, "all"))];

    private static ReadSample Nothing(Sample sample) => new(sample, new ImagePatches([], 1, 0, 0), null);

    [Test]
    public void GivesWhatTheProcessorGivesInOrder_AndReportsWhatIsBad()
    {
        var samples = PillowVector.All.Select(vector => new Sample(vector.Write(), "nut", false, "all")).ToArray();
        Files.Write(samples[3].ImagePath, []);
        File.Delete(samples[^1].ImagePath);
        var processor = new ImageProcessor(Settings, 401_408);
        var read = ImageStream.Read(samples, processor, 5, CancellationToken.None).ToArray();
        Assert.That(read.Select(item => item.Sample), Is.EqualTo(samples));
        Assert.That(read.Where(item => item.Problem is not null).Select(item => item.Sample), Is.EqualTo(new[] { samples[3], samples[^1] }));
        Assert.That(read[3].Problem!.Message, Does.Contain(samples[3].ImagePath).And.Contain("empty"));
        Assert.That(read[4].Image!.Pixels.AsSpan().SequenceEqual(processor.Process(samples[4].ImagePath).Pixels));
    }

    [Test]
    public void NeverReadsFurtherAheadThanAllowed()
    {
        var (begun, taken) = (0, 0);
        var ahead = ImageStream.Stream(Numbered(60), sample =>
        {
            Assert.That(Interlocked.Increment(ref begun) - Volatile.Read(ref taken), Is.LessThanOrEqualTo(4));
            return Nothing(sample);
        }, 4, CancellationToken.None);
        foreach (var _ in ahead)
        {
            Interlocked.Increment(ref taken);
        }

        Assert.That((begun, taken), Is.EqualTo((60, 60)));
    }

    [Test]
    public void StopsWhenTheCallerDoes()
    {
        var (begun, ended) = (0, 0);
        ReadSample Slow(Sample sample)
        {
            Interlocked.Increment(ref begun);
            Thread.Sleep(20);
            Interlocked.Increment(ref ended);
            return Nothing(sample);
        }

        foreach (var _ in ImageStream.Stream(Numbered(1000), Slow, 8, CancellationToken.None))
        {
            break;
        }

        Assert.That(begun, Is.EqualTo(ended).And.LessThanOrEqualTo(9));
        var before = begun;
        Thread.Sleep(100);
        Assert.That(begun, Is.EqualTo(before));
    }

    [Test]
    public void StopsWhenCancelled_EvenInTheMiddleOfAnImage()
    {
        using var cancel = new CancellationTokenSource();
        using var released = new ManualResetEventSlim();
        var items = ImageStream.Stream(Numbered(10), sample =>
        {
            if (sample.ImagePath == "3")
            {
                cancel.Cancel();
                released.Wait(TimeSpan.FromMilliseconds(200));
            }

            return Nothing(sample);
        }, 1, cancel.Token);
        var taken = 0;
        Assert.Throws(Is.InstanceOf<OperationCanceledException>(), () =>
        {
            foreach (var _ in items)
            {
                taken++;
            }
        });
        Assert.That(taken, Is.EqualTo(3));
    }

    [Test]
    public void WhatIsNoFaultOfTheImageStopsTheReader()
    {
        var items = ImageStream.Stream(Numbered(10), sample => sample.ImagePath == "2" ? throw new InvalidOperationException("a bug") : Nothing(sample), 3, CancellationToken.None);
        Assert.That(Assert.Throws<InvalidOperationException>(() => items.Count()).Message, Is.EqualTo("a bug"));
    }

    [Test]
    public void AnEvaluationPassesOverBadImages_OrStopsAtTheFirst()
    {
        var root = TestFiles.NewFolder();
        foreach (var name in new[] { "good/0.png", "good/1.png", "bad/0.png", "bad/1.png" })
        {
            Pictures.WritePng(Path.Combine(root, name));
        }

        var broken = Files.Write(Path.Combine(root, "good", "1.png"), File.ReadAllBytes(Path.Combine(root, "good", "0.png"))[..60]);
        using var backend = new CpuBackend();
        var config = new EvalConfig { Model = TestFiles.TinyModel, Data = new DataSource(root), Out = Path.Combine(TestFiles.NewFolder(), "out"), MaxCompletionLength = 4, BatchSize = 1 };
        var result = Evaluation.Run(config, backend, null, CancellationToken.None);
        Assert.That(result.Pooled.N, Is.EqualTo(3));
        Assert.That(result.Skipped.Single().ImagePath, Is.EqualTo(broken));
        var strict = config with { Strict = true, Out = config.Out + "-strict" };
        Assert.That(Assert.Throws<InputException>(() => Evaluation.Run(strict, backend, null, CancellationToken.None)).Message, Does.Contain(broken));
    }
}
