using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Model;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Serving;

/// <summary>What requests come to: completions, scores and inspections.</summary>
internal sealed class EngineTests
{
    private InferenceEngine _engine = null!;

    [OneTimeSetUp]
    public void Load() => _engine = Served.Engine();

    [OneTimeTearDown]
    public async Task Unload() => await _engine.DisposeAsync();

    [TearDown]
    public void Nothing_is_left_behind() =>
        Assert.That(() => (_engine.Statistics.Running, _engine.Statistics.Waiting, _engine.Statistics.CacheBlocks - _engine.Statistics.FreeCacheBlocks), Is.EqualTo((0, 0, 0)).After(5000, 5));

    [Test]
    public async Task An_inspection_says_what_the_inspector_says([Values(null, "golden")] string? adapter)
    {
        using var backend = new CpuBackend();
        using var policy = Policy.Load(TestFiles.TinyModel, adapter is null ? null : Served.Adapter, backend);
        using var inspector = new Inspector(policy.Model, backend, policy.Adapter, new InspectionOptions { MaxPixels = policy.MaxPixels ?? Served.Small.MaxPixels, MaxCompletionLength = 64 });
        foreach (var file in Directory.GetFiles(TestFiles.Sample("parts-mvtec"), "*.png", SearchOption.AllDirectories).Order().Where((_, i) => i % 9 == 0).Take(4))
        {
            var features = inspector.Prompts.Encode([inspector.Images.Process(file)]);
            var expected = inspector.Inspect([new Question("metal_nut", features)], 0, CancellationToken.None)[0];
            var updates = await _engine.InspectAsync(new InspectionRequest
            {
                Image = new ImageData(File.ReadAllBytes(file), file),
                Object = "metal_nut",
                Adapter = adapter,
                MaxTokens = 64,
            }).ToListAsync();
            var verdict = updates[^1].Verdict!;
            using (Assert.EnterMultipleScope())
            {
                Assert.That(verdict.Completion, Is.EqualTo(expected.Completion));
                Assert.That(verdict.Score, Is.EqualTo(expected.Score));
                Assert.That(updates[0].Score, Is.EqualTo(expected.Score));
                Assert.That(verdict.Defect, Is.EqualTo(expected.Answer.IsValid ? expected.Answer.Kind == AnswerKind.Defect : null));
                Assert.That(verdict.Problem is null, Is.EqualTo(expected.Answer.IsValid));
                Assert.That(verdict.Tokens, Is.EqualTo(expected.Tokens));
                Assert.That(string.Concat(updates.Select(update => update.Text)), Is.EqualTo(verdict.Completion));
            }
        }
    }

    [Test]
    public async Task A_score_is_what_drawing_the_same_tokens_told([Values(null, "golden")] string? adapter)
    {
        var prompt = Served.Ask("What is wrong?", Served.Images[3]);
        var drawn = await Served.Draw(_engine, new GenerationRequest { Prompt = prompt, Adapter = adapter, Temperature = 0.8f, Seed = 3, MaxTokens = 20, TopLogProbs = 4 });
        var scored = await _engine.ScoreAsync(new ScoreRequest { Prompt = prompt, Adapter = adapter, Temperature = 0.8f, Completion = drawn.Tokens[0], TopLogProbs = 4 });
        using (Assert.EnterMultipleScope())
        {
            Assert.That(scored.PromptTokens, Is.EqualTo(drawn.PromptTokens));
            Assert.That(scored.Tokens.Select(token => token.Token.Id), Is.EqualTo(drawn.Tokens[0]));
            Assert.That(scored.Tokens.Select(token => token.Token.LogProb), Is.EqualTo(drawn.LogProbs[0]));
            Assert.That(scored.Tokens.Select(token => token.Top.Select(top => (top.Id, top.LogProb))), Is.EqualTo(drawn.Top[0].Select(top => top.Select(entry => (entry.Id, entry.LogProb)))));
            Assert.That(scored.Tokens.Select(token => token.Top.Count), Is.All.EqualTo(4));
        }
    }

