using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Evaluate;

namespace LrIad.Engine.Tests.Data;

/// <summary>Images read ahead: in order, bounded, the bad ones reported, and nothing left running.</summary>
internal sealed class ImageStreamTests
{
    private static readonly PreprocessorSettings Settings = new(14, 2, 2, 56 * 56, 28 * 28 * 1280, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]);

    private static IEnumerable<string> Numbered(int count) => Enumerable.Range(0, count).Select(i => $"{i}");

    private static ReadImage Nothing(string file) => new(file, new ImagePatches([], 1, 0, 0), null);

    [Test]
    public void GivesWhatTheProcessorGivesInOrder_AndReportsWhatIsBad()
    {
        var files = PillowVector.All.Select(vector => vector.Write()).ToArray();
        Files.Write(files[3], []);
        File.Delete(files[^1]);
        var processor = new ImageProcessor(Settings, 401_408);
        var read = ImageStream.Read(files, processor, 5, CancellationToken.None).ToArray();
        Assert.That(read.Select(item => item.File), Is.EqualTo(files));
        Assert.That(read.Where(item => item.Problem is not null).Select(item => item.File), Is.EqualTo(new[] { files[3], files[^1] }));
        Assert.That(read[3].Problem!.Message, Does.Contain(files[3]).And.Contain("empty"));
        Assert.That(read[4].Image!.Levels.AsSpan().SequenceEqual(processor.Process(files[4]).Levels));
    }

    [Test]
    public void KeepsTheOrder_WhicheverIsReadFirst()
    {
        var read = ImageStream.Stream(Numbered(40), file =>
        {
            Thread.Sleep(file.EndsWith('0') ? 20 : 0);
            return Nothing(file);
        }, 8, CancellationToken.None);
        Assert.That(read.Select(item => item.File), Is.EqualTo(Numbered(40)));
    }

    [Test]
    public void ReadsAllItMayWhileTheCallerWorks_AndNoneMore()
    {
        var (begun, running, taken) = (0, 0, 0);
        foreach (var _ in ImageStream.Stream(Numbered(12), Counted, 4, CancellationToken.None))
        {
            var allowed = Math.Min(12, ++taken + 4);
            Assert.That(() => Volatile.Read(ref begun), Is.EqualTo(allowed).After(5000, 1));
            Thread.Sleep(5);
            Assert.That(Volatile.Read(ref begun), Is.EqualTo(allowed));
        }

        Assert.That(taken, Is.EqualTo(12));

        ReadImage Counted(string file)
        {
            Interlocked.Increment(ref begun);
            Assert.That(Interlocked.Increment(ref running), Is.LessThanOrEqualTo(ImageStream.Readers), "read at a time");
            Thread.Sleep(1);
            Interlocked.Decrement(ref running);
            return Nothing(file);
        }
    }

    [Test]
    public void StopsWhenTheCallerDoes()
    {
        var (begun, ended) = (0, 0);
        ReadImage Slow(string file)
        {
            Interlocked.Increment(ref begun);
            Thread.Sleep(20);
            Interlocked.Increment(ref ended);
            return Nothing(file);
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
    public void StopsWhenCancelled_AndLeavesNoImageBeingRead()
    {
        using var cancel = new CancellationTokenSource();
        using var begun = new ManualResetEventSlim();
        var (taken, ended) = (0, false);
        var images = ImageStream.Stream(Numbered(4), file =>
        {
            if (file == "3")
            {
                begun.Set();
                cancel.Token.WaitHandle.WaitOne(TimeSpan.FromSeconds(5));
                Thread.Sleep(50);
                ended = true;
            }

            return Nothing(file);
        }, 1, cancel.Token);
        Assert.Throws(Is.InstanceOf<OperationCanceledException>(), () =>
        {
            foreach (var _ in images)
            {
                if (++taken == 3)
                {
                    Assert.That(begun.Wait(TimeSpan.FromSeconds(5)));
                    cancel.CancelAfter(20);
                }
            }
        });
        Assert.That((taken, ended), Is.EqualTo((3, true)));
    }

    [Test]
    public void WhatIsNoFaultOfTheImageStopsTheReader()
    {
        var images = ImageStream.Stream(Numbered(10), file => file == "2" ? throw new InvalidOperationException("a bug") : Nothing(file), 3, CancellationToken.None);
        Assert.That(Assert.Throws<InvalidOperationException>(() => images.Count()).Message, Is.EqualTo("a bug"));
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
