using System.Net;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>Chat completions as they go over the wire.</summary>
[TestFixture]
internal sealed class ChatTests : ServerTests
{
    private const string Path = "/v1/chat/completions";

    [Test]
    public async Task Whole()
    {
        var (status, body) = await Server.AskAsync(Path, Hello());
        var choice = body["choices"]!.AsArray().Single()!;
        Assert.Multiple(() =>
        {
            Assert.That(status, Is.EqualTo(HttpStatusCode.OK));
            Assert.That(((string?)body["object"], (string?)body["model"]), Is.EqualTo(("chat.completion", FakeEngine.Name)));
            Assert.That((string?)body["id"], Does.StartWith("chatcmpl-"));
            Assert.That(choice["message"]!.ToJsonString(), Is.EqualTo("""{"role":"assistant","content":"You said hello there"}"""));
            Assert.That(((string?)choice["finish_reason"], choice["logprobs"]), Is.EqualTo(("stop", (JsonNode?)null)));
            Assert.That(body["usage"]!.ToJsonString(), Is.EqualTo("""{"prompt_tokens":2,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":6}"""));
        });
    }

    [Test]
    public async Task Streamed()
    {
        using var response = await Server.PostAsync(Path, Hello(""","stream":true,"stream_options":{"include_usage":true}"""));
        var events = Events(await response.Content.ReadAsStringAsync());
        Assert.Multiple(() =>
        {
            Assert.That(response.Content.Headers.ContentType!.MediaType, Is.EqualTo("text/event-stream"));
            Assert.That(events[^1], Is.EqualTo("[DONE]"));
            Assert.That(JsonNode.Parse(events[0])!["choices"]![0]!["delta"]!.ToJsonString(), Is.EqualTo("""{"role":"assistant","content":""}"""));
            Assert.That(Text(events), Is.EqualTo("You said hello there"));
            Assert.That(events[..^1].Select(json => JsonNode.Parse(json)!).Select(chunk => ((string?)chunk["object"], (string?)chunk["id"])).Distinct().Count(), Is.EqualTo(1));
            Assert.That((string?)JsonNode.Parse(events[^3])!["choices"]![0]!["finish_reason"], Is.EqualTo("stop"));
            Assert.That(JsonNode.Parse(events[^2])!["choices"]!.AsArray(), Is.Empty);
            Assert.That((int)JsonNode.Parse(events[^2])!["usage"]!["total_tokens"]!, Is.EqualTo(6));
        });
    }

    [Test]
    public async Task StreamWithoutUsageHasNone()
    {
        using var response = await Server.PostAsync(Path, Hello(""","stream":true"""));
        Assert.That(await response.Content.ReadAsStringAsync(), Does.Not.Contain("usage").And.Contain("[DONE]"));
    }

    [Test]
    public async Task SeveralCompletionsKeepApart()
    {
        var (_, whole) = await Server.AskAsync(Path, Hello(""","n":3"""));
        using var response = await Server.PostAsync(Path, Hello(""","n":3,"stream":true"""));
        var events = Events(await response.Content.ReadAsStringAsync());
        var texts = whole["choices"]!.AsArray().Select(choice => (string)choice!["message"]!["content"]!).ToArray();
        Assert.Multiple(() =>
        {
            Assert.That(texts, Is.EqualTo(new[] { "You said hello there", "You said hello there (1)", "You said hello there (2)" }));
            Assert.That(Enumerable.Range(0, 3).Select(index => Text(events, index)), Is.EqualTo(texts));
        });
    }

    [Test]
    public async Task LogProbs()
    {
        var (_, body) = await Server.AskAsync(Path, Hello(""","logprobs":true,"top_logprobs":2,"max_tokens":2"""));
        var choice = body["choices"]![0]!;
        Assert.Multiple(() =>
        {
            Assert.That((string?)choice["finish_reason"], Is.EqualTo("length"));
            Assert.That(choice["logprobs"]!["content"]!.ToJsonString(), Is.EqualTo(
                """[{"token":"You","logprob":-0.125,"bytes":[89,111,117],"top_logprobs":[{"token":"You","logprob":-0.125,"bytes":[89,111,117]},{"token":" other1","logprob":-0.25,"bytes":[32,111,116,104,101,114,49]}]},"""
                + """{"token":" said","logprob":-0.25,"bytes":[32,115,97,105,100],"top_logprobs":[{"token":" said","logprob":-0.25,"bytes":[32,115,97,105,100]},{"token":" other1","logprob":-0.375,"bytes":[32,111,116,104,101,114,49]}]}]"""));
        });
    }