    [Test]
    public async Task Prompts_of_every_kind_say_the_same()
    {
        var image = Served.Images[5];
        var conversation = new Conversation([new PromptMessage("user", [PromptPart.Of("Look: "), PromptPart.Of(image), PromptPart.Of("\nand say.")])]);
        const string Text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nLook: <|vision_start|><|image_pad|><|vision_end|>\nand say.<|im_end|>\n<|im_start|>assistant\n";
        var ids = _engine.Tokenize(Text, parseSpecial: true);
        var pad = ids.ToList().IndexOf(_engine.Tokenize("<|image_pad|>", parseSpecial: true)[0]);
        var first = await Draw(conversation);
        var padding = first.PromptTokens - ids.Count + 1;
        using (Assert.EnterMultipleScope())
        {
            Assert.That((await Draw(new RawPrompt(Text, [image]))).ToString(), Is.EqualTo(first.ToString()));
            Assert.That((await Draw(new TokenPrompt(ids, [image]))).ToString(), Is.EqualTo(first.ToString()), "one image token");
            Assert.That((await Draw(new TokenPrompt([.. ids.Take(pad), .. Enumerable.Repeat(ids[pad], padding), .. ids.Skip(pad + 1)], [image]))).ToString(), Is.EqualTo(first.ToString()), "a run");
        }

        Task<Served.Drawn> Draw(Prompt prompt) => Served.Draw(_engine, new GenerationRequest { Prompt = prompt, Seed = 4, MaxTokens = 8 });
    }

    [Test]
    public async Task Special_tokens_in_a_conversation_stay_text()
    {
        var plain = await Served.Draw(_engine, new GenerationRequest { Prompt = Served.Ask("<|im_end|><|image_pad|>"), MaxTokens = 1 });
        var template = _engine.Tokenize("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", parseSpecial: true).Count;
        Assert.That(plain.PromptTokens, Is.EqualTo(template + _engine.Tokenize("<|im_end|><|image_pad|>").Count));
    }

    [Test]
    public async Task Completions_end_at_the_length_a_stop_text_or_an_end_token()
    {
        var prompt = Served.Ask("Say something long.");
        var cut = await Served.Draw(_engine, new GenerationRequest { Prompt = prompt, Seed = 1, MaxTokens = 12, IgnoreEnd = true });
        var stop = cut.Texts[0][^5..^2];
        var stopped = await Served.Draw(_engine, new GenerationRequest { Prompt = prompt, Seed = 1, MaxTokens = 12, IgnoreEnd = true, Stop = ["never there", stop] });
        using (Assert.EnterMultipleScope())
        {
            Assert.That((cut.Finish[0], cut.Tokens[0].Count), Is.EqualTo((FinishReason.Length, 12)));
            Assert.That((stopped.Finish[0], stopped.StopTexts[0]), Is.EqualTo((FinishReason.Stop, stop)));
            Assert.That(stopped.Texts[0], Is.EqualTo(cut.Texts[0][..cut.Texts[0].IndexOf(stop, StringComparison.Ordinal)]));
        }
    }

    [Test]
    public async Task A_constraint_is_kept_and_ends_the_completion()
    {
        var drawn = await Served.Draw(_engine, new GenerationRequest { Prompt = Served.Ask("Well?"), Completions = 8, Seed = 2, Temperature = 1.5f, Constraint = OutputConstraint.ToRegex("(yes|no), [0-9]{2}") });
        using (Assert.EnterMultipleScope())
        {
            Assert.That(drawn.Texts, Is.All.Match("^(yes|no), [0-9]{2}$"));
            Assert.That(drawn.Finish, Is.All.EqualTo(FinishReason.Stop));
            Assert.That(drawn.Texts.Distinct().Count(), Is.GreaterThan(3));
        }
    }

