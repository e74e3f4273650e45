using System.Text;
using System.Text.Json.Nodes;

namespace LrIad.Server.Tests;

/// <summary>Each part of a request in turn replaced by things of other kinds: the client's error at most, never the server's, and what is asked afterwards is answered as before.</summary>
[TestFixture]
internal sealed class WrongKindTests
{
    private static readonly string[] Kinds = ["null", "true", "-1", "1e99", "0.5", "\"\"", "\"x\"", "\"\\ud800\"", "[]", "[null]", "[[]]", "{}", """{"a":1}"""];

    [TestCase("/inspect", """{"image":"data:image/png;base64,AQID","object":"tile","references":["data:image/png;base64,AQID"],"adapter":null,"threshold":1,"max_tokens":5,"stream":false}""")]
    [TestCase("/inspect/jobs", """{"folder":"x","object":"tile","threshold":1,"max_tokens":5}""")]
    [TestCase("/api/chat", """{"model":"tiny-qwen2-vl","stream":false,"messages":[{"role":"user","content":"a","images":["AQID"]}],"format":"json","logprobs":true,"top_logprobs":1,"options":{"temperature":1,"top_p":1,"top_k":1,"seed":1,"num_predict":5,"stop":["x"],"min_p":0}}""")]
    [TestCase("/api/show", """{"model":"tiny-qwen2-vl"}""")]
    [TestCase("/generate/", """{"prompts":["a",[11]],"images":[["AQID"],null],"n":1,"temperature":1,"top_p":1,"top_k":0,"min_p":0,"max_tokens":5,"logprobs":0,"structured_outputs_regex":null,"generation_kwargs":{"seed":1,"stop":["x"],"structured_outputs":{"regex":"a"}}}""")]
    [TestCase("/chat/", """{"messages":[[{"role":"user","content":[{"type":"image_pil","image_pil":"AQID"},{"type":"text","text":"a"}]}]],"max_tokens":5,"chat_template_kwargs":{},"tools":null}""")]
    [TestCase("/get_sequence_logprobs/", """{"sequences":[[11,12]],"prompt_lengths":[1],"top_logprobs":1,"temperature":1,"response_format":"binary"}""")]
    public async Task AreTheClientsError(string path, string valid)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { FilesFolder = Path.GetTempPath() });
        var before = await AnswerAsync(server, path, valid);
        var wrong = Replaced(valid).ToArray();
        Assert.That(wrong, Has.Length.AtLeast(Kinds.Length));
        foreach (var body in wrong)
        {
            var (status, answer) = await AnswerAsync(server, path, body);
            Assert.That(status, Is.AnyOf(200, 202, 400, 404), $"{body}: {answer}");
        }

        Assert.That(server.Log, Is.Empty);
        Assert.That(Timeless(await AnswerAsync(server, path, valid)), Is.EqualTo(Timeless(before)));
    }

    [TestCase("/generate/", """{"prompts":["@"]}""")]
    [TestCase("/chat/", """{"messages":[[{"role":"user","content":"@"}]]}""")]
    [TestCase("/api/chat", """{"model":"tiny-qwen2-vl","messages":[{"role":"user","content":"@"}]}""")]
    public async Task ATextNoPromptCanHoldIsRefusedUnread(string path, string body)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        var (status, answer) = await AnswerAsync(server, path, body.Replace("@", new string('a', (256 * 2048) + 1), StringComparison.Ordinal));
        Assert.That(status, Is.EqualTo(400));
        Assert.That(answer, Does.Contain("has a text that is longer than the 2048 tokens a prompt may have here."));
        Assert.That(engine.Requests, Is.Empty);
    }

    // The text is put in before it is parsed: nodes cannot hold half a surrogate pair.
    private static IEnumerable<string> Replaced(string valid)
    {
        const string Mark = "\"@here@\"";
        foreach (var place in Places(JsonNode.Parse(valid)!))
        {
            var copy = JsonNode.Parse(valid)!;
            var target = place[..^1].Aggregate(copy, (node, step) => step is int index ? node[index]! : node[(string)step]!);
            if (place[^1] is int last)
            {
                target[last] = "@here@";
            }
            else
            {
                target[(string)place[^1]] = "@here@";
            }

            var text = copy.ToJsonString();
            foreach (var kind in Kinds)
            {
                yield return text.Replace(Mark, kind, StringComparison.Ordinal);
            }
        }
    }

    private static IEnumerable<object[]> Places(JsonNode node) => node switch
    {
        JsonObject fields => fields.SelectMany(field => Below(field.Key, field.Value)),
        JsonArray items => items.SelectMany((item, i) => Below(i, item)),
        _ => [],
    };

    private static IEnumerable<object[]> Below(object step, JsonNode? node) => (node is null ? [] : Places(node).Select(place => (object[])[step, .. place])).Prepend([step]);

    private static async Task<(int Status, string Answer)> AnswerAsync(TestServer server, string path, string body)
    {
        using var content = new ByteArrayContent(Encoding.UTF8.GetBytes(body));
        content.Headers.Add("Content-Type", "application/json");
        using var response = await server.Client.PostAsync(path, content);
        return ((int)response.StatusCode, await response.Content.ReadAsStringAsync());
    }

    private static (int, string) Timeless((int Status, string Answer) answer) => (answer.Status, System.Text.RegularExpressions.Regex.Replace(answer.Answer, "\"(created_at|[a-z_]+_duration)\":[^,}]+", ""));
}