    [Test]
    public async Task StreamedLogProbsAreThoseOfTheWhole()
    {
        var (_, whole) = await Server.AskAsync(Path, Hello(""","logprobs":true"""));
        using var response = await Server.PostAsync(Path, Hello(""","logprobs":true,"stream":true"""));
        var streamed = Events(await response.Content.ReadAsStringAsync())[..^1].SelectMany(json => JsonNode.Parse(json)!["choices"]![0]!["logprobs"]?["content"]!.AsArray().Select(token => token!.ToJsonString()) ?? []);
        Assert.That(streamed, Is.EqualTo(whole["choices"]![0]!["logprobs"]!["content"]!.AsArray().Select(token => token!.ToJsonString())));
    }

    [Test]
    public async Task SamplingReachesTheEngine()
    {
        await Server.AskAsync(Path, Hello(""","temperature":0.25,"top_p":0.5,"top_k":7,"seed":-1,"stop":["x","y"],"max_completion_tokens":3,"max_tokens":9,"ignore_eos":true"""));
        await Server.AskAsync(Path, Hello(""","temperature":null,"top_k":-1,"stop":"said" """));
        var (first, second) = (Engine.Requests[0], Engine.Requests[1]);
        Assert.Multiple(() =>
        {
            Assert.That((first.Temperature, first.TopP, first.TopK, first.Seed, first.MaxTokens, first.IgnoreEnd), Is.EqualTo((0.25f, 0.5f, 7, (ulong?)ulong.MaxValue, (int?)3, true)));
            Assert.That(first.Stop, Is.EqualTo(new[] { "x", "y" }));
            Assert.That((second.Temperature, second.TopP, second.TopK, second.Seed, second.MaxTokens), Is.EqualTo((1f, 1f, 0, (ulong?)null, (int?)null)));
            Assert.That(second.Stop, Is.EqualTo(new[] { "said" }));
            Assert.That(first.Client, Is.EqualTo("127.0.0.1"));
        });
    }

    [Test]
    public async Task StopTextIsNotTold()
    {
        var (_, body) = await Server.AskAsync(Path, Hello(""","stop":"hello" """));
        Assert.That((string?)body["choices"]![0]!["message"]!["content"], Is.EqualTo("You said "));
    }

    [Test]
    public async Task MessagesReachTheEngine()
    {
        await Server.AskAsync(Path, """
            {"messages":[{"role":"developer","content":"Be short."},{"role":"user","content":[{"type":"text","text":"Is <|im_end|>"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AQID","detail":"high"}}]},
             {"role":"assistant","content":"No.","tool_calls":[]},{"role":"user","content":"Sure?","name":"Bob"}],"metadata":{"a":"b"},"user":"x","unheard_of":{"y":[1]}}
            """);
        var messages = ((Conversation)Engine.Requests.Single().Prompt).Messages;
        Assert.Multiple(() =>
        {
            Assert.That(messages.Select(message => message.Role), Is.EqualTo(new[] { "system", "user", "assistant", "user" }));
            Assert.That(messages[1].Parts[0].Text, Is.EqualTo("Is <|im_end|>"));
            Assert.That(messages[1].Parts[1].Image!.Bytes.ToArray(), Is.EqualTo(new byte[] { 1, 2, 3 }));
        });
    }

    [TestCase(""","response_format":{"type":"text"}""", null, null)]
    [TestCase(""","response_format":{"type":"json_object"}""", "schema", """{"type":"object"}""")]
    [TestCase(""","response_format":{"type":"json_schema","json_schema":{"name":"v","strict":true,"schema":{"type":"integer"}}}""", "schema", """{"type":"integer"}""")]
    [TestCase(""","structured_outputs":{"json":{"type":"integer"}}""", "schema", """{"type":"integer"}""")]
    [TestCase(""","structured_outputs":{"regex":"a+"}""", "regex", "a+")]
    [TestCase(""","structured_outputs":{"choice":["yes","no"]}""", "choice", "yes|no")]
    [TestCase(""","guided_json":"{\"type\":\"integer\"}" """, "schema", """{"type":"integer"}""")]
    [TestCase(""","guided_regex":"a+" """, "regex", "a+")]
    [TestCase(""","guided_choice":["yes","no"]""", "choice", "yes|no")]
    public async Task ConstraintsReachTheEngine(string fields, string? kind, string? value)
    {
        var (status, body) = await Server.AskAsync(Path, Hello(fields));
        Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
        var constraint = Engine.Requests.Single().Constraint;
        Assert.That((constraint?.JsonSchema, constraint?.Regex, constraint?.Choices is { } choices ? string.Join('|', choices) : null),
            Is.EqualTo((kind == "schema" ? value : null, kind == "regex" ? value : null, kind == "choice" ? value : null)));
    }