    [Test]
    public async Task Without_a_seed_each_request_draws_something_else()
    {
        var request = new GenerationRequest { Prompt = Served.Ask("Anything."), MaxTokens = 16, Temperature = 1.5f, IgnoreEnd = true };
        var (first, second) = (await Served.Draw(_engine, request), await Served.Draw(_engine, request));
        Assert.That(first.Tokens[0], Is.Not.EqualTo(second.Tokens[0]));
    }

    [Test]
    public async Task A_prompt_that_requests_share_is_computed_once()
    {
        var before = _engine.Statistics;
        var prompt = Served.Ask("The same for all.", Served.Images[7]);
        var drawn = await Task.WhenAll(Enumerable.Range(0, 12).Select(i => Served.Draw(_engine, new GenerationRequest { Prompt = prompt, Seed = (ulong)i, Completions = 2, MaxTokens = 32, IgnoreEnd = true })));
        var after = _engine.Statistics;
        using (Assert.EnterMultipleScope())
        {
            // Twelve requests for two completions each, eight completions side by side: most of them wait, all at the same time.
            Assert.That(after.PromptTokens - before.PromptTokens, Is.EqualTo(drawn[0].PromptTokens));
            Assert.That(after.SharedPromptTokens - before.SharedPromptTokens, Is.EqualTo(11 * drawn[0].PromptTokens));
            Assert.That(drawn.Sum(one => one.SharedPromptTokens), Is.EqualTo(11 * drawn[0].PromptTokens));
            Assert.That(after.ImagesEncoded - before.ImagesEncoded, Is.EqualTo(1));
        }
    }

    [Test]
    public async Task Adapters_come_and_go_while_requests_run()
    {
        var request = new GenerationRequest { Prompt = Served.Ask("Adapted?"), Adapter = "late", Temperature = 0, MaxTokens = 40, IgnoreEnd = true };
        Assert.That(() => Served.Draw(_engine, request), Throws.InstanceOf<InputException>().With.Message.Contains("golden"));
        await _engine.LoadAdapterAsync("late", Served.Adapter);
        await _engine.LoadAdapterAsync("late", Served.Adapter);
        Assert.That(() => _engine.LoadAdapterAsync("late", TestFiles.TinyModel), Throws.InstanceOf<InputException>().With.Message.Contains("taken"));
        Assert.That(() => _engine.LoadAdapterAsync("none", TestFiles.TinyModel), Throws.InstanceOf<InputException>());
        var running = Served.Draw(_engine, request);
        Assert.That(await _engine.UnloadAdapterAsync("late"), Is.True);
        Assert.That(await _engine.UnloadAdapterAsync("late"), Is.False);
        var golden = await Served.Draw(_engine, request with { Adapter = "golden" });
        Assert.That((await running).ToString(), Is.EqualTo(golden.ToString()));
        Assert.That(_engine.Adapters, Is.EqualTo(["golden"]));
    }

    [Test]
    public async Task Image_features_are_kept_up_to_the_limit()
    {
        // An image of 140 x 140 pixels has 25 tokens of 384 values of 4 bytes: two of them fit.
        await using var engine = Served.Engine(Served.Small with { ImageCacheBytes = 80_000 });
        async Task Ask(int image) => await Served.Draw(engine, new GenerationRequest { Prompt = Served.Ask("This.", Served.Images[image]), MaxTokens = 1 });
        for (var i = 0; i < 4; i++)
        {
            await Ask(i);
            Assert.That(() => engine.Statistics.ImageCacheBytes, Is.LessThanOrEqualTo(80_000).After(1000, 5));
        }

        var (encoded, kept) = (engine.Statistics.ImagesEncoded, engine.Statistics.ImageCacheBytes);
        Assert.That(kept, Is.Positive);
        await Ask(3);
        Assert.That(engine.Statistics.ImagesEncoded, Is.EqualTo(encoded), "the last one is still there");
        await Ask(0);
        Assert.That((encoded, engine.Statistics.ImagesEncoded, engine.Statistics.ImagesKept), Is.EqualTo((4, 5, 1)), "the first one had to go");
    }
}
