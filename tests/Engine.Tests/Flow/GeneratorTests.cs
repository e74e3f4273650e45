using LrIad.Engine.Compute.Cpu;
using LrIad.Engine.Config;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Tests.Model;
using LrIad.Engine.Text;

namespace LrIad.Engine.Tests.Flow;

/// <summary>Drawing completions: equal to transformers when greedy, equal to the training forward bit for bit, and the same in any company.</summary>
internal sealed class GeneratorTests
{
    private static readonly string[] Cases = ["case0", "case1", "case2", "case3", "case4", "case5"];
    private static readonly SamplingOptions Sampling = new() { MaxCompletionLength = 48 };

    private CpuBackend _backend = null!;
    private QwenModel _model = null!;
    private Tokenizer _tokenizer = null!;
    private AdapterWeights _adapter = null!;
    private EncodedPrompt[] _prompts = null!;

    [OneTimeSetUp]
    public void Load()
    {
        _backend = new CpuBackend();
        _model = QwenModel.Load(TestFiles.TinyModel, _backend);
        _tokenizer = Tokenizer.Load(_model.TokenizerFile);
        var adapter = AdapterFile.Load(Path.Combine(TestFiles.Goldens, "adapter"), _model.Geometry);
        _adapter = new AdapterWeights(_backend, AdapterWeights.ShapeFor(_model.Geometry, adapter.Rank));
        _adapter.Upload(adapter.Effective());
        _prompts = [.. Cases.Select(Prompt)];
    }

    [OneTimeTearDown]
    public void Unload()
    {
        _adapter.Dispose();
        _model.Dispose();
        _backend.Dispose();
    }

    [Test]
    public void Greedy_completions_are_equal_token_for_token()
    {
        using var generator = NewGenerator(sequences: 4);
        var groups = Draw(generator, Sampling with { Temperature = 0, MaxCompletionLength = 96 }, adapter: null, [.. _prompts.Select((prompt, i) => new GroupRequest(prompt, 1, (uint)i))]);
        using (Assert.EnterMultipleScope())
        {
            for (var i = 0; i < Cases.Length; i++)
            {
                using var golden = TestFiles.Golden(Cases[i]);
                var expected = golden.ReadIntegers("input_ids")[(int)golden.ReadIntegers("prompt_length")[0]..];
                var completion = groups[i].Completions.Single();
                Assert.That(completion.Tokens, Is.EqualTo(expected), Cases[i]);
                Assert.That(completion.LogProbs, Is.EqualTo(golden.Read("completion_logprobs")).Within(1e-4f), Cases[i]);
                Assert.That(completion.Ended, Is.True);
            }
        }
    }

    [Test]
    public void Drawn_log_probs_are_the_training_forwards_bit_for_bit()
    {
        using var generator = NewGenerator(sequences: 12);
        var groups = Draw(generator, Sampling, _adapter, new GroupRequest(_prompts[0], 4, 0), new GroupRequest(_prompts[4], 8, 4));
        using var pass = new PolicyPass(_model, _backend, groups.Sum(PolicyPass.Rows), 14, _adapter.Shape.Rank);
        var scored = pass.Forward(groups, 1f, _adapter, default);
        var drawn = groups.SelectMany(group => group.Completions).SelectMany(completion => completion.LogProbs).ToArray();
        Assert.That(scored.Select(BitConverter.SingleToInt32Bits), Is.EqualTo(drawn.Select(BitConverter.SingleToInt32Bits)));
    }

    [Test]
    public void The_adapter_changes_what_is_drawn()
    {
        using var generator = NewGenerator(sequences: 8);
        var (with, without) = (Draw(generator, Sampling, _adapter, new GroupRequest(_prompts[0], 8, 0)), Draw(generator, Sampling, null, new GroupRequest(_prompts[0], 8, 0)));
        Assert.That(with[0].Completions[0].LogProbs[0], Is.Not.EqualTo(without[0].Completions[0].LogProbs[0]));
    }

    [TestCase(1f, 0, 1f)]
    [TestCase(0.7f, 20, 0.9f)]
    public void A_sample_is_the_same_alone_and_in_any_batch(float temperature, int topK, float topP)
    {
        var sampling = Sampling with { Temperature = temperature, TopK = topK, TopP = topP, MaxCompletionLength = 24 };
        GroupRequest[] requests = [new(_prompts[0], 3, 0), new(_prompts[1], 5, 3), new(_prompts[4], 2, 8)];
        using var wide = NewGenerator(sequences: 16);
        using var narrow = NewGenerator(sequences: 5);
        var together = Draw(wide, sampling, _adapter, requests);
        var queued = Draw(narrow, sampling, _adapter, requests);
        var backwards = Draw(wide, sampling, _adapter, [.. requests.Reverse()]);
        using (Assert.EnterMultipleScope())
        {
            for (var g = 0; g < requests.Length; g++)
            {
                for (var i = 0; i < requests[g].Completions; i++)
                {
                    var expected = together[g].Completions[i];
                    var alone = i > 0 ? expected : Draw(narrow, sampling, _adapter, new GroupRequest(requests[g].Prompt, 1, expected.Sample))[0].Completions[0];
                    foreach (var other in new[] { alone, queued[g].Completions[i], backwards[^(g + 1)].Completions[i] })
                    {
                        Assert.That((other.Sample, other.Ended), Is.EqualTo((expected.Sample, expected.Ended)));
                        Assert.That(other.Tokens, Is.EqualTo(expected.Tokens));
                        Assert.That(other.LogProbs, Is.EqualTo(expected.LogProbs));
                        Assert.That(other.Entropies, Is.EqualTo(expected.Entropies));
                    }
                }
            }

            Assert.That(together.SelectMany(group => group.Completions).Select(completion => string.Join(' ', completion.Tokens)).Distinct().Count(), Is.GreaterThan(3));
        }
    }