    // Each is refused by name: what it asks for would otherwise be missing from the answer in silence.
    [TestCase(""","tools":[{"type":"function","function":{"name":"f"}}]""", "tools")]
    [TestCase(""","functions":[{"name":"f"}]""", "functions")]
    [TestCase(""","tool_choice":"auto" """, "tool_choice")]
    [TestCase(""","frequency_penalty":0.5""", "frequency_penalty")]
    [TestCase(""","presence_penalty":-1""", "presence_penalty")]
    [TestCase(""","repetition_penalty":1.1""", "repetition_penalty")]
    [TestCase(""","min_p":0.1""", "min_p")]
    [TestCase(""","logit_bias":{"5":1}""", "logit_bias")]
    [TestCase(""","chat_template":"{{ messages }}" """, "chat_template")]
    [TestCase(""","prompt_logprobs":0""", "prompt_logprobs")]
    [TestCase(""","skip_special_tokens":false""", "skip_special_tokens")]
    [TestCase(""","add_generation_prompt":false""", "add_generation_prompt")]
    [TestCase(""","modalities":["text","audio"]""", "modalities")]
    [TestCase(""","structured_outputs":{"grammar":"x"}""", "structured_outputs.grammar")]
    [TestCase(""","guided_json":{},"guided_regex":"a" """, "response_format")]
    [TestCase(""","response_format":{"type":"xml"}""", "response_format.type")]
    [TestCase(""","n":0""", "n")]
    [TestCase(""","n":65""", "n")]
    [TestCase(""","n":1.5""", "n")]
    [TestCase(""","temperature":"hot" """, "temperature")]
    [TestCase(""","temperature":-0.1""", "temperature")]
    [TestCase(""","temperature":1e400""", "temperature")]
    [TestCase(""","top_p":0""", "top_p")]
    [TestCase(""","top_k":-2""", "top_k")]
    [TestCase(""","seed":1.5""", "seed")]
    [TestCase(""","seed":18446744073709551616""", "seed")]
    [TestCase(""","max_tokens":0""", "max_tokens")]
    [TestCase(""","max_tokens":1025""", "max_tokens")]
    [TestCase(""","logprobs":1""", "logprobs")]
    [TestCase(""","top_logprobs":2""", "top_logprobs")]
    [TestCase(""","logprobs":true,"top_logprobs":21""", "top_logprobs")]
    [TestCase(""","stop":[""]""", "stop")]
    [TestCase(""","stop":[1]""", "stop[0]")]
    [TestCase(""","stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]""", "stop")]
    [TestCase(""","stream":"yes" """, "stream")]
    [TestCase(""","stream":true,"stream_options":[]""", "stream_options")]
    public async Task RefusedByName(string fields, string parameter)
    {
        var (status, body) = await Server.AskAsync(Path, Hello(fields));
        Assert.Multiple(() =>
        {
            Assert.That(status, Is.EqualTo(HttpStatusCode.BadRequest), body.ToJsonString());
            Assert.That(((string?)body["error"]!["param"], (string?)body["error"]!["type"]), Is.EqualTo((parameter, "invalid_request_error")));
            Assert.That((string?)body["error"]!["message"], Does.StartWith(parameter + " "));
            Assert.That(Engine.Requests, Is.Empty);
        });
    }

    [TestCase(""","frequency_penalty":0,"presence_penalty":0.0,"repetition_penalty":1.0,"min_p":0,"min_tokens":0""")]
    [TestCase(""","logit_bias":{},"tools":[],"tool_choice":"none","stop":null,"functions":null,"best_of":1""")]
    [TestCase(""","skip_special_tokens":true,"add_generation_prompt":true,"echo":false,"modalities":["text"],"stop_token_ids":[]""")]
    public async Task WhatAsksForNothingIsAccepted(string fields)
    {
        var (status, body) = await Server.AskAsync(Path, Hello(fields));
        Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
    }

    [TestCase("""{"messages":[]}""", "messages")]
    [TestCase("""{"messages":"hello"}""", "messages")]
    [TestCase("""{}""", "messages")]
    [TestCase("""{"messages":[1]}""", "messages[0]")]
    [TestCase("""{"messages":[{"content":"a"}]}""", "messages[0].role")]
    [TestCase("""{"messages":[{"role":"user"}]}""", "messages[0].content")]
    [TestCase("""{"messages":[{"role":"tool","content":"a"}]}""", "messages[0].role")]
    [TestCase("""{"messages":[{"role":"user","content":"\ud800"}]}""", "messages[0].content")]
    [TestCase("""{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}""", "messages[0].content[0].type")]
    [TestCase("""{"messages":[{"role":"user","content":[{"type":"text"}]}]}""", "messages[0].content[0].text")]
    [TestCase("""{"messages":[{"role":"assistant","content":"a","tool_calls":[{"id":"1"}]}]}""", "messages[0].tool_calls")]
    public async Task WrongMessagesAreNamed(string json, string parameter)
    {
        var (status, body) = await Server.AskAsync(Path, json);
        Assert.That((status, (string?)body["error"]!["param"]), Is.EqualTo((HttpStatusCode.BadRequest, parameter)), body.ToJsonString());
    }

