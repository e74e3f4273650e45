using System.ClientModel;
using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Chat;
using ChatMessage = OpenAI.Chat.ChatMessage;

namespace LrIad.Server.Tests;

/// <summary>The official OpenAI client, and Microsoft.Extensions.AI over it, talk to the server.</summary>
[TestFixture]
internal sealed class ClientTests
{
    private const string Key = "k-123";

    private static readonly byte[] Image = [137, 80, 78, 71, 1, 2, 3];

    private FakeEngine _engine = null!;
    private TestServer _server = null!;
    private ChatClient _client = null!;

    [SetUp]
    public async Task Start()
    {
        _engine = new FakeEngine { Answer = (request, completion) => request.Constraint?.JsonSchema is null ? FakeEngine.Echo(request, completion) : """{"defect": true, "reason": "a crack"}""" };
        _server = await TestServer.StartAsync(_engine, new ServerOptions { ApiKey = Key });
        _client = Connect(Key).GetChatClient(FakeEngine.Name);
    }

    [TearDown]
    public async Task Stop()
    {
        await _server.DisposeAsync();
        await _engine.DisposeAsync();
    }

    [Test]
    public async Task AnImageAndATextWhole()
    {
        var completion = (await _client.CompleteChatAsync([Question()], new ChatCompletionOptions { MaxOutputTokenCount = 50, Temperature = 0.5f, IncludeLogProbabilities = true, TopLogProbabilityCount = 3 })).Value;
        Assert.Multiple(() =>
        {
            Assert.That(completion.Content[0].Text, Is.EqualTo("You said Is it defective? [image of 7 bytes]"));
            Assert.That(completion.FinishReason, Is.EqualTo(OpenAI.Chat.ChatFinishReason.Stop));
            Assert.That(completion.Usage.TotalTokenCount, Is.EqualTo(completion.Usage.InputTokenCount + completion.Usage.OutputTokenCount));
            Assert.That(string.Concat(completion.ContentTokenLogProbabilities.Select(token => token.Token)), Is.EqualTo(completion.Content[0].Text));
            Assert.That(completion.ContentTokenLogProbabilities[0].TopLogProbabilities, Has.Count.EqualTo(3));
        });
    }

    [Test]
    public async Task Streamed()
    {
        var (text, roles, usage) = ("", new List<ChatMessageRole?>(), (ChatTokenUsage?)null);
        await foreach (var update in _client.CompleteChatStreamingAsync(Question()))
        {
            text += string.Concat(update.ContentUpdate.Select(part => part.Text));
            roles.Add(update.Role);
            usage = update.Usage ?? usage;
        }

        Assert.Multiple(() =>
        {
            Assert.That(text, Is.EqualTo("You said Is it defective? [image of 7 bytes]"));
            Assert.That(roles[0], Is.EqualTo(ChatMessageRole.Assistant));
            Assert.That(usage?.OutputTokenCount, Is.EqualTo(text.Split(' ').Length));
        });
    }

    [Test]
    public async Task StructuredOutput()
    {
        var format = OpenAI.Chat.ChatResponseFormat.CreateJsonSchemaFormat("verdict", BinaryData.FromString("""{"type":"object","properties":{"defect":{"type":"boolean"}}}"""), jsonSchemaIsStrict: true);
        var completion = (await _client.CompleteChatAsync([Question()], new ChatCompletionOptions { ResponseFormat = format })).Value;
        Assert.That(JsonDocument.Parse(completion.Content[0].Text).RootElement.GetProperty("defect").GetBoolean());
        Assert.That(_engine.Requests.Single().Constraint!.JsonSchema, Does.Contain("boolean"));
    }

    [Test]
    public async Task ErrorsReachTheCaller()
    {
        var error = (await Assert.ThrowsAsync<ClientResultException>(async () => await _client.CompleteChatAsync([Question()], new ChatCompletionOptions { FrequencyPenalty = 1 })))!;
        var wrongKey = (await Assert.ThrowsAsync<ClientResultException>(async () => await Connect("k-124").GetChatClient(FakeEngine.Name).CompleteChatAsync(Question())))!;
        Assert.Multiple(() =>
        {
            Assert.That(error.Status, Is.EqualTo(400));
            Assert.That(error.Message, Does.Contain("frequency_penalty is not offered here"));
            Assert.That(wrongKey.Status, Is.EqualTo(401));
        });
    }

    [Test]
    public async Task Models()
    {
        var models = (await Connect(Key).GetOpenAIModelClient().GetModelsAsync()).Value;
        Assert.That(models.Select(model => model.Id), Is.EqualTo(new[] { FakeEngine.Name }));
    }

    [Test]
    public async Task ExtensionsPipeline()
    {
        using var pipeline = new ChatClientBuilder(_client.AsIChatClient()).UseFunctionInvocation().Build();
        var question = new Microsoft.Extensions.AI.ChatMessage(ChatRole.User, [new TextContent("Is it defective? "), new DataContent(Image, "image/png")]);
        var response = await pipeline.GetResponseAsync([question], new ChatOptions { MaxOutputTokens = 40, Seed = 5, TopK = null });
        var verdict = await pipeline.GetResponseAsync<Verdict>([question]);
        var streamed = string.Concat((await pipeline.GetStreamingResponseAsync([question]).ToChatResponseAsync()).Text);
        Assert.Multiple(() =>
        {
            Assert.That(response.Text, Is.EqualTo("You said Is it defective? [image of 7 bytes]"));
            Assert.That(response.Usage!.TotalTokenCount, Is.GreaterThan(16));
            Assert.That(verdict.Result, Is.EqualTo(new Verdict(true, "a crack")));
            Assert.That(streamed, Is.EqualTo(response.Text));
            Assert.That(_engine.Requests[0].Seed, Is.EqualTo(5ul));
        });
    }

    private static UserChatMessage Question() => ChatMessage.CreateUserMessage(
        ChatMessageContentPart.CreateTextPart("Is it defective? "), ChatMessageContentPart.CreateImagePart(BinaryData.FromBytes(Image), "image/png"));

    // No second try: a test wants the first answer.
    private OpenAIClient Connect(string key) => new(new ApiKeyCredential(key), new OpenAIClientOptions { Endpoint = new Uri(_server.Address, "v1"), RetryPolicy = new System.ClientModel.Primitives.ClientRetryPolicy(0) });

    private sealed record Verdict(bool Defect, string Reason);
}
