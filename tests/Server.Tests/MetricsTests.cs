using System.Globalization;
using System.Text.RegularExpressions;

namespace LrIad.Server.Tests;

/// <summary>What Prometheus is told.</summary>
[TestFixture]
internal sealed partial class MetricsTests
{
    private const string Hello = """{"messages":[{"role":"user","content":"hello there"}]}""";

    [Test]
    public async Task FiguresOfWhatWasAsked()
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        await server.AskAsync("/v1/chat/completions", Hello);
        await server.AskAsync("/v1/chat/completions", Hello.Replace("}]}", "}],\"n\":2,\"max_tokens\":2}", StringComparison.Ordinal));
        using var response = await server.Client.GetAsync("/metrics");
        var values = Parse(await response.Content.ReadAsStringAsync());
        Assert.Multiple(() =>
        {
            Assert.That(response.Content.Headers.ContentType!.ToString(), Is.EqualTo("text/plain; version=0.0.4; charset=utf-8"));
            Assert.That(values["vllm:num_requests_running"], Is.Zero);
            Assert.That(values["vllm:kv_cache_usage_perc"], Is.Zero);
            Assert.That(values["vllm:prompt_tokens_total"], Is.EqualTo(4));
            Assert.That(values["vllm:generation_tokens_total"], Is.EqualTo(8));
            Assert.That((values["vllm:request_success_total|stop"], values["vllm:request_success_total|length"]), Is.EqualTo((1.0, 2.0)));
            Assert.That((values["vllm:time_to_first_token_seconds_count"], values["vllm:e2e_request_latency_seconds_count"]), Is.EqualTo((2.0, 2.0)));
            Assert.That((values["vllm:inter_token_latency_seconds_count"], values["vllm:request_time_per_output_token_seconds_count"]), Is.EqualTo((3.0, 1.0)));
            Assert.That((values["vllm:request_generation_tokens_sum"], values["vllm:request_generation_tokens_bucket|2.0"], values["vllm:request_generation_tokens_bucket|+Inf"]), Is.EqualTo((8.0, 0.0, 2.0)));
        });
    }

    [Test]
    public async Task WhileRequestsRun()
    {
        await using var engine = new FakeEngine { TokenTime = TimeSpan.FromMilliseconds(-1) };
        await using var server = await TestServer.StartAsync(engine);
        using var leaving = new CancellationTokenSource();
        var asked = server.PostAsync("/v1/chat/completions", Hello, leaving.Token);
        var values = await Poll(server, now => now["vllm:num_requests_running"] == 1);
        Assert.That(values["vllm:kv_cache_usage_perc"], Is.EqualTo(0.01).Within(1e-9));
        await leaving.CancelAsync();
        Assert.That(async () => await asked, Throws.InstanceOf<OperationCanceledException>());
        values = await Poll(server, now => now["vllm:num_requests_running"] == 0);
        Assert.That((values["lriad:requests_cancelled_total"], values["vllm:e2e_request_latency_seconds_count"]), Is.EqualTo((1.0, 0.0)));
    }

    private static async Task<Dictionary<string, double>> Poll(TestServer server, Func<Dictionary<string, double>, bool> condition)
    {
        for (var i = 0; ; i++)
        {
            var values = Parse(await server.Client.GetStringAsync("/metrics"));
            if (condition(values))
            {
                return values;
            }

            Assert.That(i, Is.LessThan(500), "not within five seconds");
            await Task.Delay(10);
        }
    }

    // By name and, where there is a third label, its value.
    private static Dictionary<string, double> Parse(string text)
    {
        var lines = text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(line => !line.StartsWith('#')).Select(line => (Line: line, Match: Sample().Match(line))).ToArray();
        Assert.That(lines.Where(line => !line.Match.Success).Select(line => line.Line), Is.Empty);
        return lines.ToDictionary(
            line => line.Match.Groups[1].Value + (line.Match.Groups[2].Success ? "|" + line.Match.Groups[2].Value : ""),
            line => double.Parse(line.Match.Groups[3].Value, CultureInfo.InvariantCulture));
    }

    [GeneratedRegex("""^([a-z_:0-9]+)\{model_name="tiny-qwen2-vl",engine="0"(?:,[a-z_]+="([^"]+)")?\} (\S+)$""")]
    private static partial Regex Sample();
}
