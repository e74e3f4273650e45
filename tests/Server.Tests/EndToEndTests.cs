using System.ClientModel;
using System.Net;
using System.Text.Json;
using LrIad.Engine.Serving;
using OpenAI;
using OpenAI.Chat;

namespace LrIad.Server.Tests;

/// <summary>The sample model behind the server, asked by OpenAI's client.</summary>
[TestFixture]
internal sealed class EndToEndTests
{
    private const string Chat = "/v1/chat/completions";

    private InferenceEngine _engine = null!;
    private TestServer _server = null!;
    private ChatClient _client = null!;

    [OneTimeSetUp]
    public async Task Start()
    {
        _engine = Sample.Load(new EngineLimits { Sequences = 8, PromptLength = 512, CompletionLength = 1024 });
        _server = await TestServer.StartAsync(_engine);
        _client = new OpenAIClient(new ApiKeyCredential("none"), new OpenAIClientOptions { Endpoint = new Uri(_server.Address, "v1") }).GetChatClient("tiny-qwen2-vl");
    }

    [OneTimeTearDown]
    public async Task Stop()
    {
        await _server.DisposeAsync();
        await _engine.DisposeAsync();
    }

    [Test]
    public async Task WholeStreamedAndByTheEngineItself()
    {
        var options = new ChatCompletionOptions { Temperature = 0, MaxOutputTokenCount = 40, IncludeLogProbabilities = true, TopLogProbabilityCount = 2 };
        var whole = (await _client.CompleteChatAsync([Question(0)], options)).Value;
        var streamed = "";
        await foreach (var update in _client.CompleteChatStreamingAsync([Question(0)], options))
        {
            streamed += string.Concat(update.ContentUpdate.Select(part => part.Text));
        }

        var direct = "";
        var prompt = new Conversation([new PromptMessage("user", [PromptPart.Of(new ImageData(Sample.Images[0])), PromptPart.Of("Is this part defective?")])]);
        await foreach (var update in _engine.StreamAsync(new GenerationRequest { Prompt = prompt, Temperature = 0, MaxTokens = 40 }))
        {
            direct += update.Text;
        }

        Assert.Multiple(() =>
        {
            Assert.That(direct, Is.Not.Empty);
            Assert.That((whole.Content[0].Text, streamed), Is.EqualTo((direct, direct)));

            // Greedy: the token drawn is the likeliest.
            Assert.That(whole.ContentTokenLogProbabilities.Select(token => token.LogProbability), Is.EqualTo(whole.ContentTokenLogProbabilities.Select(token => token.TopLogProbabilities[0].LogProbability)));
            Assert.That(whole.Usage.OutputTokenCount, Is.EqualTo(whole.ContentTokenLogProbabilities.Count));
        });
    }

    [Test]
    public async Task ASeedDrawsTheSameBesideOthers()
    {
        const string Fields = ""","n":3,"seed":5,"max_tokens":24""";
        var alone = await TextsAsync(1, Fields);
        var beside = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => TextsAsync(i % 4, i % 4 == 1 ? Fields : ""","max_tokens":24""")));
        Assert.Multiple(() =>
        {
            Assert.That(alone.Distinct().Count(), Is.GreaterThan(1));
            Assert.That(beside[1], Is.EqualTo(alone));
            Assert.That(beside[5], Is.EqualTo(alone));
        });
    }

    [Test]
    public async Task StructuredOutput()
    {
        var choice = await TextsAsync(2, ""","n":4,"structured_outputs":{"choice":["defective","fine"]}""");
        var format = ChatResponseFormat.CreateJsonSchemaFormat("verdict", BinaryData.FromString("""{"type":"object","properties":{"defect":{"type":"boolean"}},"required":["defect"],"additionalProperties":false}"""), jsonSchemaIsStrict: true);
        var json = (await _client.CompleteChatAsync([Question(2)], new ChatCompletionOptions { ResponseFormat = format })).Value.Content[0].Text;
        Assert.That(choice, Is.All.AnyOf("defective", "fine"));
        Assert.That(JsonDocument.Parse(json).RootElement.GetProperty("defect").ValueKind, Is.EqualTo(JsonValueKind.True).Or.EqualTo(JsonValueKind.False));
    }

    [TestCase("AQID", "image")]
    [TestCase("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk", "image")]
    public async Task ABrokenImageIsTheClientsError(string base64, string expected)
    {
        var (status, body) = await _server.AskAsync(Chat, Body($"data:image/png;base64,{base64}", ""));
        Assert.That(status, Is.EqualTo(HttpStatusCode.BadRequest), body.ToJsonString());
        Assert.That((string?)body["error"]!["message"], Does.Contain(expected));
    }

    [Test]
    public async Task APromptThatIsTooLong()
    {
        var (status, body) = await _server.AskAsync(Chat, $$"""{"messages":[{"role":"user","content":"{{string.Concat(Enumerable.Repeat("defect ", 1000))}}"}]}""");
        Assert.That((status, (string?)body["error"]!["type"]), Is.EqualTo((HttpStatusCode.BadRequest, "invalid_request_error")), body.ToJsonString());
    }

    [Test]
    public Task CancelledAmidAStream() => CancelMany(40);

    [Test]
    [Category("Full")]
    public Task AThousandCancelledAmidAStream() => CancelMany(1000);

    private async Task CancelMany(int count)
    {
        var before = _engine.Statistics;
        await Parallel.ForEachAsync(Enumerable.Range(0, count), new ParallelOptions { MaxDegreeOfParallelism = 32 }, async (i, _) =>
        {
            using var leaving = new CancellationTokenSource();
            using var request = new HttpRequestMessage(HttpMethod.Post, Chat) { Content = new StringContent(Body(Url(i), ""","stream":true,"ignore_eos":true"""), System.Text.Encoding.UTF8, "application/json") };
            using var response = await _server.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, leaving.Token);
            using var stream = await response.Content.ReadAsStreamAsync(leaving.Token);
            Assert.That(await stream.ReadAsync(new byte[1], leaving.Token), Is.EqualTo(1));
            await leaving.CancelAsync();
        });
        for (var i = 0; i < 1000 && _engine.Statistics is not { Running: 0, Waiting: 0 }; i++)
        {
            await Task.Delay(10);
        }

        var now = _engine.Statistics;
        Assert.That((now.Running, now.Waiting, now.FreeCacheBlocks), Is.EqualTo((0, 0, now.CacheBlocks)));

        // Each asks for 1,024 tokens; on a busy machine a client can be too late all the same.
        Assert.That(now.Cancelled + now.Finished - before.Cancelled - before.Finished, Is.EqualTo(count));
        Assert.That(now.Cancelled - before.Cancelled, Is.GreaterThan(count / 2));
        Assert.That(_server.Log, Is.Empty);
    }

    private async Task<string[]> TextsAsync(int image, string fields)
    {
        var (status, body) = await _server.AskAsync(Chat, Body(Url(image), fields));
        Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
        return [.. body["choices"]!.AsArray().Select(choice => (string)choice!["message"]!["content"]!)];
    }

    private static string Url(int image) => "data:image/png;base64," + Convert.ToBase64String(Sample.Images[image % Sample.Images.Count]);

    private static string Body(string url, string fields) =>
        $$"""{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"{{url}}"} },{"type":"text","text":"Is this part defective?"}]}]{{fields}}}""";

    private static UserChatMessage Question(int image) =>
        new(ChatMessageContentPart.CreateImagePart(BinaryData.FromBytes(Sample.Images[image]), "image/png"), ChatMessageContentPart.CreateTextPart("Is this part defective?"));
}
