using System.Net;
using System.Net.Http.Headers;
using System.Text.Json.Nodes;
using LrIad.Engine;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>Inspections of an image: as JSON and as a form, whole and streamed.</summary>
[TestFixture]
internal sealed class InspectTests
{
    private const string Path = "/inspect", Defect = "<think>There is a long scratch.</think> <answer> A </answer>";

    private FakeEngine _engine = null!;
    private TestServer _server = null!;

    [SetUp]
    public Task Start() => StartAsync(Defect);

    [TearDown]
    public async Task Stop()
    {
        await _server.DisposeAsync();
        await _engine.DisposeAsync();
    }

    [Test]
    public async Task AnImageInJson()
    {
        var (status, body) = await _server.AskAsync(Path, Ask());
        Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
        Assert.That(JsonNode.DeepEquals(body, JsonNode.Parse($$"""
            {"image_path":"image","object":"metal_nut","pred_label":1,"pred_score":1.5,"threshold":null,"answer_label":1,"explanation":"There is a long scratch.","completion":"{{Defect}}","valid":true,"problem":null,
            "usage":{"prompt_tokens":69,"completion_tokens":9} }
            """)), Is.True, body.ToJsonString());
        var request = _engine.Requests.Single();
        var parts = ((Conversation)request.Prompt).Messages.Single().Parts;
        Assert.Multiple(() =>
        {
            Assert.That((request.Temperature, request.MaxTokens, request.Probe, request.Adapter), Is.EqualTo((0f, (int?)256, true, (string?)null)));
            Assert.That(parts[0].Image?.Bytes.ToArray(), Is.EqualTo(new byte[] { 1, 2, 3 }));
            Assert.That(parts[1].Text, Does.Contain("metal nut"));
        });
    }

    [Test]
    public async Task AFormWithFiles()
    {
        using var form = new MultipartFormDataContent
        {
            { File(4, 5), "image", "part 7.png" }, { File(1), "references", "good.png" }, { File(2), "references", "good2.png" },
            { new StringContent("tile"), "object" }, { new StringContent("2.5"), "threshold" }, { new StringContent("64"), "max_tokens" },
        };
        using var response = await _server.Client.PostAsync(Path, form);
        var body = JsonNode.Parse(await response.Content.ReadAsStringAsync())!;
        Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
        var request = _engine.Requests.Single();
        Assert.Multiple(() =>
        {
            Assert.That(((string?)body["image_path"], (int?)body["pred_label"], (int?)body["answer_label"], (double?)body["threshold"]), Is.EqualTo(("part 7.png", (int?)0, (int?)1, (double?)2.5)), "the score is below the threshold");
            Assert.That(((Conversation)request.Prompt).Messages.Single().Parts.Select(part => part.Image?.Bytes.Length), Is.EqualTo(new int?[] { 1, 1, 2, null }), "references come first");
            Assert.That(request.MaxTokens, Is.EqualTo(64));
        });
    }

    [Test]
    public async Task AStreamTellsTheScoreFirstAndTheVerdictLast()
    {
        using var response = await _server.PostAsync(Path, Ask(""","stream":true"""));
        var lines = (await response.Content.ReadAsStringAsync()).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Multiple(() =>
        {
            Assert.That(response.Content.Headers.ContentType!.MediaType, Is.EqualTo("application/x-ndjson"));
            Assert.That(lines[0], Is.EqualTo("""{"pred_score":1.5}"""));
            Assert.That(lines[1], Is.EqualTo("""{"text":"<think>There"}"""));
            Assert.That(string.Concat(lines[1..^1].Select(line => (string)JsonNode.Parse(line)!["text"]!)), Is.EqualTo(Defect));
            Assert.That((int?)JsonNode.Parse(lines[^1])!["pred_label"], Is.EqualTo(1));
        });
    }

    [Test]
    public async Task WhatFailsOnTheWayIsALineOfItsOwn()
    {
        _engine.LateFailure = (2, new TimeoutException("It took too long."));
        using var response = await _server.PostAsync(Path, Ask(""","stream":true"""));
        var lines = (await response.Content.ReadAsStringAsync()).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.That((response.StatusCode, lines[^1]), Is.EqualTo((HttpStatusCode.OK, """{"error":{"message":"It took too long.","type":"timeout_error","param":null,"code":"timeout"}}""")));
    }

    [Test]
    public async Task WhatFailsBeforeHasAStatus()
    {
        _engine.Failure = new InputException("image is truncated.");
        var (status, body) = await _server.AskAsync(Path, Ask(""","stream":true"""));
        Assert.That((status, (string?)body["error"]!["message"]), Is.EqualTo((HttpStatusCode.BadRequest, "image is truncated.")));
    }

    [TestCase("It is fine.", "no tags")]
    [TestCase("<think>a</think> <answer> C </answer>", "bad option")]
    public async Task AnInvalidAnswerHasNoLabelAndSaysWhy(string answer, string problem)
    {
        await Stop();
        await StartAsync(answer);
        var (_, body) = await _server.AskAsync(Path, Ask());
        Assert.That(((int?)body["pred_label"], (bool)body["valid"]!, (string?)body["problem"], (string?)body["explanation"]), Is.EqualTo(((int?)null, false, problem, answer)));
    }

