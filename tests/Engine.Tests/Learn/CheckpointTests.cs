using System.Text;
using LrIad.Engine.Learn;

namespace LrIad.Engine.Tests.Learn;

/// <summary>Whatever goes wrong while a checkpoint is written, the newest whole one can be loaded.</summary>
[TestFixture]
internal sealed class CheckpointTests
{
    [Test]
    public void AFailureAtAnyBoundaryLeavesTheCheckpointBefore()
    {
        var boundaries = Boundaries();
        Assert.That(boundaries.Count(name => name.StartsWith("flush ", StringComparison.Ordinal)), Is.EqualTo(4), "three files and the manifest");
        for (var failing = 0; failing < boundaries.Count; failing++)
        {
            var folder = TestFiles.NewFolder();
            Save(new CheckpointStore(folder), 10);
            var before = Contents(folder, 10);

            var call = 0;
            var store = new CheckpointStore(folder, _ =>
            {
                if (call++ == failing)
                {
                    throw new IOException("No space left on device.");
                }
            });
            Assert.That(() => Save(store, 20), Throws.InstanceOf<InputException>().With.Message.Contains("checkpoint-20").And.Message.Contains("No space left"), boundaries[failing]);
            Assert.That(store.FindNewest()?.Step, Is.EqualTo(10), boundaries[failing]);
            Assert.That(Contents(folder, 10), Is.EqualTo(before), boundaries[failing]);
            Assert.That(Directory.GetDirectories(folder), Has.Length.EqualTo(1), "what was begun takes no more space: " + boundaries[failing]);

            Save(store, 20);
            Assert.That(store.FindNewest()?.Step, Is.EqualTo(20), boundaries[failing]);
        }
    }

    [Test]
    public void AKillAtAnyBoundaryLeavesTheCheckpointBefore()
    {
        // A process that dies does not tidy up either: the exception is not one that saving handles.
        for (var dying = 0; dying < Boundaries().Count; dying++)
        {
            var folder = TestFiles.NewFolder();
            Save(new CheckpointStore(folder), 10);
            var call = 0;
            var killed = new CheckpointStore(folder, _ =>
            {
                if (call++ == dying)
                {
                    throw new NotSupportedException("killed");
                }
            });
            Assert.That(() => Save(killed, 20), Throws.InstanceOf<NotSupportedException>());

            var store = new CheckpointStore(folder);
            Assert.That(store.FindNewest()?.Step, Is.EqualTo(10));
            Save(store, 20);
            Assert.That(Contents(folder, 20), Is.EqualTo(Expected(20)));
            Assert.That(Directory.GetFileSystemEntries(folder, "*.partial"), Is.Empty);
        }
    }

    [Test]
    public void AWriterThatFailsHalfWayLeavesTheCheckpointBefore()
    {
        var folder = TestFiles.NewFolder();
        var store = new CheckpointStore(folder);
        Save(store, 1);
        Assert.That(
            () => store.Save(2, (path, write) => write(Path.Combine(path, "adapter_model.safetensors"), stream =>
            {
                stream.Write(new byte[1000]);
                throw new IOException("No space left on device.");
            })),
            Throws.InstanceOf<InputException>());
        Assert.That(store.FindNewest()?.Step, Is.EqualTo(1));
    }

    [Test]
    public void ATruncatedFileIsNoticed() => ForEachFile((file, bytes) =>
    {
        foreach (var length in new[] { 0, bytes.Length / 2, bytes.Length - 1 })
        {
            File.WriteAllBytes(file, bytes[..length]);
            AssertPassedOver(file);
        }
    });

    [Test]
    public void AFlippedBitIsNoticed() => ForEachFile((file, bytes) =>
    {
        for (var bit = 0; bit < 8 * bytes.Length; bit += 5)
        {
            var damaged = (byte[])bytes.Clone();
            damaged[bit / 8] ^= (byte)(1 << (bit % 8));
            File.WriteAllBytes(file, damaged);
            AssertPassedOver(file);
        }
    });

    [Test]
    public void AMissingFileIsNoticed() => ForEachFile((file, _) =>
    {
        File.Delete(file);
        AssertPassedOver(file);
    });

    [TestCase("null")]
    [TestCase("{}")]
    [TestCase("[]")]
    [TestCase("{\"a\\u0000b\": \"00\"}")]
    public void AManifestOfSomethingElseIsNoticed(string manifest)
    {
        var folder = TestFiles.NewFolder();
        Save(new CheckpointStore(folder), 4);
        var file = Path.Combine(folder, "checkpoint-4", "manifest.json");
        File.WriteAllText(file, manifest);
        Assert.That(CheckpointStore.Problem(Path.GetDirectoryName(file)!), Is.Not.Null);
    }

