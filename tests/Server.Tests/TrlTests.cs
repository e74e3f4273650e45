using System.Net;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>TRL's rollout surface. The requests are those that TRL's VLLMClient sends, recorded field by field.</summary>
[TestFixture]
internal sealed class TrlTests : ServerTests
{
    // One pixel, as a PNG in base64.
    private const string Pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

    [Test]
    public async Task ItIsThere()
    {
        Assert.Multiple(async () =>
        {
            Assert.That(await Server.Client.GetStringAsync("/health/"), Is.EqualTo("""{"status":"ok"}"""));
            Assert.That(await Server.Client.GetStringAsync("/get_world_size/"), Is.EqualTo("""{"world_size":1}"""));
        });
    }

    [Test]
    public async Task GenerateTakesWholePrompts()
    {
        var (status, body) = await Server.AskAsync("/generate/", Generate("""["<|im_start|>user\nHello <|vision_start|><|image_pad|><|vision_end|>","Tell me a joke"]""", $$"""[["{{Pixel}}"],null]""", n: 2));
        Assert.Multiple(() =>
        {
            Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
            Assert.That(body.AsObject().Select(field => field.Key), Is.EqualTo(new[] { "prompt_ids", "completion_ids", "logprobs", "logprob_token_ids" }));
            Assert.That(Lists(body["prompt_ids"]).Select(ids => ids[..2]), Is.EqualTo(new[] { new[] { 7, 7 }, [.. Engine.Tokenize("Tell me")] }));
            Assert.That(body["completion_ids"]!.AsArray(), Has.Count.EqualTo(4), "two of each prompt");
            Assert.That(Lists(body["completion_ids"])[2], Is.EqualTo(Engine.Tokenize("The prompt was Tell me a joke with 0 images")));
            Assert.That(Lists(body["completion_ids"])[3], Is.EqualTo(Engine.Tokenize("The prompt was Tell me a joke with 0 images (1)")));
            Assert.That((float)body["logprobs"]![2]![1]![0]!, Is.EqualTo(-0.25f));
            Assert.That(body["logprobs"]!.AsArray().Zip(body["completion_ids"]!.AsArray()).All(pair => pair.First!.AsArray().Count == pair.Second!.AsArray().Count && pair.First.AsArray().All(token => token!.AsArray().Count == 1)), Is.True);
            Assert.That(body["logprob_token_ids"]![2]!.AsArray().Select(token => (int)token![0]!), Is.EqualTo(Lists(body["completion_ids"])[2]));
        });
        var raw = Engine.Requests.Select(request => request.Prompt).OfType<RawPrompt>().Single(prompt => prompt.Images.Count == 1);
        Assert.That((raw.Text[..12], raw.Images[0].Bytes.Length), Is.EqualTo(("<|im_start|>", Convert.FromBase64String(Pixel).Length)));
    }

    [Test]
    public async Task GenerateTakesTokenIds()
    {
        var (_, body) = await Server.AskAsync("/generate/", """{"prompts":[[101,102],[201,202,203]],"max_tokens":3,"temperature":0.7,"top_p":0.9,"top_k":-1,"generation_kwargs":{"seed":5,"top_k":20,"ignore_eos":true}}""");
        Assert.Multiple(() =>
        {
            Assert.That(Lists(body["prompt_ids"]), Is.EqualTo(new[] { new[] { 101, 102 }, [201, 202, 203] }));
            Assert.That(Lists(body["completion_ids"]).Select(ids => ids.Length), Is.EqualTo(new[] { 3, 3 }));
            var request = Engine.Requests[0];
            Assert.That((request.Temperature, request.TopP, request.TopK, request.Seed, request.IgnoreEnd, request.MaxTokens), Is.EqualTo((0.7f, 0.9f, 20, (ulong?)5, true, (int?)3)), "generation_kwargs go before fields");
        });
    }

