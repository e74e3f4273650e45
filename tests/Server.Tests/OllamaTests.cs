using System.Net;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;
using Microsoft.Extensions.AI;
using OllamaSharp;
using OllamaSharp.Models;
using OllamaSharp.Models.Chat;

namespace LrIad.Server.Tests;

/// <summary>Ollama's protocol: recorded requests, and OllamaSharp as a client.</summary>
[TestFixture]
internal sealed class OllamaTests : ServerTests
{
    private const string Path = "/api/chat";
    private static readonly byte[] Image = [1, 2, 3, 4, 5];

    [Test]
    public async Task ItStreamsLinesUnlessToldNotTo()
    {
        using var response = await Server.PostAsync(Path, Hello());
        var lines = Lines(await response.Content.ReadAsStringAsync());
        Assert.Multiple(() =>
        {
            Assert.That(response.Content.Headers.ContentType!.MediaType, Is.EqualTo("application/x-ndjson"));
            Assert.That(lines.Select(line => (string)line["message"]!["content"]!), Is.EqualTo(new[] { "You", " said", " hello", " there", "" }));
            Assert.That(lines.Select(line => (bool)line["done"]!), Is.EqualTo(new[] { false, false, false, false, true }));
            Assert.That(lines[0].AsObject().Select(field => field.Key), Is.EquivalentTo(new[] { "model", "created_at", "message", "done" }));
            Assert.That(lines[^1].AsObject().Select(field => field.Key), Is.EquivalentTo(new[]
            {
                "model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
            }));
            Assert.That(((string?)lines[^1]["done_reason"], (int)lines[^1]["prompt_eval_count"]!, (int)lines[^1]["eval_count"]!), Is.EqualTo(("stop", 2, 4)));
            Assert.That((long)lines[^1]["total_duration"]!, Is.EqualTo((long)lines[^1]["prompt_eval_duration"]! + (long)lines[^1]["eval_duration"]!).Within(10_000_000));
        });
    }

    [Test]
    public async Task Whole()
    {
        var (status, body) = await Server.AskAsync(Path, Hello(""","stream":false,"options":{"num_predict":2}"""));
        Assert.Multiple(() =>
        {
            Assert.That(status, Is.EqualTo(HttpStatusCode.OK));
            Assert.That(body["message"]!.ToJsonString(), Is.EqualTo("""{"content":"You said","role":"assistant"}"""));
            Assert.That(((bool)body["done"]!, (string?)body["done_reason"], (int)body["eval_count"]!), Is.EqualTo((true, "length", 2)));
        });
    }

    [Test]
    public async Task OptionsAndOllamasDefaults()
    {
        await Server.AskAsync(Path, Hello(""","stream":false"""));
        await Server.AskAsync(Path, Hello(""","stream":false,"keep_alive":"5m","options":{"temperature":0,"top_p":0.5,"top_k":3,"seed":7,"num_predict":9999,"stop":["x","y"],"num_ctx":4096,"repeat_penalty":1.0}"""));
        await Server.AskAsync(Path, Hello(""","stream":false,"options":{"num_predict":-1,"seed":-1,"stop":"z"}"""));
        var found = Engine.Requests.Select(request => (request.Temperature, request.TopP, request.TopK, request.Seed, request.MaxTokens, string.Join(' ', request.Stop)));
        Assert.That(found, Is.EqualTo(new[] { (0.8f, 0.9f, 40, (ulong?)null, (int?)null, ""), (0f, 0.5f, 3, 7UL, 1024, "x y"), (0.8f, 0.9f, 40, null, null, "z") }));
    }

    [Test]
    public async Task ImagesComeBeforeTheText()
    {
        await Server.AskAsync(Path, $$"""{"model":"{{FakeEngine.Name}}","stream":false,"messages":[{"role":"user","content":"Is it whole?","images":["{{Convert.ToBase64String(Image)}}"]}]}""");
        var parts = ((Conversation)Engine.Requests.Single().Prompt).Messages.Single().Parts;
        Assert.That((parts[0].Image?.Bytes.ToArray(), parts[1].Text), Is.EqualTo((Image, "Is it whole?")));
    }

    [TestCase("\"json\"", """{"type":"object"}""")]
    [TestCase("""{"type":"object","properties":{"a":{"type":"integer"}}}""", """{"type":"object","properties":{"a":{"type":"integer"}}}""")]
    [TestCase("\"\"", null)]
    [TestCase("null", null)]
    public async Task Format(string format, string? schema)
    {
        await Server.AskAsync(Path, Hello($$""","stream":false,"format":{{format}}"""));
        Assert.That(Engine.Requests.Single().Constraint?.JsonSchema, Is.EqualTo(schema));
    }

    [TestCase(""","options":{"repeat_penalty":1.1}""", "options.repeat_penalty is not offered here: leave it out, or 1.")]
    [TestCase(""","options":{"min_p":0.05}""", "options.min_p is not offered here: leave it out, or 0.")]
    [TestCase(""","options":{"temperature":"hot"}""", "options.temperature must be a number from 0 to 100.")]
    [TestCase(""","tools":[{"type":"function"}]""", "tools cannot be used: this model calls no tools.")]
    [TestCase(""","think":true""", "think cannot be used: this model does not think apart from its answer.")]
    [TestCase(""","format":"xml" """, "format must be \"json\" or a JSON schema.")]
    [TestCase(""","logprobs":true,"top_logprobs":21""", "top_logprobs must be a whole number from 0 to 20.")]
    public async Task WhatIsNotOfferedIsRefusedInOllamasForm(string more, string error)
    {
        var (status, body) = await Server.AskAsync(Path, Hello(more));
        Assert.That((status, (string?)body["error"], body.AsObject().Count), Is.EqualTo((HttpStatusCode.BadRequest, error, 1)));
        Assert.That(Engine.Requests, Is.Empty);
    }

