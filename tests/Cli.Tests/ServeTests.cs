using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;

namespace LrIad.Cli.Tests;

/// <summary><c>serve</c>, as users start and stop it.</summary>
[TestFixture]
internal sealed class ServeTests
{
    private static string Model => Project.Sample("tiny-qwen2-vl");

    [Test]
    [Platform(Exclude = "Win", Reason = "signals")]
    public async Task AnswersUntilItIsStopped()
    {
        var key = Scratch.NewFile("key", "k-123\n");
        using var process = Cli.Start("serve", "--model", Model, "--port", "0", "--device", "cpu", "--api-key-file", key, "--max-sequences", "4");
        var error = process.StandardError.ReadToEndAsync();
        var line = await process.StandardOutput.ReadLineAsync();
        Assert.That(line, Does.Match("^tiny-qwen2-vl on cpu, at http://127.0.0.1:[0-9]+$"), line is null ? await error : "");
        using var client = new HttpClient { BaseAddress = new Uri(line![line.IndexOf("http", StringComparison.Ordinal)..]) };
        using var refused = await client.GetAsync("/v1/models");
        client.DefaultRequestHeaders.Authorization = new("Bearer", "k-123");
        using var answered = await client.PostAsJsonAsync("/v1/chat/completions", new { messages = new[] { new { role = "user", content = "hello" } }, max_tokens = 5 });
        var answer = JsonNode.Parse(await answered.Content.ReadAsStringAsync())!;
        Process.Start("sh", ["-c", $"kill -INT {process.Id}"])!.WaitForExit();
        Assert.That(process.WaitForExit(TimeSpan.FromSeconds(20)), "it does not stop");
        Assert.Multiple(() =>
        {
            Assert.That((refused.StatusCode, answered.StatusCode), Is.EqualTo((HttpStatusCode.Unauthorized, HttpStatusCode.OK)));
            Assert.That((int)answer["usage"]!["completion_tokens"]!, Is.InRange(1, 5));
            Assert.That(process.ExitCode, Is.Zero);
            Assert.That(error.Result, Does.Contain("No new requests are taken").And.Not.Contain("k-123"));
        });
    }

    [TestCase("--port", "70000")]
    [TestCase("--host", "example.org")]
    [TestCase("--adapter", "visa")]
    [TestCase("--adapter", "a=x", "a=y")]
    [TestCase("--allow-files", "/no/such/folder")]
    [TestCase("--api-key-file", "/no/such/file")]
    [TestCase("--max-sequences", "0")]
    public void WrongOptionsAreNamed(params string[] options)
    {
        var outcome = Cli.Run(["serve", "--model", Model, .. options]);
        Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
        Assert.That(outcome.Error, Does.Contain(options[0]));
    }

    [Test]
    public void AnAddressThatIsTaken()
    {
        using var other = new System.Net.Sockets.TcpListener(IPAddress.Loopback, 0);
        other.Start();
        var port = ((IPEndPoint)other.LocalEndpoint).Port;
        var outcome = Cli.Run("serve", "--model", Model, "--device", "cpu", "--port", $"{port}");
        Assert.That(outcome.ExitCode, Is.EqualTo(2), outcome.Error);
        Assert.That(outcome.Error, Does.Contain($"port {port}").And.Contain("--port"));
    }
}