    [Test]
    public async Task LeftOutFieldsHaveTrlsDefaults()
    {
        await Server.AskAsync("/generate/", """{"prompts":["a"]}""");
        var request = Engine.Requests.Single();
        Assert.That((request.Completions, request.Temperature, request.TopP, request.TopK, request.MaxTokens, request.Seed), Is.EqualTo((1, 1f, 1f, 0, (int?)16, (ulong?)null)));
    }

    [Test]
    public async Task LogProbsAreRankedAndCanBeLeftOut()
    {
        var (_, top) = await Server.AskAsync("/generate/", """{"prompts":["a"],"logprobs":2}""");
        var (_, none) = await Server.AskAsync("/generate/", """{"prompts":["a"],"logprobs":null}""");
        Assert.Multiple(() =>
        {
            Assert.That(top["logprobs"]![0]![0]!.AsArray().Select(value => (float)value!), Is.EqualTo(new[] { -0.125f, -0.25f }));
            Assert.That((none["logprobs"], none["logprob_token_ids"]), Is.EqualTo(((JsonNode?)null, (JsonNode?)null)));
        });
    }

    [Test]
    public async Task ChatTakesConversations()
    {
        var (status, body) = await Server.AskAsync("/chat/", $$$"""
            {"messages":[[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"image_pil","image_pil":"{{{Pixel}}}"},{"type":"text","text":"What is it?"}]}],[{"role":"user","content":"Hello!"}]],
            "n":1,"repetition_penalty":1.0,"temperature":1.0,"top_p":1.0,"top_k":0,"min_p":0.0,"max_tokens":16,"logprobs":0,"structured_outputs_regex":null,"generation_kwargs":{},"chat_template_kwargs":{},"tools":null}
            """);
        Assert.Multiple(() =>
        {
            Assert.That(status, Is.EqualTo(HttpStatusCode.OK), body.ToJsonString());
            Assert.That(Lists(body["completion_ids"])[1], Is.EqualTo(Engine.Tokenize("You said Hello!")));
            Assert.That(Lists(body["prompt_ids"])[0], Does.Contain(7));
            Assert.That(Engine.Requests.Select(request => ((Conversation)request.Prompt).Messages.Count), Is.EquivalentTo(new[] { 2, 1 }));
        });
    }

    [TestCase("""{"prompts":["a"],"structured_outputs_regex":"[AB]"}""")]
    [TestCase("""{"prompts":["a"],"guided_decoding_regex":"[AB]"}""")]
    [TestCase("""{"prompts":["a"],"generation_kwargs":{"structured_outputs":{"regex":"[AB]"}}}""")]
    public async Task ARegexConstrains(string json)
    {
        await Server.AskAsync("/generate/", json);
        Assert.That(Engine.Requests.Single().Constraint?.Regex, Is.EqualTo("[AB]"));
    }

    [TestCase("""{"prompts":["a"],"repetition_penalty":1.1}""", "repetition_penalty is not offered here: leave it out, or 1.")]
    [TestCase("""{"prompts":["a"],"min_p":0.1}""", "min_p is not offered here: leave it out, or 0.")]
    [TestCase("""{"prompts":["a"],"generation_kwargs":{"min_p":0.1}}""", "generation_kwargs.min_p is not offered here: leave it out, or 0.")]
    [TestCase("""{"prompts":["a"],"generation_kwargs":{"logit_bias":{"1":2}}}""", "generation_kwargs.logit_bias is not offered here: leave it out.")]
    [TestCase("""{"prompts":["a"],"n":65}""", "n must be a whole number from 1 to 64.")]
    [TestCase("""{"prompts":["a"],"max_tokens":2000}""", "max_tokens must be a whole number from 1 to 1024.")]
    [TestCase("""{"prompts":["a"],"logprobs":21}""", "logprobs must be a whole number from 0 to 20.")]
    [TestCase("""{"prompts":"a"}""", "prompts must be a list.")]
    [TestCase("""{"prompts":[7]}""", "prompts[0] must be a list of token ids.")]
    [TestCase("""{"prompts":[[7,1000]]}""", "prompts[0][1] must be a token id from 0 to 999.")]
    [TestCase("""{"prompts":["a","b"],"images":[null]}""", "images must be as many lists as there are prompts, or null.")]
    [TestCase("""{"prompts":["a"],"images":[["%"]]}""", "images[0][0] is not an image in base64.")]
    [TestCase("""{"prompts":["a"],"generation_kwargs":{"adapter":"x"}}""", "There is no model 'x' here; /v1/models lists them.")]
    public async Task WhatIsNotOfferedIsRefusedByName(string json, string detail)
    {
        var (status, body) = await Server.AskAsync("/generate/", json);
        Assert.That((int)status, Is.AnyOf(400, 404));
        Assert.That(((string?)body["detail"], body.AsObject().Count), Is.EqualTo((detail, 1)));
        Assert.That(Engine.Requests, Is.Empty);
    }