    [Test]
    public void TheNewestIsTheLargestStepAndOtherFoldersAreNone()
    {
        var folder = TestFiles.NewFolder();
        var store = new CheckpointStore(folder);
        foreach (var step in new[] { 9, 100, 20 })
        {
            Save(store, step);
        }

        foreach (var other in new[] { "checkpoint-200.partial", "checkpoint-best", "checkpoint-", "checkpoint--5", "checkpoint-99999999999" })
        {
            Directory.CreateDirectory(Path.Combine(folder, other));
        }

        Assert.That(store.FindNewest(), Is.EqualTo((100, Path.Combine(folder, "checkpoint-100"))));
        Assert.That(new CheckpointStore(TestFiles.NewFolder()).FindNewest(), Is.Null);
        Assert.That(new CheckpointStore(Path.Combine(folder, "nowhere")).FindNewest(), Is.Null);
    }

    [Test]
    public void ADamagedCheckpointOfTheSameStepIsReplacedAndAWholeOneIsLeft()
    {
        var folder = TestFiles.NewFolder();
        var store = new CheckpointStore(folder);
        Save(store, 3);
        var file = Path.Combine(folder, "checkpoint-3", "optimizer.safetensors");
        var written = File.GetLastWriteTimeUtc(file);
        Save(store, 3);
        Assert.That(File.GetLastWriteTimeUtc(file), Is.EqualTo(written));

        File.WriteAllText(file, "damaged");
        Save(store, 3);
        Assert.That(Contents(folder, 3), Is.EqualTo(Expected(3)));
    }

    [Test]
    public void TheStateOfARunComesBackAsItWas()
    {
        var state = new TrainerState { ClassWindow = ClassWindow.Start(1, 7), Step = 12, SamplerPosition = 5_000_000_000, NextSample = uint.MaxValue, NumTokens = long.MaxValue };
        state.ClassWindow.Add(true);
        state.History.Add(new() { ["step"] = 12, ["loss"] = 0.1 + 0.2, ["kl"] = null });
        var file = Path.Combine(TestFiles.NewFolder(), "trainer_state.json");
        using (var stream = File.Create(file))
        {
            state.Write(stream);
        }

        var read = TrainerState.Read(file);
        Assert.Multiple(() =>
        {
            Assert.That((read.Step, read.SamplerPosition, read.NextSample, read.NumTokens), Is.EqualTo((12, 5_000_000_000, uint.MaxValue, long.MaxValue)));
            Assert.That(read.ClassWindow.Contents, Is.EqualTo(state.ClassWindow.Contents));
            Assert.That(read.History.Single().ToJsonString(), Is.EqualTo(state.History[0].ToJsonString()));
        });
    }

    [TestCase("")]
    [TestCase("[]")]
    [TestCase("""{"global_step":"many"}""")]
    [TestCase("""{"global_step":1,"sampler_position":2,"next_sample":-3,"num_tokens":4,"class_window":"DN","log_history":[]}""")]
    [TestCase("""{"global_step":1,"sampler_position":2,"next_sample":3,"num_tokens":4,"class_window":"DN","log_history":[7]}""")]
    public void AStateOfSomethingElseIsAnErrorThatNamesTheFile(string text)
    {
        var file = Path.Combine(TestFiles.NewFolder(), "trainer_state.json");
        File.WriteAllText(file, text);
        Assert.That(() => TrainerState.Read(file), Throws.InstanceOf<InputException>().With.Message.Contains(file));
    }

    private static List<string> Boundaries()
    {
        var folder = TestFiles.NewFolder();
        Save(new CheckpointStore(folder), 10);
        var names = new List<string>();
        Save(new CheckpointStore(folder, names.Add), 20);
        return names;
    }

    private static void Save(CheckpointStore store, int step) => store.Save(step, (folder, write) =>
    {
        foreach (var (name, bytes) in Expected(step))
        {
            write(Path.Combine(folder, name), stream => stream.Write(bytes));
        }
    });

    private static (string Name, byte[] Bytes)[] Expected(int step) =>
        [.. new[] { "adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json" }.Select(name => (name, Encoding.UTF8.GetBytes($"{name} of step {step}")))];

    private static (string, byte[])[] Contents(string folder, int step) =>
        [.. Directory.GetFiles(Path.Combine(folder, $"checkpoint-{step}")).Where(file => !file.EndsWith("manifest.json", StringComparison.Ordinal)).Order().Select(file => (Path.GetFileName(file), File.ReadAllBytes(file)))];

    private static void ForEachFile(Action<string, byte[]> damage)
    {
        var folder = TestFiles.NewFolder();
        var store = new CheckpointStore(folder);
        Save(store, 1);
        Save(store, 2);
        foreach (var file in Directory.GetFiles(Path.Combine(folder, "checkpoint-2")))
        {
            var bytes = File.ReadAllBytes(file);
            damage(file, bytes);
            File.WriteAllBytes(file, bytes);
            Assert.That(store.FindNewest()?.Step, Is.EqualTo(2), "mended");
        }
    }

    private static void AssertPassedOver(string file)
    {
        var said = new List<string>();
        var folder = Path.GetDirectoryName(Path.GetDirectoryName(file))!;
        Assert.That(new CheckpointStore(folder).FindNewest(said.Add)?.Step, Is.EqualTo(1));
        Assert.That(said, Has.Count.EqualTo(1).And.Some.Contains("checkpoint-2"));
    }
}
