using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Serving;

namespace LrIad.Engine.Tests.Serving;

/// <summary>Requests that leave, wait, come too late or are wrong, and a device that fails: nobody else notices.</summary>
internal sealed class ServiceTests
{
    [Test]
    public async Task A_thousand_callers_that_leave_leave_nothing_behind()
    {
        await using var engine = Served.Engine();
        var random = new Random(1);
        await Parallel.ForEachAsync(Enumerable.Range(0, 1000).Select(i => (Index: i, Tokens: random.Next(4))), new ParallelOptions { MaxDegreeOfParallelism = 16 }, async (visit, _) =>
        {
            var images = visit.Index % 10 == 0 ? [Served.Images[visit.Index / 10 % Served.Images.Length]] : Array.Empty<ImageData>();
            using var leaving = new CancellationTokenSource();
            var request = new GenerationRequest { Prompt = Served.Ask("Go on.", images), Completions = 1 + (visit.Index % 2), IgnoreEnd = true, Adapter = visit.Index % 3 == 0 ? "golden" : null };
            if (visit.Index % 4 == 0)
            {
                // While it waits or its image is read.
                leaving.CancelAfter(TimeSpan.FromMilliseconds(visit.Tokens));
            }

            try
            {
                var seen = 0;
                await foreach (var update in engine.StreamAsync(request, leaving.Token))
                {
                    if (seen++ > visit.Tokens)
                    {
                        // By disposing of the stream, or by the token.
                        if (visit.Index % 2 == 0)
                        {
                            break;
                        }

                        await leaving.CancelAsync();
                    }
                }
            }
            catch (OperationCanceledException)
            {
            }
        });

        Assert.That(() => engine.Statistics.FreeCacheBlocks, Is.EqualTo(engine.Statistics.CacheBlocks).After(5000, 5));
        var statistics = engine.Statistics;
        Assert.That((statistics.Running, statistics.Waiting, statistics.Cancelled, statistics.Finished, statistics.TimedOut), Is.EqualTo((0, 0, 1000, 0, 0)));
        Assert.That(await Served.Draw(engine, new GenerationRequest { Prompt = Served.Ask("Still there?"), MaxTokens = 2, IgnoreEnd = true }), Has.Property("PromptTokens").Positive);
    }

    [Test]
    public async Task More_than_may_wait_are_refused()
    {
        await using var engine = Served.Engine(Served.Small with { Sequences = 1, Waiting = 3 });
        using var leaving = new CancellationTokenSource();
        var request = new GenerationRequest { Prompt = Served.Ask("Take your time."), IgnoreEnd = true };
        var running = await Begun(engine, request, leaving.Token);
        var waiting = Enumerable.Range(0, 3).Select(_ => Served.Draw(engine, request, leaving.Token)).ToArray();
        Assert.That(() => Served.Draw(engine, request), Throws.InstanceOf<EngineBusyException>().With.Message.Contains('3'));
        Assert.That(() => engine.ScoreAsync(new ScoreRequest { Prompt = request.Prompt, Completion = [1] }), Throws.InstanceOf<EngineBusyException>());
        Assert.That((engine.Statistics.Running, engine.Statistics.Waiting, engine.Statistics.Refused), Is.EqualTo((1, 3, 2)));
        await leaving.CancelAsync();
        foreach (var one in waiting.Append(running))
        {
            Assert.That(async () => await one, Throws.InstanceOf<OperationCanceledException>());
        }

        Assert.That(() => (engine.Statistics.Running, engine.Statistics.Waiting), Is.EqualTo((0, 0)).After(5000, 5));
    }

    [Test]
    public async Task Clients_take_turns()
    {
        await using var engine = Served.Engine(Served.Small with { Sequences = 1 });
        var request = new GenerationRequest { Prompt = Served.Ask("Quick."), MaxTokens = 24, IgnoreEnd = true };
        using var leaving = new CancellationTokenSource();
        _ = await Begun(engine, request with { Client = "first" }, leaving.Token);

        // One has queued up ten requests before another comes with three.
        var done = new List<string>();
        async Task Ask(string client)
        {
            await Served.Draw(engine, request with { Client = client });
            lock (done)
            {
                done.Add(client);
            }
        }

        var greedy = Enumerable.Range(0, 10).Select(_ => Ask("greedy")).ToArray();
        var modest = Enumerable.Range(0, 3).Select(_ => Ask("modest")).ToArray();
        await leaving.CancelAsync();
        await Task.WhenAll(greedy.Concat(modest));
        Assert.That(done.LastIndexOf("modest"), Is.LessThanOrEqualTo(7), string.Join(' ', done));
    }

