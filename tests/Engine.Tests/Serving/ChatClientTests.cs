using System.Text.Json;
using LrIad.Engine.Serving;
using Microsoft.Extensions.AI;

namespace LrIad.Engine.Tests.Serving;

/// <summary>What an engine is asked when a chat client is, and how its answer comes back.</summary>
internal sealed class ChatClientTests
{
    private static readonly byte[] Picture = [1, 2, 3];

    [Test]
    public async Task Messages_become_turns_behind_the_instructions()
    {
        var picture = new DataContent(Picture, "image/png") { Name = "part.png" };
        var (request, _) = await Ask(
            new ChatOptions { Instructions = "Be brief." },
            new ChatMessage(ChatRole.User, [picture, new TextContent("Is it "), new TextContent("faulty?")]),
            new ChatMessage(ChatRole.Assistant, "No."),
            new ChatMessage(ChatRole.User, [new UriContent($"data:image/jpeg;base64,{Convert.ToBase64String(Picture)}", "image/jpeg")]));
        var turns = ((Conversation)request.Prompt).Messages;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(turns.Select(turn => turn.Role), Is.EqualTo(["system", "user", "assistant", "user"]));
            Assert.That(turns.SelectMany(turn => turn.Parts).Select(part => part.Text), Is.EqualTo(["Be brief.", null, "Is it ", "faulty?", "No.", null]));
            Assert.That(turns.SelectMany(turn => turn.Parts).Select(part => part.Image).OfType<ImageData>().Select(image => image.Bytes.ToArray()), Is.EqualTo([Picture, Picture]));
            Assert.That(turns.SelectMany(turn => turn.Parts).Select(part => part.Image?.Name).OfType<string>(), Is.EqualTo(["part.png", "the image in message 3"]));
        }
    }

    [Test]
    public async Task Without_options_the_engine_decides()
    {
        var (request, _) = await Ask(null, new ChatMessage(ChatRole.User, "Hello"));
        Assert.That(request, Is.EqualTo(new GenerationRequest { Prompt = request.Prompt, Stop = request.Stop }).And.Property(nameof(request.Stop)).Empty);
    }

    [Test]
    public async Task Options_become_the_request()
    {
        var (request, response) = await Ask(new ChatOptions
        {
            ModelId = "screws",
            Temperature = 0.5f,
            TopP = 0.9f,
            TopK = 7,
            Seed = -1,
            MaxOutputTokens = 33,
            StopSequences = ["</answer>"],
            FrequencyPenalty = 0,
            PresencePenalty = 0,
            Tools = [],
            ToolMode = ChatToolMode.Auto,
            AllowMultipleToolCalls = true,
            ResponseFormat = ChatResponseFormat.Text,
            AdditionalProperties = new() { ["another_provider"] = 1 },
        });
        using (Assert.EnterMultipleScope())
        {
            Assert.That((request.Adapter, request.Temperature, request.TopP, request.TopK, request.Seed, request.MaxTokens), Is.EqualTo(("screws", 0.5f, 0.9f, 7, ulong.MaxValue, 33)));
            Assert.That(request.Stop, Is.EqualTo(["</answer>"]));
            Assert.That((request.Constraint, request.TopLogProbs, request.Probe), Is.EqualTo(((OutputConstraint?)null, 0, false)));
            Assert.That(response.ModelId, Is.EqualTo("screws"));
        }
    }

    [Test]
    public async Task The_base_models_name_means_no_adapter()
    {
        var (request, response) = await Ask(new ChatOptions { ModelId = "tiny" });
        Assert.That((request.Adapter, response.ModelId), Is.EqualTo(((string?)null, "tiny")));
    }

    [Test]
    public async Task Formats_become_constraints()
    {
        using var schema = JsonDocument.Parse("""{"type":"object","properties":{"defect":{"type":"boolean"}}}""");
        var ofSchema = await Constraint(new ChatOptions { ResponseFormat = ChatResponseFormat.ForJsonSchema(schema.RootElement) });
        var ofJson = await Constraint(new ChatOptions { ResponseFormat = ChatResponseFormat.Json });
        var ofRegex = await Constraint(new ChatOptions { AdditionalProperties = new() { [LriadChatClient.Regex] = "A|B" } });
        var ofChoice = await Constraint(new ChatOptions { AdditionalProperties = new() { [LriadChatClient.Choice] = new[] { "A", "B" } } });
        using (Assert.EnterMultipleScope())
        {
            Assert.That(ofSchema?.JsonSchema, Is.EqualTo(schema.RootElement.GetRawText()));
            Assert.That(ofJson?.JsonSchema, Is.EqualTo("""{"type":"object"}"""));
            Assert.That(ofRegex?.Regex, Is.EqualTo("A|B"));
            Assert.That(ofChoice?.Choices, Is.EqualTo(["A", "B"]));
        }

        static async Task<OutputConstraint?> Constraint(ChatOptions options) => (await Ask(options)).Request.Constraint;
    }

    [Test]
    public async Task Options_that_were_saved_ask_for_the_same()
    {
        var options = new ChatOptions
        {
            Temperature = 0.5f,
            AdditionalProperties = new() { [LriadChatClient.LogProbs] = 3, [LriadChatClient.Probe] = true, [LriadChatClient.Choice] = new List<string> { "A", "B" } },
        };
        var saved = JsonSerializer.Deserialize<ChatOptions>(JsonSerializer.Serialize(options, AIJsonUtilities.DefaultOptions), AIJsonUtilities.DefaultOptions);
        foreach (var (request, _) in new[] { await Ask(options), await Ask(saved) })
        {
            Assert.That((request.TopLogProbs, request.Probe, request.Temperature), Is.EqualTo((3, true, 0.5f)));
            Assert.That(request.Constraint?.Choices, Is.EqualTo(["A", "B"]));
        }
    }

    [Test]
    public async Task The_answer_comes_whole()
    {
        var (_, response) = await Ask(null);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(response.Text, Is.EqualTo("<think> ok</think> <answer>B</answer>"));
            Assert.That(response.Messages, Has.One.Items.And.One.Property(nameof(ChatMessage.Role)).EqualTo(ChatRole.Assistant));
            Assert.That((response.FinishReason, response.ModelId), Is.EqualTo((ChatFinishReason.Stop, "tiny")));
            Assert.That(response.ResponseId, Is.Not.Empty);
            Assert.That(response.CreatedAt, Is.EqualTo(DateTimeOffset.UtcNow).Within(TimeSpan.FromMinutes(1)));
            Assert.That((response.Usage?.InputTokenCount, response.Usage?.CachedInputTokenCount, response.Usage?.OutputTokenCount, response.Usage?.TotalTokenCount), Is.EqualTo((12, 8, 3, 15)));
            Assert.That(response.AdditionalProperties, Is.Null);
        }
    }

    [Test]
    public async Task The_answer_comes_in_pieces()
    {
        using var client = new LriadChatClient(new FakeEngine { Answer = [.. FakeEngine.Words("one", " two")[..^1], new() { Text = " two", Finish = FinishReason.Length }] });
        var updates = await client.GetStreamingResponseAsync("count").ToListAsync();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(updates.Select(update => update.Text), Is.EqualTo(["", "one", " two"]));
            Assert.That(updates.Select(update => update.FinishReason), Is.EqualTo([null, null, (ChatFinishReason?)ChatFinishReason.Length]));
            Assert.That(updates.Select(update => (update.ResponseId, update.Role)).Distinct(), Has.One.Items);
            Assert.That(updates.Select(update => ((GenerationUpdate)update.RawRepresentation!).Tokens.Count), Is.EqualTo([0, 1, 0]));
        }
    }

    [Test]
    public async Task Log_probs_and_score_come_where_asked_for()
    {
        var (_, response) = await Ask(new ChatOptions { AdditionalProperties = new() { [LriadChatClient.LogProbs] = 0, [LriadChatClient.Probe] = true } });
        var tokens = (IReadOnlyList<DrawnToken>)response.AdditionalProperties![LriadChatClient.LogProbs]!;
        using (Assert.EnterMultipleScope())
        {
            Assert.That(tokens.Select(token => token.Token.LogProb), Is.EqualTo([-0.25f, -0.5f, -0.75f]));
            Assert.That(response.AdditionalProperties![LriadChatClient.Probe], Is.EqualTo(-1.5));
        }
    }

    private static readonly TestCaseData<ChatOptions, string>[] Refused =
    [
        new(new ChatOptions { Tools = [AIFunctionFactory.Create(() => 1, "one")], FrequencyPenalty = 1 }, "Tools, FrequencyPenalty"),
        new(new ChatOptions { ToolMode = ChatToolMode.RequireAny }, "ToolMode"),
        new(new ChatOptions { PresencePenalty = -1 }, "PresencePenalty"),
        new(new ChatOptions { ConversationId = "7" }, "ConversationId"),
        new(new ChatOptions { ContinuationToken = ResponseContinuationToken.FromBytes(new byte[1]) }, "ContinuationToken"),
        new(new ChatOptions { ModelId = "bolts" }, "no model called bolts"),
        new(new ChatOptions { ResponseFormat = ChatResponseFormat.Json, AdditionalProperties = new() { [LriadChatClient.Regex] = "A" } }, "only one"),
        new(new ChatOptions { AdditionalProperties = new() { [LriadChatClient.LogProbs] = "many" } }, "\"log_probs\"] must be a whole number, not many"),
        new(new ChatOptions { AdditionalProperties = new() { [LriadChatClient.Choice] = JsonElement.Parse("[1]") } }, "\"choice\"] must be a list of texts, not [1]"),
    ];

    [TestCaseSource(nameof(Refused))]
    public void Options_that_cannot_be_met_are_named(ChatOptions options, string expected) => Assert.That(async () => await Ask(options), Throws.TypeOf<InputException>().With.Message.Contains(expected));

    private static readonly TestCaseData<ChatMessage, string>[] Unreadable =
    [
        new(new ChatMessage(ChatRole.User, [new UriContent("https://example.com/part.png", "image/png")]), "https://example.com/part.png in message 1 is not fetched"),
        new(new ChatMessage(ChatRole.User, [new DataContent(Picture, "audio/wav")]), "audio/wav in message 1"),
        new(new ChatMessage(ChatRole.User, [new UriContent("data:audio/wav;base64,AQID", "audio/wav")]), "audio/wav in message 1"),
        new(new ChatMessage(ChatRole.User, [new UriContent("data:image/png;base64,?", "image/png")]), "data: URI in message 1 cannot be read"),
        new(new ChatMessage(ChatRole.Assistant, [new FunctionCallContent("1", "one")]), "FunctionCallContent in message 1"),
        new(new ChatMessage(ChatRole.Tool, "1"), "role of message 1 is tool"),
    ];

    [TestCaseSource(nameof(Unreadable))]
    public void Messages_that_cannot_be_read_are_named(ChatMessage message, string expected) => Assert.That(async () => await Ask(null, message), Throws.TypeOf<InputException>().With.Message.Contains(expected));

    [Test]
    public async Task Who_leaves_is_let_go()
    {
        using var client = new LriadChatClient(new FakeEngine { Answer = [] });
        using var leave = new CancellationTokenSource();
        var whole = client.GetResponseAsync("hello", cancellationToken: leave.Token);
        var streamed = client.GetStreamingResponseAsync("hello", cancellationToken: leave.Token).ToListAsync().AsTask();
        await leave.CancelAsync();
        using (Assert.EnterMultipleScope())
        {
            Assert.That(async () => await whole, Throws.InstanceOf<OperationCanceledException>());
            Assert.That(async () => await streamed, Throws.InstanceOf<OperationCanceledException>());
        }
    }

    [Test]
    public void It_tells_what_is_beneath()
    {
        var engine = new FakeEngine();
        using var client = new LriadChatClient(engine);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(client.GetRequiredService<ChatClientMetadata>(), Has.Property("ProviderName").EqualTo("lriad").And.Property("DefaultModelId").EqualTo("tiny"));
            Assert.That(client.GetService<IInferenceEngine>(), Is.SameAs(engine));
            Assert.That(client.GetService<FakeEngine>(), Is.SameAs(engine));
            Assert.That(client.GetService<LriadChatClient>(), Is.SameAs(client));
            Assert.That(client.GetService<IChatClient>(), Is.SameAs(client));
            Assert.That(client.GetService<IAsyncDisposable>(), Is.Null);
            Assert.That(client.GetService<IInferenceEngine>("key"), Is.Null);
        }
    }

    private static async Task<(GenerationRequest Request, ChatResponse Response)> Ask(ChatOptions? options, params ChatMessage[] messages)
    {
        var engine = new FakeEngine();
        using var client = new LriadChatClient(engine);
        var response = await client.GetResponseAsync(messages, options);
        return (engine.Requests.Single(), response);
    }
}