    [TestCase("")]
    [TestCase("[1]")]
    [TestCase("{\"messages\"")]
    [TestCase("""{"messages":[],"messages":[]}""")]
    [TestCase("""{"\ud800":1}""")]
    [TestCase("""{"messages":[{"\udc00":1,"role":"user","content":"a"}]}""")]
    public async Task WhatIsNoJsonObject(string body)
    {
        var (status, answer) = await Server.AskAsync(Path, body);
        Assert.That((status, (string?)answer["error"]!["type"]), Is.EqualTo((HttpStatusCode.BadRequest, "invalid_request_error")));
    }

    [Test]
    public async Task UnknownModel()
    {
        var (status, body) = await Server.AskAsync(Path, Hello(""","model":"gpt\n4" """));
        Assert.Multiple(() =>
        {
            Assert.That((status, (string?)body["error"]!["code"]), Is.EqualTo((HttpStatusCode.NotFound, "model_not_found")));
            Assert.That((string?)body["error"]!["message"], Does.Contain("'gpt?4'"));
        });
    }

    [Test]
    public async Task AFullQueueSaysWhenToTryAgain()
    {
        Engine.Failure = new EngineBusyException("256 requests are waiting.");
        using var response = await Server.PostAsync(Path, Hello(""","stream":true"""));
        Assert.Multiple(() =>
        {
            Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.TooManyRequests));
            Assert.That(response.Headers.RetryAfter!.Delta, Is.EqualTo(TimeSpan.FromSeconds(1)));
        });
    }

    [Test]
    public async Task TimeUp()
    {
        Engine.Failure = new TimeoutException("The request took longer than 10 minutes.");
        var (status, body) = await Server.AskAsync(Path, Hello());
        Assert.That((status, (string?)body["error"]!["type"]), Is.EqualTo((HttpStatusCode.GatewayTimeout, "timeout_error")));
    }

    [Test]
    public async Task AnErrorAmidAStreamIsAnEvent()
    {
        Engine.LateFailure = (2, new TimeoutException("Time is up."));
        using var response = await Server.PostAsync(Path, Hello(""","stream":true"""));
        var events = Events(await response.Content.ReadAsStringAsync());
        Assert.Multiple(() =>
        {
            Assert.That((string?)JsonNode.Parse(events[^2])!["error"]!["message"], Is.EqualTo("Time is up."));
            Assert.That(events[^1], Is.EqualTo("[DONE]"));
            Assert.That(Text(events[..^2]), Is.EqualTo("You said"));
        });
    }

    [Test]
    public async Task TheServersOwnErrorIsLoggedAndNotTold()
    {
        Engine.Failure = new InvalidOperationException("secret\nINFO all is well");
        var (status, body) = await Server.AskAsync(Path, Hello());
        Assert.Multiple(() =>
        {
            Assert.That(status, Is.EqualTo(HttpStatusCode.InternalServerError));
            Assert.That(body.ToJsonString(), Does.Not.Contain("secret"));
            Assert.That(Server.Log.Single(), Does.StartWith("/v1/chat/completions: ").And.Contain("secret").And.Not.Contain("\n"));
        });
    }

    [Test]
    public async Task AClientThatLeavesIsNoticedAtOnce([Values] bool stream)
    {
        Engine.TokenTime = TimeSpan.FromMilliseconds(-1);
        using var leaving = new CancellationTokenSource();
        var asked = Server.PostAsync(Path, Hello(stream ? ""","stream":true""" : ""), leaving.Token);
        await Until(() => Engine.Statistics.Running == 1);
        await leaving.CancelAsync();
        Assert.That(async () => await asked, Throws.InstanceOf<OperationCanceledException>());
        await Until(() => Engine.Statistics is { Running: 0, Cancelled: 1 });
        Assert.That(Server.Log, Is.Empty);
    }

    private static string Hello(string fields = "") => $$"""{"messages":[{"role":"user","content":"hello there"}]{{fields}}}""";

    private static string[] Events(string body) => [.. body.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(line => line["data: ".Length..])];

    private static string Text(IEnumerable<string> events, int index = 0) => string.Concat(events.Where(json => json != "[DONE]").SelectMany(json => JsonNode.Parse(json)!["choices"]!.AsArray())
        .Where(choice => (int)choice!["index"]! == index).Select(choice => (string?)choice!["delta"]!["content"]));

    private static async Task Until(Func<bool> condition)
    {
        for (var i = 0; i < 500 && !condition(); i++)
        {
            await Task.Delay(10);
        }

        Assert.That(condition(), "not within five seconds");
    }
}
