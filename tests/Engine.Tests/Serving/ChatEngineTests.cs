using System.Text.Json;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;
using Microsoft.Extensions.AI;

namespace LrIad.Engine.Tests.Serving;

/// <summary>The chat client on the sample model.</summary>
internal sealed class ChatEngineTests
{
    private static readonly byte[] Gear = File.ReadAllBytes(Path.Combine(TestFiles.Sample("parts-mvtec"), "gear", "test", "crack", "000.png"));

    private InferenceEngine _engine = null!;
    private LriadChatClient _client = null!;

    [OneTimeSetUp]
    public void Load()
    {
        _engine = InferenceEngine.Load(new EngineOptions
        {
            Model = TestFiles.TinyModel,
            Device = "cpu",
            Adapters = new Dictionary<string, string> { ["golden"] = Path.Combine(TestFiles.Goldens, "adapter") },
            Limits = new EngineLimits { Sequences = 4, PromptLength = 256, CompletionLength = 128 },
        });
        _client = new LriadChatClient(_engine);
    }

    [OneTimeTearDown]
    public async Task Close()
    {
        _client.Dispose();
        await _engine.DisposeAsync();
    }

    [Test]
    public async Task Streamed_and_whole_are_the_same_answer()
    {
        var options = new ChatOptions { Seed = 5, MaxOutputTokens = 60, Instructions = "Answer briefly." };
        var whole = await _client.GetResponseAsync(Question(), options);
        var pieces = await _client.GetStreamingResponseAsync(Question(), options).ToListAsync();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(string.Concat(pieces), Is.EqualTo(whole.Text).And.Not.Empty);
            Assert.That(pieces.Count(piece => piece.Text.Length > 0), Is.GreaterThan(1));
            Assert.That(whole.Usage?.TotalTokenCount, Is.EqualTo(whole.Usage?.InputTokenCount + whole.Usage?.OutputTokenCount));
            Assert.That(pieces[^1].FinishReason, Is.EqualTo(whole.FinishReason).And.Not.Null);
            Assert.That(whole.ModelId, Is.EqualTo("tiny-qwen2-vl"));
        }
    }

    [Test]
    public async Task An_image_is_seen()
    {
        var withImage = await _client.GetResponseAsync(Question(), new ChatOptions { MaxOutputTokens = 1 });
        var without = await _client.GetResponseAsync("Is there a defect?", new ChatOptions { MaxOutputTokens = 1 });
        using (Assert.EnterMultipleScope())
        {
            // 140 × 140 pixels are 5 × 5 tokens, between two of their own.
            Assert.That(withImage.Usage!.InputTokenCount - without.Usage!.InputTokenCount, Is.EqualTo(27));
            Assert.That(withImage.FinishReason, Is.EqualTo(ChatFinishReason.Length));
            Assert.That(async () => await _client.GetResponseAsync(new ChatMessage(ChatRole.User, [new DataContent(Gear.AsMemory(0, 200), "image/png")])), Throws.TypeOf<InputException>().With.Message.Contains("the image in message 1"));
        }
    }

    [Test]
    public async Task The_score_is_the_inspections_and_an_adapter_changes_it()
    {
        var inspection = await _engine.InspectAsync(new InspectionRequest { Image = new ImageData(Gear), Object = "gear", MaxTokens = 1 }).FirstAsync();
        var message = new ChatMessage(ChatRole.User, [new DataContent(Gear, "image/png"), new TextContent(PromptTemplate.Default.Render("gear"))]);
        var scores = new List<double>();
        foreach (var model in new[] { null, "golden" })
        {
            var response = await _client.GetResponseAsync(message, new ChatOptions { ModelId = model, MaxOutputTokens = 1, AdditionalProperties = new() { [LriadChatClient.Probe] = true } });
            Assert.That(response.ModelId, Is.EqualTo(model ?? "tiny-qwen2-vl"));
            scores.Add((double)response.AdditionalProperties![LriadChatClient.Probe]!);
        }

        Assert.That(scores[0], Is.EqualTo(inspection.Score));
        Assert.That(scores[1], Is.Not.EqualTo(scores[0]).Within(1e-3));
    }

    [Test]
    public async Task Log_probs_are_those_of_scoring()
    {
        var response = await _client.GetResponseAsync("Is there a defect?", new ChatOptions { Seed = 3, MaxOutputTokens = 20, AdditionalProperties = new() { [LriadChatClient.LogProbs] = 2 } });
        var drawn = (IReadOnlyList<DrawnToken>)response.AdditionalProperties![LriadChatClient.LogProbs]!;
        var prompt = new Conversation([new PromptMessage("user", [PromptPart.Of("Is there a defect?")])]);
        var scored = await _engine.ScoreAsync(new ScoreRequest { Prompt = prompt, Completion = [.. drawn.Select(token => token.Token.Id)] });
        using (Assert.EnterMultipleScope())
        {
            Assert.That(drawn.Select(token => token.Token.LogProb), Is.EqualTo(scored.Tokens.Select(token => token.Token.LogProb)).Within(1e-4f));
            Assert.That(drawn.Select(token => token.Top.Count), Is.All.EqualTo(2));
            Assert.That(drawn, Has.Count.EqualTo(response.Usage!.OutputTokenCount));
        }
    }

    [Test]
    public async Task A_type_is_answered_under_its_schema([Values(1, 2, 3)] long seed)
    {
        var response = await _client.GetResponseAsync<Finding>(Question(), new ChatOptions { Seed = seed });
        Assert.That(response.FinishReason, Is.EqualTo(ChatFinishReason.Stop));
        Assert.That(Enum.IsDefined(response.Result.Where), response.Text);
    }

    [Test]
    public async Task Other_forms_are_kept_too()
    {
        var json = await _client.GetResponseAsync(Question(), new ChatOptions { Seed = 1, ResponseFormat = ChatResponseFormat.Json });
        var choice = await _client.GetResponseAsync(Question(), new ChatOptions { Seed = 1, AdditionalProperties = new() { [LriadChatClient.Choice] = new[] { "defect", "normal" } } });
        var regex = await _client.GetResponseAsync(Question(), new ChatOptions { Seed = 1, AdditionalProperties = new() { [LriadChatClient.Regex] = "[0-9]{2}%" } });
        using (Assert.EnterMultipleScope())
        {
            Assert.That(json.Text, Does.StartWith("{"));
            Assert.That(json.FinishReason == ChatFinishReason.Length || JsonElement.Parse(json.Text).ValueKind == JsonValueKind.Object, json.Text);
            Assert.That(choice.Text, Is.AnyOf("defect", "normal"));
            Assert.That(regex.Text, Does.Match("^[0-9]{2}%$"));
        }
    }

    [Test]
    public async Task Who_leaves_a_stream_frees_its_place()
    {
        using var leave = new CancellationTokenSource();
        var left = _engine.Statistics.Cancelled;
        Assert.That(async () =>
        {
            await foreach (var update in _client.GetStreamingResponseAsync(Question(), new ChatOptions { Temperature = 5, MaxOutputTokens = 128 }, leave.Token))
            {
                await leave.CancelAsync();
            }
        }, Throws.InstanceOf<OperationCanceledException>());
        Assert.That(() => _engine.Statistics.Cancelled, Is.EqualTo(left + 1).After(5000, 10));
        Assert.That((await _client.GetResponseAsync("Is there a defect?", new ChatOptions { MaxOutputTokens = 1 })).Usage?.OutputTokenCount, Is.EqualTo(1));
    }

    [Test]
    public void What_the_engine_refuses_is_told() => Assert.That(
        async () => await _client.GetResponseAsync(Question(), new ChatOptions { TopP = 2 }), Throws.TypeOf<InputException>().With.Message.Contains("top_p"));

    private static ChatMessage Question() => new(ChatRole.User, [new DataContent(Gear, "image/png"), new TextContent("Is there a defect?")]);

    internal enum Part
    {
        Whole,
        Edge,
        Centre,
    }

    internal sealed record Finding(bool Defect, Part Where);
}