    [TestCase(""","tools":[{"type":"function"}]""", "tools cannot be used: this model calls no tools.")]
    [TestCase(""","chat_template_kwargs":{"enable_thinking":false}""", "chat_template_kwargs cannot be given by a request: the model's own template is used.")]
    public async Task ChatRefusesToolsAndTemplates(string more, string detail)
    {
        var (status, body) = await Server.AskAsync("/chat/", $$"""{"messages":[[{"role":"user","content":"a"}]]{{more}}}""");
        Assert.That((status, (string?)body["detail"]), Is.EqualTo((HttpStatusCode.BadRequest, detail)));
    }

    [Test]
    public async Task ABatchIsBoundedBeforeItIsDrawn()
    {
        var prompts = string.Join(',', Enumerable.Repeat("\"a\"", 1000));
        var (status, body) = await Server.AskAsync("/generate/", $$"""{"prompts":[{{prompts}}],"n":64,"max_tokens":1024}""");
        Assert.That((status, (string?)body["detail"]), Is.EqualTo((HttpStatusCode.BadRequest, "64000 completions of up to 1024 tokens with 1 log-probs each are more than one answer may hold here (8388608 log-probs): ask for fewer prompts at a time.")));
        Assert.That(Engine.Requests, Is.Empty);
    }

    [Test]
    public async Task SequencesAreScored()
    {
        var (_, body) = await Server.AskAsync("/get_sequence_logprobs/", """{"sequences":[[11,12,13],[21,22],[31]],"prompt_lengths":[1,0,1],"top_logprobs":1,"temperature":1.0,"response_format":"json"}""");
        Assert.Multiple(() =>
        {
            Assert.That(body["logprobs"]!.ToJsonString(), Is.EqualTo("[[[-0.125],[-0.25]],[[],[-0.125]],[]]"), "nothing comes before a first token");
            Assert.That(body["logprob_token_ids"]![0]!.AsArray(), Has.Count.EqualTo(2));
            Assert.That(body.AsObject(), Has.Count.EqualTo(2));
            Assert.That(Engine.Scores.Select(score => ((TokenPrompt)score.Prompt).Ids.Count), Is.EquivalentTo(new[] { 1, 1 }));
        });
    }

    [Test]
    public async Task SequencesAreScoredInBinary()
    {
        var (_, body) = await Server.AskAsync("/get_sequence_logprobs/", """{"sequences":[[11,12,13],[21,22]],"prompt_lengths":[1,1],"top_logprobs":2,"temperature":1.0,"response_format":"binary"}""");
        var logProbs = Array<float>(body["logprobs_b64"]);
        Assert.Multiple(() =>
        {
            Assert.That(body["shape"]!.ToJsonString(), Is.EqualTo("[2,2,2]"));
            Assert.That(body["completion_lengths"]!.ToJsonString(), Is.EqualTo("[2,1]"));
            Assert.That(logProbs, Is.EqualTo(new[] { -0.125f, -0.25f, -0.25f, -0.375f, -0.125f, -0.25f, float.NegativeInfinity, float.NegativeInfinity }));
            Assert.That(Array<int>(body["token_ids_b64"]), Has.Length.EqualTo(8));
            Assert.That(Array<float>(body["actual_logprobs_b64"]), Is.EqualTo(new[] { -0.125f, -0.25f, -0.125f, float.NegativeInfinity }));
            Assert.That(Array<int>(body["actual_token_ids_b64"])[3], Is.Zero);
        });
    }