    [Test]
    public async Task A_prompt_that_is_kept_for_those_who_wait_makes_room_for_those_before_them()
    {
        // Two places for prompts. When the first is done, its prompt is kept for the fourth, which wants the same; the third, which comes before, needs the place.
        await using var engine = Served.Engine(Served.Small with { Sequences = 2 });
        using var leaving = new CancellationTokenSource();
        var request = new GenerationRequest { Prompt = Served.Ask("The same."), IgnoreEnd = true, MaxTokens = 20 };
        _ = await Begun(engine, request with { Prompt = Served.Ask("Another."), MaxTokens = 64 }, leaving.Token);
        var first = Served.Draw(engine, request with { Seed = 1 });
        var third = Served.Draw(engine, request with { Prompt = Served.Ask("A third."), MaxTokens = 64 });
        var fourth = Served.Draw(engine, request with { Seed = 1 });
        Assert.That((await fourth).Tokens[0], Is.EqualTo((await first).Tokens[0]));
        Assert.That((await third).Tokens[0], Has.Count.EqualTo(64));
        await leaving.CancelAsync();
        Assert.That(() => engine.Statistics.FreeCacheBlocks, Is.EqualTo(engine.Statistics.CacheBlocks).After(5000, 5));
    }

    [Test]
    public void Limits_that_leave_no_room_are_refused() =>
        Assert.That(() => Served.Engine(Served.Small with { Sequences = 0 }), Throws.InstanceOf<InputException>().With.Message.Contains("Sequences"));

    [Test]
    public async Task A_request_has_its_time()
    {
        await using var engine = Served.Engine(Served.Small with { Sequences = 1, CompletionLength = 2000, RequestTime = TimeSpan.FromMilliseconds(300) });
        var request = new GenerationRequest { Prompt = Served.Ask("On and on."), IgnoreEnd = true };
        var (running, waiting) = (Served.Draw(engine, request), Served.Draw(engine, request with { Time = TimeSpan.FromMilliseconds(100) }));
        Assert.That(async () => await waiting, Throws.InstanceOf<TimeoutException>());
        Assert.That(async () => await running, Throws.InstanceOf<TimeoutException>());
        Assert.That(() => engine.Statistics.FreeCacheBlocks, Is.EqualTo(engine.Statistics.CacheBlocks).After(5000, 5));
        Assert.That((engine.Statistics.TimedOut, engine.Statistics.Cancelled), Is.EqualTo((2, 0)));
    }

