using System.Net;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>
/// Bodies as clients send them, kept in files: written by OpenAI's own client for JavaScript (6.49), with the fields that vLLM's users add to it, and with the messages that
/// anomalib's VlmAd builds (vlmad.json, whose data URIs are malformed as VlmAd's are).
/// </summary>
[TestFixture]
internal sealed class RecordedTests : ServerTests
{
    [TestCase("vlmad", "You said Is there an anomaly in this image?[image of 70 bytes]")]
    [TestCase("logprobs", "You said Is it defective?")]
    [TestCase("vllm-extras", "You said Is it defective?")]
    [TestCase("vllm-choice", "You said Is it defective?")]
    [TestCase("vllm-guided-json", "You said Is it defective?")]
    [TestCase("json-schema", "You said Is it defective?")]
    public async Task Answered(string name, string expected)
    {
        var (status, body) = await Server.AskAsync("/v1/chat/completions", Read(name));
        Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
        Assert.That((string?)body["choices"]![0]!["message"]!["content"], Is.EqualTo(expected));
    }

    [Test]
    public async Task Streamed()
    {
        using var response = await Server.PostAsync("/v1/chat/completions", Read("vision-stream"));
        var body = await response.Content.ReadAsStringAsync();
        var texts = body.Split("\n\n", StringSplitOptions.RemoveEmptyEntries)[..^1].Select(line => (string?)JsonNode.Parse(line["data: ".Length..])!["choices"]!.AsArray().FirstOrDefault()?["delta"]!["content"]);
        Assert.That(string.Concat(texts), Is.EqualTo("You said What is wrong with it?[image of 70 bytes]"));
    }

    [Test]
    public async Task WhatTheyAskForReachesTheEngine()
    {
        foreach (var name in new[] { "vlmad", "logprobs", "vllm-extras", "vllm-choice", "vllm-guided-json" })
        {
            await Server.AskAsync("/v1/chat/completions", Read(name));
        }

        var requests = Engine.Requests;
        Assert.Multiple(() =>
        {
            Assert.That(((Conversation)requests[0].Prompt).Messages.Select(message => message.Parts.Count), Is.EqualTo(new[] { 2, 2 }));
            Assert.That((requests[1].Completions, requests[1].TopLogProbs, requests[1].Seed, requests[1].MaxTokens), Is.EqualTo((2, 5, (ulong?)11, (int?)8)));
            Assert.That((requests[2].TopK, requests[2].IgnoreEnd, requests[2].Temperature), Is.EqualTo((20, true, 0.7f)));
            Assert.That(requests[3].Constraint!.Choices, Is.EqualTo(new[] { "yes", "no" }));
            Assert.That(requests[4].Constraint!.JsonSchema, Does.Contain("defect"));
        });
    }

    private static string Read(string name) => File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Recorded", name + ".json"));
}