    [TestCase("""{"sequences":[[1]],"prompt_lengths":[1]}""", "top_logprobs is 100, and this server tells the 20 likeliest tokens at most: ask for fewer.")]
    [TestCase("""{"sequences":[[1]],"prompt_lengths":[2],"top_logprobs":1}""", "prompt_lengths must be no longer than their sequences.")]
    [TestCase("""{"sequences":[[1]],"prompt_lengths":[],"top_logprobs":1}""", "prompt_lengths must be as many as there are sequences, 1.")]
    [TestCase("""{"sequences":[[1]],"prompt_lengths":[1],"top_logprobs":1,"response_format":"xml"}""", "response_format must be json or binary, not 'xml'.")]
    public async Task WrongSequencesAreRefused(string json, string detail)
    {
        var (status, body) = await Server.AskAsync("/get_sequence_logprobs/", json);
        Assert.That((status, (string?)body["detail"]), Is.EqualTo((HttpStatusCode.BadRequest, detail)));
    }

    [TestCase("/init_communicator/", """{"host":"0.0.0.0","port":51216,"world_size":2,"client_device_uuid":"42"}""")]
    [TestCase("/update_named_param/", """{"name":"lm_head.weight","dtype":"torch.bfloat16","shape":[10,10]}""")]
    [TestCase("/batch_update_named_params/", "{}")]
    [TestCase("/close_communicator/", null)]
    public async Task WeightTransferSaysWhatToDoInstead(string path, string? json)
    {
        using var response = json is null ? await Server.Client.PostAsync(path, null) : await Server.PostAsync(path, json);
        var detail = (string?)JsonNode.Parse(await response.Content.ReadAsStringAsync())!["detail"];
        Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.NotImplemented));
        Assert.That(detail, Does.Contain("/v1/load_lora_adapter"));
    }

    [Test]
    public async Task ResettingThePrefixCacheIsAccepted()
    {
        using var response = await Server.Client.PostAsync("/reset_prefix_cache/", null);
        Assert.That(await response.Content.ReadAsStringAsync(), Is.EqualTo("""{"message":"Request received, resetting prefix cache status: True"}"""));
    }

    [Test]
    public async Task ErrorsAreInFastApisForm()
    {
        Engine.Failure = new TimeoutException("It took too long.");
        var (status, body) = await Server.AskAsync("/generate/", """{"prompts":["a"]}""");
        Assert.That((status, body.ToJsonString()), Is.EqualTo((HttpStatusCode.GatewayTimeout, """{"detail":"It took too long."}""")));
    }

    // What VLLMClient.generate sends, all of its fields.
    private static string Generate(string prompts, string images, int n) => $$"""
        {"prompts":{{prompts}},"images":{{images}},"n":{{n}},"repetition_penalty":1.0,"temperature":1.0,"top_p":1.0,"top_k":0,"min_p":0.0,"max_tokens":64,"logprobs":0,"structured_outputs_regex":null,"generation_kwargs":{} }
        """;

    private static int[][] Lists(JsonNode? lists) => [.. lists!.AsArray().Select(list => list!.AsArray().Select(id => (int)id!).ToArray())];

    private static T[] Array<T>(JsonNode? base64)
        where T : struct => MemoryMarshal.Cast<byte, T>(Convert.FromBase64String((string)base64!)).ToArray();
}