    [Test]
    public async Task Bad_requests_fail_alone_and_say_why()
    {
        await using var engine = Served.Engine();
        var good = Enumerable.Range(0, 6).Select(i => new GenerationRequest { Prompt = Served.Ask($"Good {i}.", Served.Images[i]), Seed = (ulong)i, MaxTokens = 16, IgnoreEnd = true }).ToArray();
        var alone = new List<string>();
        foreach (var request in good)
        {
            alone.Add((await Served.Draw(engine, request)).ToString());
        }

        var plain = new GenerationRequest { Prompt = Served.Ask("Hm.") };
        (GenerationRequest Request, string Says)[] bad =
        [
            (plain with { Prompt = Served.Ask("", new ImageData(new byte[] { 1, 2, 3 }, "broken.png")) }, "broken.png"),
            (plain with { Prompt = Served.Ask("", new ImageData(new byte[] { 1, 2, 3 }, "other.png")) }, "other.png"),
            (plain with { Prompt = Served.Ask("", new ImageData(default, "none.png")) }, "none.png is empty"),
            (plain with { Prompt = Served.Ask(string.Join(' ', Enumerable.Range(0, 600))) }, "the limit is 512"),
            (plain with { Prompt = Served.Ask("", [.. Enumerable.Repeat(Served.Images[0], 9)]) }, "the limit is 8"),
            (plain with { Prompt = new Conversation([]) }, "no messages"),
            (plain with { Prompt = new Conversation([new PromptMessage("tool", [])]) }, "'tool'"),
            (plain with { Prompt = new TokenPrompt([], []) }, "empty"),
            (plain with { Prompt = new TokenPrompt([1, 999_999], []) }, "999999"),
            (plain with { Prompt = new TokenPrompt([1, -1], []) }, "outside the vocabulary"),
            (plain with { Prompt = new TokenPrompt([1, 2], [Served.Images[0]]) }, "0 places for images"),
            (plain with { Prompt = new RawPrompt("<|image_pad|>", []) }, "more places for images"),
            (plain with { Prompt = new TokenPrompt([3070, 3070], [Served.Images[0]]) }, "a run of 2"),
            (plain with { Adapter = "missing" }, "no adapter 'missing'"),
            (plain with { Completions = 0 }, "(n)"),
            (plain with { Completions = 9 }, "8"),
            (plain with { MaxTokens = 65 }, "64"),
            (plain with { Temperature = float.NaN }, "temperature"),
            (plain with { Temperature = -1 }, "temperature"),
            (plain with { Temperature = 1e-30f }, "temperature"),
            (plain with { TopP = float.NaN }, "top_p"),
            (plain with { TopK = -1 }, "top_k"),
            (plain with { TopLogProbs = 21 }, "20"),
            (plain with { Stop = [.. Enumerable.Repeat("x", 17)] }, "16"),
            (plain with { Stop = [""] }, "stop text"),
            (plain with { Time = TimeSpan.Zero }, "time"),
            (plain with { Constraint = OutputConstraint.ToRegex("(") }, "regular expression"),
        ];
        var running = good.Select(request => Task.Run(() => Served.Draw(engine, request))).ToArray();
        var failed = bad.Select(one => Task.Run(() => Served.Draw(engine, one.Request))).ToArray();
        using (Assert.EnterMultipleScope())
        {
            for (var i = 0; i < bad.Length; i++)
            {
                var index = i;
                Assert.That(async () => await failed[index], Throws.InstanceOf<InputException>().With.Message.Contains(bad[i].Says), $"{i}");
            }

            Assert.That((await Task.WhenAll(running)).Select(drawn => drawn.ToString()), Is.EqualTo(alone));
            Assert.That(() => engine.ScoreAsync(new ScoreRequest { Prompt = plain.Prompt, Completion = [] }), Throws.InstanceOf<InputException>());
            Assert.That(() => engine.ScoreAsync(new ScoreRequest { Prompt = plain.Prompt, Completion = [3072] }), Throws.InstanceOf<InputException>().With.Message.Contains("3072"));
            Assert.That(() => engine.ScoreAsync(new ScoreRequest { Prompt = plain.Prompt, Completion = [1], Temperature = 0 }), Throws.InstanceOf<InputException>().With.Message.Contains("temperature"));
        }

        Assert.That(() => engine.Statistics.FreeCacheBlocks, Is.EqualTo(engine.Statistics.CacheBlocks).After(5000, 5));
    }

    [Test]
    public async Task When_the_device_fails_those_who_run_are_told_and_it_goes_on()
    {
        var backend = new FailingBackend(new CpuBackend());
        await using var engine = Served.Engine(backend: backend);
        var request = new GenerationRequest { Prompt = Served.Ask("Go on.", Served.Images[0]), Seed = 1, MaxTokens = 24, IgnoreEnd = true };
        var expected = (await Served.Draw(engine, request)).ToString();

        // In the vision encoder (two layers), in the prompt pass, in a step.
        foreach (var after in new[] { 0, 3, 30 })
        {
            var other = request with { Prompt = Served.Ask("Go on.", Served.Images[1 + after]) };
            backend.FailAfter = after;
            Assert.That(() => Served.Draw(engine, other), Throws.InvalidOperationException.With.Message.Contains("the device has failed"), $"{after}");
            Assert.That((await Served.Draw(engine, request)).ToString(), Is.EqualTo(expected));
            Assert.That(() => engine.Statistics.FreeCacheBlocks, Is.EqualTo(engine.Statistics.CacheBlocks).After(5000, 5));
        }
    }

    [Test]
    public async Task An_engine_that_is_closed_tells_everybody()
    {
        var engine = Served.Engine(Served.Small with { Sequences = 1, CompletionLength = 2000 });
        var request = new GenerationRequest { Prompt = Served.Ask("On.", Served.Images[0]), IgnoreEnd = true };
        var all = Enumerable.Range(0, 20).Select(_ => Served.Draw(engine, request)).ToArray();
        await engine.DisposeAsync();
        await engine.DisposeAsync();
        foreach (var one in all)
        {
            Assert.That(async () => await one, Throws.InstanceOf<ObjectDisposedException>());
        }

        Assert.That(() => Served.Draw(engine, request), Throws.InstanceOf<ObjectDisposedException>());
    }

    // Draws until the first token is there.
    private static async Task<Task> Begun(InferenceEngine engine, GenerationRequest request, CancellationToken cancellation)
    {
        var begun = new TaskCompletionSource();
        var all = Task.Run(
            async () =>
            {
                await foreach (var update in engine.StreamAsync(request, cancellation))
                {
                    begun.TrySetResult();
                }
            },
            CancellationToken.None);
        await begun.Task;
        return all;
    }
}
