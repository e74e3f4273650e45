using LrIad.Engine.Compute;
using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Model;

namespace LrIad.Engine.Tests.Model;

/// <summary>Blocks are shared by forks, go back when the last holder is gone, and never belong to two.</summary>
internal sealed class KvCacheTests
{
    private CpuBackend _backend = null!;
    private Arena _arena = null!;

    [SetUp]
    public void Open()
    {
        _backend = new CpuBackend(1);
        _arena = _backend.CreateArena("test");
    }

    [TearDown]
    public void Close()
    {
        _arena.Dispose();
        _backend.Dispose();
    }

    [Test]
    public void A_fork_goes_on_in_its_own_blocks_and_keeps_its_parents_alive()
    {
        var cache = NewCache(4);
        var prompt = cache.NewSegment();
        Grow(prompt, 70);
        var (one, two) = (prompt.Fork(), prompt.Fork());
        Grow(one, 1);
        Grow(two, 64);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(cache.FreeBlocks, Is.Zero);
            Assert.That(prompt.Blocks.Concat(one.Blocks).Concat(two.Blocks), Is.Unique);
            Assert.That((prompt.Length, one.Length, two.Length, one.Parent), Is.EqualTo((70, 1, 64, prompt)));
        }

        prompt.Dispose();
        one.Dispose();
        Assert.That(cache.FreeBlocks, Is.EqualTo(1), "the second fork still sees the prompt");
        two.Dispose();
        two.Dispose();
        Assert.That(cache.FreeBlocks, Is.EqualTo(4));
    }

    [Test]
    public void A_full_cache_says_what_to_lower()
    {
        var cache = NewCache(1);
        using var segment = cache.NewSegment();
        Grow(segment, 64);
        Assert.That(() => segment.Append(), Throws.InvalidOperationException.With.Message.Contains("--max-completion-length"));
        Assert.That(segment.Length, Is.EqualTo(64));
    }

    [Test]
    public void What_others_see_does_not_grow()
    {
        var cache = NewCache(2);
        var prompt = cache.NewSegment();
        Grow(prompt, 3);
        using var fork = prompt.Fork();
        Assert.That(() => prompt.Append(), Throws.InvalidOperationException);
        prompt.Dispose();
        Assert.That(() => prompt.Fork(), Throws.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Random_forks_and_ends_never_share_or_lose_a_block()
    {
        var random = new Random(11);
        var cache = NewCache(64);
        var open = new List<KvSegment>();
        for (var step = 0; step < 4000; step++)
        {
            var leaf = open.Count > 0 ? open[random.Next(open.Count)] : null;
            switch (random.Next(4))
            {
                case 0 when cache.FreeBlocks > 8:
                    open.Add(leaf is null || random.Next(3) == 0 ? cache.NewSegment() : leaf.Fork());
                    break;
                case 1 or 2 when leaf is not null && cache.FreeBlocks > 2 && !open.Exists(segment => segment.Parent == leaf):
                    TryGrow(leaf, random.Next(1, 100));
                    break;
                case 3 when leaf is not null:
                    leaf.Dispose();
                    open.Remove(leaf);
                    break;
            }

            // Every block in use is held by an open segment or one of its ancestors, and named by one segment only.
            var held = open.SelectMany(Chain).Distinct().SelectMany(segment => segment.Blocks).ToArray();
            Assert.That(held, Is.Unique);
            Assert.That(cache.FreeBlocks, Is.EqualTo(64 - held.Length));
        }

        static IEnumerable<KvSegment> Chain(KvSegment segment)
        {
            for (var ancestor = segment; ancestor is not null; ancestor = ancestor.Parent)
            {
                yield return ancestor;
            }
        }

        // A segment whose forks have ended is still fixed.
        static void TryGrow(KvSegment segment, int tokens)
        {
            try
            {
                Grow(segment, tokens);
            }
            catch (InvalidOperationException)
            {
            }
        }
    }

    private KvCache NewCache(int blocks) => new(_backend, _arena, ElementType.Float32, layers: 2, heads: 1, headDim: 4, blocks);

    private static void Grow(KvSegment segment, int tokens)
    {
        for (var i = 0; i < tokens; i++)
        {
            segment.Append();
        }
    }
}
