using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace LrIad.Server.Tests;

/// <summary>Malformed requests between valid ones: the valid ones are answered as if they were alone.</summary>
[TestFixture]
internal sealed class MisuseTests
{
    private const string Chat = "/v1/chat/completions";
    private const string Valid = """{"model":"tiny-qwen2-vl","messages":[{"role":"user","content":[{"type":"text","text":"Is it defective?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AQIDBAUG"}}]}],"n":2,"temperature":0.5,"seed":7,"max_tokens":20}""";

    [Test]
    public Task Some() => MalformedBetweenValid(300);

    [Test]
    [Category("Full")]
    public Task TenThousand() => MalformedBetweenValid(10_000);

    private static async Task MalformedBetweenValid(int count)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        var expected = await AnswerAsync(server);
        await Parallel.ForEachAsync(Enumerable.Range(0, count), new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (number, _) =>
        {
            var random = new Random(number);
            if (number % 5 == 0)
            {
                await SendBytesAsync(server, random);
            }
            else
            {
                using var response = await server.PostAsync(Chat, Damage(random));
                Assert.That((int)response.StatusCode, Is.InRange(200, 499));
            }

            if (number % 10 == 0)
            {
                Assert.That(await AnswerAsync(server), Is.EqualTo(expected));
            }
        });
        Assert.That(await AnswerAsync(server), Is.EqualTo(expected));
        Assert.That(server.Log, Is.Empty);
        Assert.That(engine.Statistics.Running, Is.Zero);
    }

    private static async Task<string> AnswerAsync(TestServer server)
    {
        var (status, body) = await server.AskAsync(Chat, Valid);
        Assert.That(status, Is.EqualTo(HttpStatusCode.OK));
        return new JsonArray(body["choices"]!.DeepClone(), body["usage"]!.DeepClone()).ToJsonString();
    }

    // Cut, doubled, overwritten; or a value replaced by one of another kind.
    private static string Damage(Random random)
    {
        var (from, length) = (random.Next(Valid.Length), random.Next(1, 30));
        var to = Math.Min(Valid.Length, from + length);
        switch (random.Next(5))
        {
            case 0:
                return Valid[..from];
            case 1:
                return Valid[..from] + Valid[to..];
            case 2:
                return Valid[..to] + Valid[from..];
            case 3:
                return Valid[..from] + new string((char)random.Next(1, 0xd800), to - from) + Valid[to..];
            default:
                var json = JsonNode.Parse(Valid)!.AsObject();
                var values = new[] { "null", "true", "-1", "1e999", "\"x\"", "\"\\ud800\"", "[]", "{}", "[[[]]]", "99999999999999999999" };
                json[json.ElementAt(random.Next(json.Count)).Key] = "@@";
                return json.ToJsonString().Replace("\"@@\"", values[random.Next(values.Length)], StringComparison.Ordinal);
        }
    }

    // What is not even HTTP, or is less of it than it says; the client leaves without waiting for an answer.
    private static async Task SendBytesAsync(TestServer server, Random random)
    {
        var head = $"POST {Chat} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        var bytes = random.Next(4) switch
        {
            0 => [.. Enumerable.Range(0, 200).Select(_ => (byte)random.Next(256))],
            1 => Encoding.ASCII.GetBytes($"{head}Content-Length: 1000\r\n\r\n{{\"messages\":"),
            2 => Encoding.ASCII.GetBytes($"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n"),
            _ => Encoding.ASCII.GetBytes($"{head}Content-Length: {Valid.Length}\r\n\r\n{Valid}"),
        };
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, server.Address.Port);
        await client.GetStream().WriteAsync(bytes);
    }
}
