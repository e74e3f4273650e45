using System.Net;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>The sample model behind TRL's protocol and the inspections.</summary>
[TestFixture]
internal sealed class SurfaceTests
{
    private InferenceEngine _engine = null!;
    private TestServer _server = null!;

    [OneTimeSetUp]
    public async Task Start()
    {
        _engine = Sample.Load(new EngineLimits { Sequences = 8, PromptLength = 512, CompletionLength = 256 });
        _server = await TestServer.StartAsync(_engine, new ServerOptions { FilesFolder = Sample.Folder });
    }

    [OneTimeTearDown]
    public async Task Stop()
    {
        await _server.DisposeAsync();
        await _engine.DisposeAsync();
    }

    [Test]
    public async Task WhatIsGeneratedIsScoredAlike()
    {
        var (_, drawn) = await _server.AskAsync("/generate/", """{"prompts":["<|im_start|>user\nIs it whole?<|im_end|>\n<|im_start|>assistant\n"],"n":3,"max_tokens":24,"generation_kwargs":{"seed":3}}""");
        var prompt = Numbers<int>(drawn["prompt_ids"]![0]);
        var sequences = drawn["completion_ids"]!.AsArray().Select(ids => new JsonArray([.. prompt.Concat(Numbers<int>(ids)).Select(id => JsonValue.Create(id))])).ToArray();
        var (_, scored) = await _server.AskAsync("/get_sequence_logprobs/", new JsonObject
        {
            ["sequences"] = new JsonArray(sequences),
            ["prompt_lengths"] = new JsonArray(prompt.Length, prompt.Length, prompt.Length),
            ["top_logprobs"] = 1,
        }.ToJsonString());
        for (var i = 0; i < 3; i++)
        {
            // Of each token's log-probs, the one of the token that was drawn: the likeliest may stand before it.
            var ids = Numbers<int>(drawn["completion_ids"]![i]);
            var own = ids.Select((id, place) => Numbers<float>(scored["logprobs"]![i]![place])[Array.IndexOf(Numbers<int>(scored["logprob_token_ids"]![i]![place]), id)]);
            Assert.That(own, Is.EqualTo(drawn["logprobs"]![i]!.AsArray().Select(token => (float)token![0]!)), "on the CPU, bit for bit");
        }

        Assert.That(drawn["completion_ids"]!.AsArray().Select(ids => ids!.ToJsonString()).Distinct().Count(), Is.GreaterThan(1));
    }

    [Test]
    public async Task PromptIdsHaveAnImagesTokensAndMeanTheSamePrompt()
    {
        const string Greedy = ""","temperature":0,"max_tokens":12""";
        var image = Convert.ToBase64String(Sample.Images[0]);
        var (_, byText) = await _server.AskAsync("/generate/", $$"""{"prompts":["<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Is it whole?<|im_end|>\n<|im_start|>assistant\n"],"images":[["{{image}}"]]{{Greedy}}}""");
        var (_, byIds) = await _server.AskAsync("/generate/", $$"""{"prompts":{{byText["prompt_ids"]!.ToJsonString()}},"images":[["{{image}}"]]{{Greedy}}}""");
        var pad = _engine.Tokenize("<|image_pad|>", parseSpecial: true).Single();
        Assert.Multiple(() =>
        {
            Assert.That(Numbers<int>(byText["prompt_ids"]![0]).Count(id => id == pad), Is.EqualTo(25), "140 × 140 pixels");
            Assert.That(byIds.ToJsonString(), Is.EqualTo(byText.ToJsonString()));
        });
    }

    [Test]
    public async Task AnInspectionIsTheEnginesOwn()
    {
        var request = new InspectionRequest { Image = new ImageData(Sample.Images[1]), Object = "fabric" };
        var expected = await _engine.InspectAsync(request).LastAsync();
        using var form = new MultipartFormDataContent { { new ByteArrayContent(Sample.Images[1]), "image", "a.png" }, { new StringContent("fabric"), "object" } };
        using var response = await _server.Client.PostAsync("/inspect", form);
        var body = JsonNode.Parse(await response.Content.ReadAsStringAsync())!;
        var verdict = expected.Verdict!;
        Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
        Assert.That(
            ((int?)body["answer_label"], (double)body["pred_score"]!, (string?)body["completion"], (string?)body["explanation"], (int)body["usage"]!["completion_tokens"]!),
            Is.EqualTo((verdict.Defect is { } defect ? defect ? 1 : 0 : (int?)null, verdict.Score, verdict.Completion, verdict.Reasoning, verdict.Tokens)));
    }

    [Test]
    public async Task AFolderOfTheSamples()
    {
        var (_, begun) = await _server.AskAsync("/inspect/jobs", """{"folder":"tile/test/hole","object":"tile"}""");
        JsonNode job;
        while ((string?)(job = JsonNode.Parse(await _server.Client.GetStringAsync($"/inspect/jobs/{(string?)begun["id"]}"))!)["status"] == "running")
        {
            await Task.Delay(20);
        }

        Assert.That(((string?)job["status"], (int)job["images"]! > 0, job["results"]!.AsArray().Count), Is.EqualTo(("done", true, (int)job["images"]!)), job.ToJsonString());
    }

    private static T[] Numbers<T>(JsonNode? list) => [.. list!.AsArray().Select(item => item!.GetValue<T>())];
}
