using LrIad.Engine.Serving;

namespace LrIad.Engine.Tests.Serving;

/// <summary>What a request draws depends on itself alone: the same tokens, log-probs and texts, to the last bit, alone and among others.</summary>
internal sealed class BatchInvarianceTests
{
    [Test]
    public Task A_request_draws_the_same_alone_and_among_others() => Check(requests: 14, sequences: 12, maxTokens: 10);

    [Test]
    [Category("Full")]
    public Task A_hundred_requests_draw_the_same_alone_and_among_63_others() => Check(requests: 100, sequences: 64, maxTokens: 32);

    private static async Task Check(int requests, int sequences, int maxTokens)
    {
        await using var engine = Served.Engine(Served.Small with { Sequences = sequences, CompletionLength = maxTokens });
        await engine.LoadAdapterAsync("other", Copied());
        var all = Enumerable.Range(0, requests).Select(i => Request(i, maxTokens)).ToArray();
        var alone = new List<string>();
        foreach (var request in all)
        {
            alone.Add((await Served.Draw(engine, request)).ToString());
        }

        var together = await Task.WhenAll(all.Select(request => Task.Run(() => Served.Draw(engine, request))));
        using (Assert.EnterMultipleScope())
        {
            for (var i = 0; i < requests; i++)
            {
                Assert.That(together[i].ToString(), Is.EqualTo(alone[i]), $"request {i}");
            }

            Assert.That(alone.Distinct().Count(), Is.GreaterThan(requests * 2 / 3));
            Assert.That(engine.Statistics.FreeCacheBlocks, Is.EqualTo(engine.Statistics.CacheBlocks));
        }
    }

    // Images or none, greedy or drawn, one of two adapters or none, one completion or several, constraints, probes and the likeliest tokens: all mixed.
    private static GenerationRequest Request(int i, int maxTokens)
    {
        var random = new Random(i);
        ImageData[] images = [.. Enumerable.Range(0, i % 3).Select(_ => Served.Images[random.Next(Served.Images.Length)])];
        return new GenerationRequest
        {
            Prompt = i % 7 == 6 ? Served.Ask("Which is it?") : Served.Ask($"Say what you see, number {i}.", images),
            Adapter = (i % 4) switch { 0 => "golden", 1 => "other", _ => null },
            Completions = i % 5 == 2 ? 3 : 1,
            Temperature = i % 3 * 0.6f,
            TopP = i % 5 == 0 ? 0.8f : 1,
            TopK = i % 8 == 3 ? 20 : 0,
            Seed = (ulong)i,
            MaxTokens = 1 + random.Next(maxTokens),
            Constraint = i % 6 == 4 ? OutputConstraint.ToRegex("[a-f]{3,}") : i % 6 == 5 ? OutputConstraint.ToChoice(["defect", "normal"]) : null,
            TopLogProbs = i % 4 == 2 ? 3 : 0,
            Probe = i % 4 == 0,
            Client = $"{i % 3}",
        };
    }

    // The same adapter in another folder, so that it goes in passes of its own.
    private static string Copied()
    {
        var folder = TestFiles.NewFolder();
        foreach (var file in Directory.GetFiles(Served.Adapter))
        {
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        }

        return folder;
    }
}
