using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace LrIad.Server.Tests;

/// <summary>Who may ask, and how much: keys, hosts, pages of other sites, and limits that hold while a request is read.</summary>
[TestFixture]
internal sealed class GuardTests
{
    private const string Chat = "/v1/chat/completions";
    private const string Hello = """{"messages":[{"role":"user","content":"hello there"}]}""";

    [Test]
    public async Task TheKeyGuardsEveryRoute()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine(), new ServerOptions { ApiKey = "k-123" });
        var routes = new[] { ("GET", "/health"), ("GET", "/metrics"), ("GET", "/v1/models"), ("GET", "/openapi.json"), ("POST", Chat), ("POST", "/v1/load_lora_adapter"), ("GET", "/nowhere") };
        foreach (var (method, path) in routes)
        {
            foreach (var key in new[] { null, "Bearer ", "Bearer k-12", "Bearer k-1234", "k-123", "Basic !", "Basic " + Base64("x:k-124") })
            {
                using var response = await SendAsync(server, method, path, key);
                Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.Unauthorized), $"{method} {path} {key}");
            }
        }

        foreach (var key in new[] { "Bearer k-123", "bearer k-123", "Basic " + Base64("anybody:k-123") })
        {
            using var response = await SendAsync(server, "POST", Chat, key);
            Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.OK), key);
        }
    }

    [TestCase("localhost:80", HttpStatusCode.OK)]
    [TestCase("127.0.0.1", HttpStatusCode.OK)]
    [TestCase("[::1]:8000", HttpStatusCode.OK)]
    [TestCase("evil.example", HttpStatusCode.Forbidden)]
    [TestCase("127.0.0.1.evil.example", HttpStatusCode.Forbidden)]
    [TestCase("192.168.1.1", HttpStatusCode.Forbidden)]
    public async Task ANameThatPointsHereIsNotEnough(string host, HttpStatusCode expected)
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/models") { Headers = { Host = host } };
        using var response = await server.Client.SendAsync(request);
        Assert.That(response.StatusCode, Is.EqualTo(expected));
    }

    // What a form of another site's page can send without the browser asking first.
    [TestCase("text/plain")]
    [TestCase("application/x-www-form-urlencoded")]
    [TestCase("multipart/form-data; boundary=x")]
    [TestCase(null)]
    public async Task AFormOfAnotherSiteIsRefused(string? type)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        using var content = new ByteArrayContent(Encoding.UTF8.GetBytes(Hello));
        content.Headers.ContentType = type is null ? null : MediaTypeHeaderValue.Parse(type);
        using var response = await server.Client.PostAsync(Chat, content);
        Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.UnsupportedMediaType));
        Assert.That(engine.Requests, Is.Empty);
    }

    [Test]
    public async Task NoOtherSiteIsLetIn()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        using var request = new HttpRequestMessage(HttpMethod.Options, Chat) { Headers = { { "Origin", "https://evil.example" }, { "Access-Control-Request-Method", "POST" } } };
        using var response = await server.Client.SendAsync(request);
        Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.MethodNotAllowed));
        Assert.That(response.Headers.Select(header => header.Key), Has.None.StartsWith("Access-Control"));
    }

    [Test]
    public async Task ABodyOverTheLimit([Values] bool chunked)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { BodyBytes = 1000 });
        using var request = new HttpRequestMessage(HttpMethod.Post, Chat) { Content = new StringContent(Hello + new string(' ', 2000), Encoding.UTF8, "application/json") };
        request.Headers.TransferEncodingChunked = chunked;
        using var response = await server.Client.SendAsync(request);
        var error = JsonNode.Parse(await response.Content.ReadAsStringAsync())!["error"]!;
        Assert.That((response.StatusCode, (string?)error["type"]), Is.EqualTo((HttpStatusCode.RequestEntityTooLarge, "invalid_request_error")));
        Assert.That(engine.Requests, Is.Empty);
    }

    [Test]
    public async Task AllBodiesTogether()
    {
        await using var engine = new FakeEngine { TokenTime = TimeSpan.FromMilliseconds(-1) };
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { AllBodiesBytes = 3000 });
        using var leaving = new CancellationTokenSource();
        var padded = Hello + new string(' ', 1900);
        var first = server.PostAsync(Chat, padded, leaving.Token);
        await Until(() => engine.Statistics.Running == 1);
        var (second, _) = await server.AskAsync(Chat, padded);
        await leaving.CancelAsync();
        Assert.That(async () => await first, Throws.InstanceOf<OperationCanceledException>());
        await Until(() => engine.Statistics.Running == 0);
        engine.TokenTime = TimeSpan.Zero;
        var (third, _) = await server.AskAsync(Chat, padded);
        Assert.That((second, third), Is.EqualTo((HttpStatusCode.TooManyRequests, HttpStatusCode.OK)));
    }

    [Test]
    public async Task DeepJson()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        var (status, _) = await server.AskAsync(Chat, string.Concat(Enumerable.Repeat("{\"a\":", 100_000)));
        Assert.That(status, Is.EqualTo(HttpStatusCode.BadRequest));
    }

    [Test]
    public async Task ALongPromptIsRefusedBeforeItsTokensAreCounted()
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        var (status, body) = await server.AskAsync(Chat, Hello.Replace("hello", new string('a', 600_000), StringComparison.Ordinal));
        Assert.That((status, (string?)body["error"]!["param"]), Is.EqualTo((HttpStatusCode.BadRequest, "messages")));
    }

    [Test]
    public async Task HeadersThatNeverEnd()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine(), new ServerOptions { HeaderTime = TimeSpan.FromSeconds(1) });
        using var socket = new TcpClient();
        await socket.ConnectAsync(IPAddress.Loopback, server.Address.Port);
        await socket.GetStream().WriteAsync(Encoding.ASCII.GetBytes("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "));
        var answer = await new StreamReader(socket.GetStream()).ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(10));
        Assert.That(answer, Does.StartWith("HTTP/1.1 408"));
    }

    [Test]
    public async Task ConnectionsOverTheLimit()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine(), new ServerOptions { Connections = 2 });
        using var first = new TcpClient();
        using var second = new TcpClient();
        await first.ConnectAsync(IPAddress.Loopback, server.Address.Port);
        await second.ConnectAsync(IPAddress.Loopback, server.Address.Port);
        await AnswersAsync(first);
        await AnswersAsync(second);
        Assert.That(async () => await server.Client.GetAsync("/health"), Throws.InstanceOf<HttpRequestException>());
    }

    [Test]
    public async Task StoppingLetsRunningRequestsFinish()
    {
        await using var engine = new FakeEngine { TokenTime = TimeSpan.FromMilliseconds(50) };
        await using var server = await TestServer.StartAsync(engine);
        var asked = server.AskAsync(Chat, Hello);
        await Until(() => engine.Statistics.Running == 1);
        await server.StopAsync();
        Assert.That((await asked).Status, Is.EqualTo(HttpStatusCode.OK));
        Assert.That(async () => await server.Client.GetAsync("/health"), Throws.InstanceOf<HttpRequestException>());
    }

    [Test]
    public async Task StoppingDoesNotWaitForEver()
    {
        await using var engine = new FakeEngine { TokenTime = TimeSpan.FromMilliseconds(-1) };
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { StopTime = TimeSpan.FromMilliseconds(200) });
        var asked = server.AskAsync(Chat, Hello);
        await Until(() => engine.Statistics.Running == 1);
        await server.StopAsync().WaitAsync(TimeSpan.FromSeconds(10));
        Assert.That(async () => await asked, Throws.InstanceOf<HttpRequestException>());
        await Until(() => engine.Statistics is { Running: 0, Cancelled: 1 });
    }

    [Test]
    public async Task TheDocumentNamesTheRoutes()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        var document = JsonNode.Parse(await server.Client.GetStringAsync("/openapi.json"))!;
        Assert.That(document["paths"]!.AsObject().Select(path => path.Key), Is.SupersetOf(new[] { Chat, "/v1/models", "/health", "/metrics", "/v1/load_lora_adapter", "/v1/unload_lora_adapter" }));
    }

    // What the document says of a request is kept by hand: each field it names is one that is read.
    [Test]
    public async Task TheDocumentNamesTheFieldsThatAreRead()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        var schemas = JsonNode.Parse(await server.Client.GetStringAsync("/openapi.json"))!["components"]!["schemas"]!;
        foreach (var field in schemas["ChatBody"]!["properties"]!.AsObject().Select(property => property.Key))
        {
            var body = JsonNode.Parse(Hello)!.AsObject();
            body[field] = new JsonArray(new JsonArray());
            var (status, answer) = await server.AskAsync(Chat, body.ToJsonString());
            Assert.That((status, (string?)answer["error"]!["param"]), Is.EqualTo((HttpStatusCode.BadRequest, field is "messages" or "stop" ? field + "[0]" : field)));
        }

        Assert.That(schemas["ChatChoice"]!["properties"]!.AsObject().Select(property => property.Key), Is.EquivalentTo(new[] { "index", "message", "logprobs", "finish_reason" }));
    }

    private static async Task<HttpResponseMessage> SendAsync(TestServer server, string method, string path, string? key)
    {
        using var request = new HttpRequestMessage(new HttpMethod(method), path);
        if (key is not null)
        {
            request.Headers.TryAddWithoutValidation("Authorization", key);
        }

        if (method == "POST")
        {
            request.Content = new StringContent(Hello, Encoding.UTF8, "application/json");
        }

        return await server.Client.SendAsync(request);
    }

    private static async Task AnswersAsync(TcpClient client)
    {
        await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        Assert.That(await client.GetStream().ReadAsync(new byte[100]), Is.GreaterThan(0));
    }

    private static string Base64(string text) => Convert.ToBase64String(Encoding.UTF8.GetBytes(text));

    private static async Task Until(Func<bool> condition)
    {
        for (var i = 0; i < 500 && !condition(); i++)
        {
            await Task.Delay(10);
        }

        Assert.That(condition(), "not within five seconds");
    }
}