    [Test]
    public async Task AnAdapterIsSwitchedOn()
    {
        var folder = Directory.CreateTempSubdirectory("lriad-adapter-").FullName;
        await System.IO.File.WriteAllTextAsync(System.IO.Path.Combine(folder, "adapter_config.json"), "{}");
        await _engine.LoadAdapterAsync("step-40", folder);
        await _server.AskAsync(Path, Ask(""","adapter":"step-40" """));
        Assert.That(_engine.Requests.Single().Adapter, Is.EqualTo("step-40"));
        Directory.Delete(folder, recursive: true);
    }

    [TestCase("""{"object":"tile"}""", "image is missing.")]
    [TestCase("""{"image":"data:image/png;base64,AQID"}""", "object is missing.")]
    [TestCase("""{"image":"data:image/png;base64,AQID","object":" "}""", "object must name what the image shows, in at most 200 characters.")]
    [TestCase("""{"image":"https://example.org/a.png","object":"tile"}""", "image names an image elsewhere on the network, which this server never fetches: send the image itself, as data:image/png;base64,….")]
    [TestCase("""{"image":"data:image/png;base64,AQID","object":"tile","threshold":"high"}""", null)]
    [TestCase("""{"image":"data:image/png;base64,AQID","object":"tile","max_tokens":0}""", "max_tokens must be a whole number from 1 to 1024.")]
    [TestCase("""{"image":"data:image/png;base64,AQID","object":"tile","references":["","","","","","","",""]}""", "references must be fewer than the 8 images a request may have here.")]
    [TestCase("""{"image":"data:image/png;base64,AQID","object":"tile","adapter":"other"}""", "There is no model 'other' here; /v1/models lists them.")]
    public async Task WhatIsWrongIsSaid(string json, string? message)
    {
        var (status, body) = await _server.AskAsync(Path, json);
        Assert.That((int)status, Is.EqualTo(message?.StartsWith("There", StringComparison.Ordinal) == true ? 404 : 400));
        Assert.That((string?)body["error"]!["message"], message is null ? Does.StartWith("threshold must be a number") : Is.EqualTo(message));
        Assert.That(_engine.Requests, Is.Empty);
    }

    [TestCase("image", "", "'image' is larger than the 10 bytes an image may have here.")]
    [TestCase("other", "image", "image is missing.")]
    public async Task FormsAreBoundedWhileTheyAreRead(string name, string small, string message)
    {
        await Stop();
        _server = await TestServer.StartAsync(_engine = new FakeEngine(), new ServerOptions { ImageBytes = 10 });
        using var form = new MultipartFormDataContent { { File(new byte[name == "image" ? 11 : 1]), name, "a.png" } };
        using var response = await _server.Client.PostAsync(Path, form);
        Assert.That((string?)JsonNode.Parse(await response.Content.ReadAsStringAsync())!["error"]!["message"], Is.EqualTo(message), small);
    }

    [Test]
    public async Task HalfAFormIsRefused()
    {
        using var content = new StringContent("--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\nabc");
        content.Headers.ContentType = MediaTypeHeaderValue.Parse("multipart/form-data; boundary=x");
        using var response = await _server.Client.PostAsync(Path, content);
        Assert.That((response.StatusCode, (string?)JsonNode.Parse(await response.Content.ReadAsStringAsync())!["error"]!["message"]), Is.EqualTo((HttpStatusCode.BadRequest, "The body is not a whole form of the kind multipart/form-data.")));
    }

    [TestCase(null, HttpStatusCode.OK)]
    [TestCase("own", HttpStatusCode.OK)]
    [TestCase("https://evil.example", HttpStatusCode.UnsupportedMediaType)]
    [TestCase("null", HttpStatusCode.UnsupportedMediaType)]
    public async Task FormsOfOtherSitesAreRefused(string? origin, HttpStatusCode status)
    {
        using var form = new MultipartFormDataContent { { File(1), "image", "a.png" }, { new StringContent("tile"), "object" } };
        using var request = new HttpRequestMessage(HttpMethod.Post, Path) { Content = form };
        if (origin is not null)
        {
            request.Headers.Add("Origin", origin == "own" ? _server.Address.GetLeftPart(UriPartial.Authority) : origin);
        }

        using var response = await _server.Client.SendAsync(request);
        Assert.That(response.StatusCode, Is.EqualTo(status));
    }

    // What the document says of requests is kept by hand: each field it names is one that is read.
    [TestCase("InspectBody", Path, """{"image":"data:image/png;base64,AQID","object":"tile"}""")]
    [TestCase("JobBody", "/inspect/jobs", """{"folder":"x","object":"tile"}""")]
    public async Task TheDocumentNamesTheFieldsThatAreRead(string schema, string path, string valid)
    {
        var schemas = JsonNode.Parse(await _server.Client.GetStringAsync("/openapi.json"))!["components"]!["schemas"]!;
        foreach (var field in schemas[schema]!["properties"]!.AsObject().Select(property => property.Key))
        {
            var body = JsonNode.Parse(valid)!.AsObject();
            body[field] = new JsonArray(new JsonArray());
            var (status, answer) = await _server.AskAsync(path, body.ToJsonString());
            Assert.That((status, (string?)answer["error"]!["param"]), Is.EqualTo((HttpStatusCode.BadRequest, field == "references" ? field + "[0]" : field)));
        }
    }

    private static string Ask(string more = "") => $$"""{"image":"data:image/png;base64,AQID","object":"metal_nut"{{more}}}""";

    private static ByteArrayContent File(params byte[] bytes) => new(bytes);

    private async Task StartAsync(string answer) => _server = await TestServer.StartAsync(_engine = new FakeEngine { Answer = (_, _) => answer });
}
