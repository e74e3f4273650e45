using System.Net;
using System.Text.Json.Nodes;
using LrIad.Engine;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>Whole folders: progress, bad images, bounds, cancellation, and no way out of the allowed folder.</summary>
[TestFixture]
internal sealed class InspectJobTests
{
    private const string Path = "/inspect/jobs";

    private FakeEngine _engine = null!;
    private TestServer _server = null!;
    private string _folder = null!;

    [SetUp]
    public async Task Start()
    {
        _folder = Directory.CreateTempSubdirectory("lriad-jobs-").FullName;
        _engine = new FakeEngine { Answer = (request, _) => Bytes(request)[0] == 99 ? throw new InputException("image is truncated.") : $"<think>It is number {Bytes(request)[0]}.</think> <answer> B </answer>" };
        _server = await TestServer.StartAsync(_engine, new ServerOptions { FilesFolder = _folder });
    }

    [TearDown]
    public async Task Stop()
    {
        await _server.DisposeAsync();
        await _engine.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    [Test]
    public async Task AFolderIsInspectedAndABadImageIsToldAndPassedOver()
    {
        Fill("parts", 1, 2, 99, 3);
        File.WriteAllText(At("parts", "notes.txt"), "no image");
        Directory.CreateDirectory(At("parts", "ground_truth"));
        File.WriteAllBytes(At("parts", "ground_truth", "mask.png"), [50]);
        using var begun = await _server.PostAsync(Path, """{"folder":"parts","object":"metal_nut","threshold":1}""");
        var first = JsonNode.Parse(await begun.Content.ReadAsStringAsync())!;
        Assert.Multiple(() =>
        {
            Assert.That(begun.StatusCode, Is.EqualTo(HttpStatusCode.Accepted), first.ToJsonString());
            Assert.That(begun.Headers.Location!.ToString(), Is.EqualTo($"{Path}/{(string?)first["id"]}"));
            Assert.That((int)first["images"]!, Is.EqualTo(4), "without notes, and without what lies in folders below");
        });

        var job = await EndAsync((string)first["id"]!);
        var results = job["results"]!.AsArray().OrderBy(result => (string?)result!["image_path"], StringComparer.Ordinal).ToArray();
        Assert.Multiple(() =>
        {
            Assert.That(((string?)job["status"], (int)job["inspected"]!, (int)job["next"]!), Is.EqualTo(("done", 3, 3)));
            Assert.That(results.Select(result => (string?)result!["explanation"]), Is.EqualTo(new[] { "It is number 1.", "It is number 2.", "It is number 3." }));
            Assert.That(results.Select(result => (string?)result!["image_path"]), Is.EqualTo(new[] { "parts/0.png", "parts/1.png", "parts/3.png" }));
            Assert.That(results[0]!.AsObject().Select(field => field.Key), Is.SupersetOf(new[] { "image_path", "object", "pred_label", "pred_score", "explanation", "completion", "valid" }));
            Assert.That((int?)results[0]!["pred_label"], Is.EqualTo(1), "by the threshold");
            Assert.That(job["skipped"]!.ToJsonString(), Is.EqualTo("""[{"image_path":"parts/2.png","reason":"image is truncated."}]"""));
        });
        var rest = await GetAsync($"{(string?)first["id"]}?from=2");
        Assert.That(rest["results"]!.AsArray(), Has.Count.EqualTo(1));
    }

    [Test]
    public async Task ProgressIsSeenAndAJobCanBeEnded()
    {
        _engine.TokenTime = TimeSpan.FromMilliseconds(20);
        Fill("parts", [.. Enumerable.Range(1, 98).Select(i => (byte)i)]);
        var id = await BeginAsync("parts");
        JsonNode job;
        while ((int)(job = await GetAsync(id))["inspected"]! == 0)
        {
            await Task.Delay(5);
        }

        Assert.That(((string?)job["status"], (int)job["images"]!), Is.EqualTo(("running", 98)));
        using var ended = await _server.Client.DeleteAsync($"{Path}/{id}");
        job = JsonNode.Parse(await ended.Content.ReadAsStringAsync())!;
        Assert.Multiple(() =>
        {
            Assert.That(((string?)job["status"], _engine.Statistics.Running), Is.EqualTo(("cancelled", 0)));
            Assert.That((int)job["inspected"]!, Is.InRange(1, 97));
        });
        Assert.That((await GetAsync(id))["results"]!.AsArray(), Is.Not.Empty, "what it came to stays");
    }

    [Test]
    public async Task AFullQueueIsWaitedFor()
    {
        Fill("parts", 1, 2, 3);
        _engine.Failure = new EngineBusyException("256 requests are waiting.");
        var id = await BeginAsync("parts");
        await Task.Delay(100);
        Assert.That((string?)(await GetAsync(id))["status"], Is.EqualTo("running"));
        _engine.Failure = null;
        Assert.That((int)(await EndAsync(id))["inspected"]!, Is.EqualTo(3));
    }

    [Test]
    public async Task OnlyAFewRunAtATimeAndTheLastAreKept()
    {
        Fill("parts", 1);
        _engine.TokenTime = TimeSpan.FromHours(1);
        var running = new List<string>();
        for (var i = 0; i < 4; i++)
        {
            running.Add(await BeginAsync("parts"));
        }

        var (status, body) = await _server.AskAsync(Path, """{"folder":"parts","object":"tile"}""");
        Assert.That((status, (string?)body["error"]!["message"]), Is.EqualTo((HttpStatusCode.TooManyRequests, "4 jobs are running, and no more at a time: wait until one of them ends, or end one with DELETE.")));
        foreach (var id in running)
        {
            using var ended = await _server.Client.DeleteAsync($"{Path}/{id}");
        }

        _engine.TokenTime = TimeSpan.Zero;
        for (var i = 0; i < 30; i++)
        {
            await EndAsync(await BeginAsync("parts"));
        }

        using var first = await _server.Client.GetAsync($"{Path}/{running[0]}");
        using var last = await _server.Client.GetAsync($"{Path}/{running[3]}");
        Assert.That((first.StatusCode, last.StatusCode), Is.EqualTo((HttpStatusCode.NotFound, HttpStatusCode.OK)));
    }

    [Test]
    public async Task NothingLeadsOutOfTheAllowedFolder()
    {
        var outside = Directory.CreateTempSubdirectory("lriad-outside-").FullName;
        File.WriteAllBytes(System.IO.Path.Combine(outside, "secret.png"), [1]);
        Fill("parts", 1);
        Directory.CreateSymbolicLink(At("link"), outside);
        File.CreateSymbolicLink(At("parts", "z.png"), System.IO.Path.Combine(outside, "secret.png"));
        foreach (var folder in new[] { outside, "link", "../" + System.IO.Path.GetFileName(outside), "parts/../../" + System.IO.Path.GetFileName(outside), "/", ".." })
        {
            var (status, body) = await _server.AskAsync(Path, new JsonObject { ["folder"] = folder, ["object"] = "tile" }.ToJsonString());
            Assert.That((status, (string?)body["error"]!["message"]), Is.EqualTo((HttpStatusCode.BadRequest, "folder names something outside the folder that this server was allowed to read.")), folder);
        }

        var job = await EndAsync(await BeginAsync("parts"));
        Assert.That((string?)job["skipped"]![0]!["reason"], Does.Contain("outside the folder"));
        Assert.That(_engine.Requests, Has.Count.EqualTo(1));
        Directory.Delete(outside, recursive: true);
    }

    [TestCase("""{"folder":"nowhere","object":"tile"}""", "folder names no folder that can be read.")]
    [TestCase("""{"folder":"empty","object":"tile"}""", "folder has no images in it (PNG, JPEG, BMP, WebP or TIFF).")]
    [TestCase("""{"object":"tile"}""", "folder is missing.")]
    [TestCase("""{"folder":"empty"}""", "object is missing.")]
    public async Task WhatIsWrongIsSaid(string json, string message)
    {
        Directory.CreateDirectory(At("empty"));
        var (status, body) = await _server.AskAsync(Path, json);
        Assert.That((status, (string?)body["error"]!["message"]), Is.EqualTo((HttpStatusCode.BadRequest, message)));
    }

    [Test]
    public async Task WithoutAnAllowedFolderThereAreNoJobs()
    {
        await using var server = await TestServer.StartAsync(_engine);
        var (status, body) = await server.AskAsync(Path, """{"folder":"parts","object":"tile"}""");
        Assert.That((status, (string?)body["error"]!["message"]), Is.EqualTo((HttpStatusCode.BadRequest, "folder names a file or folder, and this server was started without --allow-files: send the image itself, as data:image/png;base64,….")));
    }

    [Test]
    public async Task AnErrorOfTheServersOwnEndsAJobAndIsLogged()
    {
        Fill("parts", 1);
        _engine.Failure = new InvalidOperationException("The device is gone.");
        var job = await EndAsync(await BeginAsync("parts"));
        Assert.That(((string?)job["status"], (string?)job["error"]), Is.EqualTo(("failed", "The server failed to answer this request; its log says why.")));
        Assert.That(_server.Log.Single(), Does.Contain("The device is gone."));
    }

    [Test]
    public async Task AStoppedServerLeavesNoJobBehind()
    {
        Fill("parts", 1);
        _engine.TokenTime = TimeSpan.FromHours(1);
        await BeginAsync("parts");
        while (_engine.Statistics.Running == 0)
        {
            await Task.Delay(5);
        }

        await _server.DisposeAsync();
        Assert.That(_engine.Statistics.Running, Is.Zero);
    }

    private static byte[] Bytes(GenerationRequest request) => ((Conversation)request.Prompt).Messages.Single().Parts[0].Image!.Bytes.ToArray();

    private string At(params string[] parts) => System.IO.Path.Combine([_folder, .. parts]);

    private void Fill(string folder, params byte[] images)
    {
        Directory.CreateDirectory(At(folder));
        for (var i = 0; i < images.Length; i++)
        {
            File.WriteAllBytes(At(folder, $"{i}.png"), [images[i]]);
        }
    }

    private async Task<string> BeginAsync(string folder)
    {
        var (status, body) = await _server.AskAsync(Path, new JsonObject { ["folder"] = folder, ["object"] = "tile" }.ToJsonString());
        Assert.That(status, Is.EqualTo(HttpStatusCode.Accepted), body.ToJsonString());
        return (string)body["id"]!;
    }

    private async Task<JsonNode> GetAsync(string id) => JsonNode.Parse(await _server.Client.GetStringAsync($"{Path}/{id}"))!;

    private async Task<JsonNode> EndAsync(string id)
    {
        while (true)
        {
            var job = await GetAsync(id);
            if ((string?)job["status"] != "running")
            {
                return job;
            }

            await Task.Delay(5);
        }
    }
}