    [Test]
    public void The_probe_is_the_log_odds_after_the_forced_reasoning()
    {
        var options = AnswerOptions.Find(_tokenizer);
        using var generator = NewGenerator(sequences: 6);
        var groups = generator.Run([.. _prompts[..3].Select((prompt, i) => new GroupRequest(prompt, i, (uint)(10 * i)))], Sampling, 5, _adapter.Layers, probe: true, CancellationToken.None);
        using var pass = new PolicyPass(_model, _backend, 1024, 4, _adapter.Shape.Rank);
        using (Assert.EnterMultipleScope())
        {
            foreach (var group in groups)
            {
                var scored = pass.Forward(
                    [GoldenPass.GroupOf(group.Prompt, [.. options.ProbeSuffix, options.DefectToken], [.. options.ProbeSuffix, options.NormalToken])], 1f, _adapter, default);
                Assert.That(group.Probe, Is.EqualTo(scored[options.ProbeSuffix.Length] - scored[^1]));
            }

            Assert.That(groups.Select(group => group.Completions.Count), Is.EqualTo((int[])[0, 1, 2]));
        }
    }

    [Test]
    public void A_completion_that_does_not_end_is_cut_off()
    {
        using var generator = NewGenerator(sequences: 2);
        var completions = Draw(generator, Sampling with { MaxCompletionLength = 3 }, null, new GroupRequest(_prompts[0], 2, 0))[0].Completions;
        Assert.That(completions.Select(completion => (completion.Tokens.Length, completion.Ended)), Is.All.EqualTo((3, false)));
    }

    [Test]
    public void Drawing_a_token_allocates_nothing()
    {
        // A model that never ends, so that the number of tokens is known.
        var folder = new ModelFolder().Edit("generation_config.json", root => root["eos_token_id"] = 3071);
        using var model = QwenModel.Load(folder.Path, _backend);
        using var generator = new Generator(model, _backend, AnswerOptions.Find(_tokenizer), new GeneratorLimits(4, 4, _prompts[0].Length, CompletionLength: 60));
        Allocated(60);
        var difference = Math.Min(Allocated(60) - Allocated(10), Allocated(60) - Allocated(10));

        // What stays with the completions, two buffers of three values a token each; a pass of four layers has some twenty operations.
        var kept = 4 * 50 * 2 * 3 * sizeof(float);
        Assert.That(difference - kept, Is.LessThan(50 * 24), "bytes for 50 tokens");

        long Allocated(int tokens)
        {
            var before = GC.GetTotalAllocatedBytes(precise: true);
            generator.Run([new GroupRequest(_prompts[0], 4, 0)], Sampling with { MaxCompletionLength = tokens }, 5, _adapter.Layers, probe: false, CancellationToken.None);
            return GC.GetTotalAllocatedBytes(precise: true) - before;
        }
    }

    [Test]
    public void Cancelled_it_stops_and_can_go_on_afterwards()
    {
        using var generator = NewGenerator(sequences: 2);
        GroupRequest[] requests = [new(_prompts[0], 2, 0)];
        Assert.That(() => generator.Run(requests, Sampling, 5, null, false, new CancellationToken(canceled: true)), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(Draw(generator, Sampling, null, requests), Has.Count.EqualTo(1));
    }

    private Generator NewGenerator(int sequences) =>
        new(_model, _backend, AnswerOptions.Find(_tokenizer), new GeneratorLimits(sequences, sequences, _prompts.Max(prompt => prompt.Length), CompletionLength: 96));

    private static IReadOnlyList<Group> Draw(Generator generator, SamplingOptions sampling, AdapterWeights? adapter, params GroupRequest[] requests) =>
        generator.Run(requests, sampling, 5, adapter?.Layers, probe: false, CancellationToken.None);

    // From the picture files on, as a user's are.
    private EncodedPrompt Prompt(string name)
    {
        var folder = Path.Combine(TestFiles.Goldens, name);
        using var manifest = System.Text.Json.JsonDocument.Parse(File.ReadAllBytes(Path.Combine(TestFiles.Goldens, "manifest.json")));
        var entry = manifest.RootElement.EnumerateArray().Single(item => item.TryGetProperty("case", out var value) && value.GetString() == name);
        var processor = new ImageProcessor(_model.Preprocessor, entry.GetProperty("max_pixels").GetInt32());
        using var encoder = new PromptEncoder(_model, _backend, _tokenizer, PromptTemplate.Default, 4096);
        var images = entry.GetProperty("images").EnumerateArray().Select(image => processor.Process(Path.Combine(folder, image.GetString()!)));
        return encoder.Build(entry.GetProperty("object").GetString()!, encoder.Encode([.. images]));
    }
}