    [TestCase("""[{"role":"tool","content":"a"}]""", "messages[0].role must be system, user or assistant, not 'tool'.")]
    [TestCase("""[{"role":"user","content":"a","images":["%"]}]""", "messages[0].images[0] is not an image in base64.")]
    [TestCase("""[{"role":"user","content":"a","images":["","","","","","","","",""]}]""", "messages have more than the 8 images a request may have here.")]
    public async Task WrongMessagesAreRefused(string messages, string error)
    {
        var (status, body) = await Server.AskAsync(Path, $$"""{"model":"{{FakeEngine.Name}}","messages":{{messages}}}""");
        Assert.That((status, (string?)body["error"]), Is.EqualTo((HttpStatusCode.BadRequest, error)));
    }

    [Test]
    public async Task AnUnknownModelIsNotFound()
    {
        var (status, body) = await Server.AskAsync(Path, """{"model":"llama3.2","messages":[{"role":"user","content":"a"}]}""");
        Assert.That((status, (string?)body["error"]), Is.EqualTo((HttpStatusCode.NotFound, "There is no model 'llama3.2' here; /v1/models lists them.")));
    }

    [Test]
    public async Task WhatFailsOnTheWayIsALineOfItsOwn()
    {
        Engine.LateFailure = (2, new TimeoutException("It took too long."));
        using var response = await Server.PostAsync(Path, Hello());
        var lines = Lines(await response.Content.ReadAsStringAsync());
        Assert.That((lines.Count, lines[^1].ToJsonString()), Is.EqualTo((3, """{"error":"It took too long."}""")));
    }

    [Test]
    public async Task WithoutMessagesTheModelIsLoadedAlready()
    {
        var (_, body) = await Server.AskAsync(Path, $$"""{"model":"{{FakeEngine.Name}}"}""");
        Assert.That(((bool)body["done"]!, (string?)body["done_reason"]), Is.EqualTo((true, "load")));
    }

    [Test]
    public async Task WhatClientsAskForAtOnce()
    {
        var tags = JsonNode.Parse(await Server.Client.GetStringAsync("/api/tags"))!["models"]!.AsArray();
        var (_, show) = await Server.AskAsync("/api/show", $$"""{"model":"{{FakeEngine.Name}}"}""");
        using var root = await Server.Client.SendAsync(new HttpRequestMessage(HttpMethod.Head, "/"));
        Assert.Multiple(() =>
        {
            Assert.That(tags.Select(model => (string?)model!["name"]), Is.EqualTo(new[] { FakeEngine.Name + ":latest" }));
            Assert.That((string?)tags[0]!["details"]!["family"], Is.EqualTo("qwen2vl"));
            Assert.That(show["capabilities"]!.ToJsonString(), Is.EqualTo("""["completion","vision"]"""));
            Assert.That(root.StatusCode, Is.EqualTo(HttpStatusCode.OK));
        });
    }

    [Test]
    public async Task OllamaSharpListsAndChats()
    {
        using var client = new OllamaApiClient(Server.Client, FakeEngine.Name);
        Assert.That(await client.IsRunningAsync(), Is.True);
        Assert.That(await client.GetVersionAsync(), Is.EqualTo("0.12.11"));
        var model = (await client.ListLocalModelsAsync()).Single();
        Assert.That((await client.ShowModelAsync(model.Name)).Details.Family, Is.EqualTo("qwen2vl"));

        var request = new ChatRequest
        {
            Model = model.Name,
            Messages = [new Message(OllamaSharp.Models.Chat.ChatRole.User, "Is it whole?", [Convert.ToBase64String(Image)])],
            Options = new RequestOptions { Temperature = 0, Seed = 3 },
        };
        var (text, last) = ("", (ChatDoneResponseStream?)null);
        await foreach (var part in client.ChatAsync(request))
        {
            text += part!.Message.Content;
            last = part as ChatDoneResponseStream ?? last;
        }

        Assert.Multiple(() =>
        {
            Assert.That(text, Is.EqualTo("You said [image of 5 bytes]Is it whole?"));
            Assert.That((last?.DoneReason, last?.PromptEvalCount, last?.EvalCount), Is.EqualTo(("stop", 19, 8)));
        });
    }

    [Test]
    public async Task OllamaSharpIsAChatClientToo()
    {
        using var ollama = new OllamaApiClient(Server.Client, FakeEngine.Name);
        IChatClient client = ollama;
        var answer = await client.GetResponseAsync([new(Microsoft.Extensions.AI.ChatRole.User, [new DataContent(Image, "image/png"), new TextContent("What?")])], new ChatOptions { MaxOutputTokens = 5, ResponseFormat = ChatResponseFormat.Json });
        Assert.Multiple(() =>
        {
            Assert.That(answer.Text, Is.EqualTo("You said [image of 5"));
            Assert.That(answer.FinishReason, Is.EqualTo(ChatFinishReason.Length));
            Assert.That(Engine.Requests.Single().Constraint, Is.Not.Null);
        });
    }

    private static string Hello(string more = "") => $$"""{"model":"{{FakeEngine.Name}}","messages":[{"role":"user","content":"hello there"}]{{more}}}""";

    private static List<JsonNode> Lines(string text) => [.. text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonNode.Parse(line)!)];
}
