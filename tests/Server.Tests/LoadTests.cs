using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>
/// Many clients at a time on the sample model. How long and how many is said by test parameters:
/// <c>LrIad.Server.Tests --filter 'FullyQualifiedName~LoadTests' --test-parameter seconds=300 --test-parameter clients=200</c>.
/// </summary>
[TestFixture]
[Category("Full")]
internal sealed class LoadTests
{
    private const int MostSeconds = 3600, MostClients = 1000;

    // Megabytes: connections are kept open, and their buffers with them; a request that left its image behind would show.
    private const double MostGrowth = 64;

    [Test]
    public async Task StreamingClients()
    {
        var (seconds, clients) = (Parameter("seconds", 20, MostSeconds), Parameter("clients", 200, MostClients));
        await using var engine = Sample.Load();
        await using var server = await TestServer.StartAsync(engine);
        var bodies = Sample.Images.Select(Body).ToArray();

        // Once each, so that what is kept of images is there before anything is measured.
        foreach (var body in bodies)
        {
            await AskAsync(server, body);
        }

        var (blocks, memory) = (engine.Statistics.FreeCacheBlocks, Memory());

        var clock = Stopwatch.StartNew();
        var answers = await Task.WhenAll(Enumerable.Range(0, clients).Select(client => Task.Run(async () =>
        {
            var (random, own) = (new Random(client), new List<Answer>());
            while (clock.Elapsed.TotalSeconds < seconds)
            {
                own.Add(await AskAsync(server, bodies[random.Next(bodies.Length)]));
            }

            return own;
        })));
        var elapsed = clock.Elapsed;
        var all = answers.SelectMany(own => own).ToArray();
        var now = engine.Statistics;
        var memoryAfter = Memory();
        Report(clients, elapsed, all, now, blocks, memory, memoryAfter);
        Assert.Multiple(() =>
        {
            Assert.That(all.Where(answer => answer.Problem is not null).Select(answer => answer.Problem).Distinct(), Is.Empty);
            Assert.That((now.Running, now.Waiting, now.FreeCacheBlocks), Is.EqualTo((0, 0, blocks)));
            Assert.That(all, Has.Length.GreaterThanOrEqualTo(clients));
            Assert.That(memoryAfter, Is.LessThan(memory + MostGrowth));
        });
    }

    private static async Task<Answer> AskAsync(TestServer server, string body)
    {
        var clock = Stopwatch.StartNew();
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(body, Encoding.UTF8, "application/json") };
            using var response = await server.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
            using var lines = new StreamReader(await response.Content.ReadAsStreamAsync());
            var (first, last, tokens) = ((TimeSpan?)null, "", 0);
            while (await lines.ReadLineAsync() is { } line)
            {
                last = line.Length > 0 ? line : last;
                if (line.Contains("\"content\":\"", StringComparison.Ordinal) && !line.Contains("\"role\"", StringComparison.Ordinal))
                {
                    first ??= clock.Elapsed;
                    tokens++;
                }
            }

            return new Answer(first ?? clock.Elapsed, clock.Elapsed, tokens, !response.IsSuccessStatusCode ? $"{(int)response.StatusCode} {last}" : last != "data: [DONE]" ? $"ended with {last}" : null);
        }
        catch (Exception e) when (e is HttpRequestException or IOException or TaskCanceledException)
        {
            return new Answer(clock.Elapsed, clock.Elapsed, 0, e.Message);
        }
    }

    private static void Report(int clients, TimeSpan elapsed, Answer[] all, EngineStatistics now, int blocks, double before, double after)
    {
        var text = new StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"{clients} clients, {elapsed.TotalSeconds:F0} s, {Environment.ProcessorCount} cores: {all.Length} requests, {all.Count(answer => answer.Problem is not null)} errors, {now.GeneratedTokens / elapsed.TotalSeconds:F0} tokens/s");
        text.AppendLine("                    p50      p90      p99");
        text.AppendLine("first token (s) " + Percentiles(all.Select(answer => answer.First.TotalSeconds)));
        text.AppendLine("total (s)       " + Percentiles(all.Select(answer => answer.Total.TotalSeconds)));
        text.AppendLine(CultureInfo.InvariantCulture, $"free blocks: {blocks} before, {now.FreeCacheBlocks} after, of {now.CacheBlocks}; managed memory: {before:F1} MB before, {after:F1} MB after; resident: {Environment.WorkingSet / 1e6:F0} MB");
        TestContext.Progress.WriteLine(text.ToString());
    }

    private static string Percentiles(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return string.Concat(new[] { 0.5, 0.9, 0.99 }.Select(share => sorted[Math.Min(sorted.Length - 1, (int)(share * sorted.Length))].ToString("F3", CultureInfo.InvariantCulture).PadLeft(9)));
    }

    private static int Parameter(string name, int otherwise, int most) => Math.Clamp(TestContext.Parameters.Get(name, otherwise), 1, most);

    private static double Memory() => GC.GetTotalMemory(forceFullCollection: true) / 1e6;

    private static string Body(byte[] image) => JsonSerializer.Serialize(new
    {
        stream = true,
        max_tokens = 64,
        messages = new[]
        {
            new { role = "user", content = new object[] { new { type = "image_url", image_url = new { url = "data:image/png;base64," + Convert.ToBase64String(image) } }, new { type = "text", text = "Is this part defective? Think, then answer." } } },
        },
    });

    private sealed record Answer(TimeSpan First, TimeSpan Total, int Tokens, string? Problem);
}
