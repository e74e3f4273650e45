using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LrIad.Server.Tests;

/// <summary>Adapters, loaded and forgotten while the server runs.</summary>
[TestFixture]
internal sealed class AdapterTests
{
    private string _folder = "";

    [SetUp]
    public void MakeAdapters()
    {
        _folder = Directory.CreateTempSubdirectory("lriad-server-tests").FullName;
        foreach (var name in new[] { "allowed/visa", "other" })
        {
            Directory.CreateDirectory(Path.Combine(_folder, name));
            File.WriteAllText(Path.Combine(_folder, name, "adapter_config.json"), "{}");
        }
    }

    [TearDown]
    public void RemoveAdapters() => Directory.Delete(_folder, recursive: true);

    [Test]
    public async Task LoadedUsedAndForgotten()
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { AdaptersFolder = Path.Combine(_folder, "allowed") });
        using var loaded = await server.PostAsync("/v1/load_lora_adapter", Load("visa", Path.Combine(_folder, "allowed", "visa")));
        var list = JsonNode.Parse(await server.Client.GetStringAsync("/v1/models"))!["data"]!.AsArray().Select(model => ((string?)model!["id"], (string?)model["parent"])).ToArray();
        var (used, answer) = await server.AskAsync("/v1/chat/completions", """{"model":"visa","messages":[{"role":"user","content":"a"}]}""");
        var (again, _) = await server.AskAsync("/v1/load_lora_adapter", Load("visa", "visa"));
        using var forgotten = await server.PostAsync("/v1/unload_lora_adapter", """{"lora_name":"visa"}""");
        var (unknown, _) = await server.AskAsync("/v1/unload_lora_adapter", """{"lora_name":"visa"}""");
        Assert.Multiple(() =>
        {
            Assert.That((loaded.StatusCode, used, again, forgotten.StatusCode, unknown), Is.EqualTo((HttpStatusCode.OK, HttpStatusCode.OK, HttpStatusCode.BadRequest, HttpStatusCode.OK, HttpStatusCode.NotFound)));
            Assert.That(list, Is.EqualTo(new[] { (FakeEngine.Name, null), ("visa", FakeEngine.Name) }));
            Assert.That((engine.Requests.Single().Adapter, (string?)answer["model"]), Is.EqualTo(("visa", "visa")));
        });
    }

    [Test]
    public async Task LoadingIsRefusedUnlessAFolderWasGiven()
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        var (status, body) = await server.AskAsync("/v1/load_lora_adapter", Load("visa", Path.Combine(_folder, "allowed", "visa")));
        Assert.That(status, Is.EqualTo(HttpStatusCode.Forbidden));
        Assert.That((string?)body["error"]!["message"], Does.Contain("--allow-adapters"));
    }

    [TestCase("x", "../other", "outside the folder")]
    [TestCase("x", "nothing", "adapter_config.json")]
    [TestCase(FakeEngine.Name, "visa", "is taken")]
    [TestCase("", "visa", "lora_name")]
    [TestCase("a\nb", "visa", "lora_name")]
    public async Task WhatCannotBeLoaded(string name, string path, string expected)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { AdaptersFolder = Path.Combine(_folder, "allowed") });
        var (status, body) = await server.AskAsync("/v1/load_lora_adapter", Load(name, path));
        Assert.That((status, engine.Adapters.Count), Is.EqualTo((HttpStatusCode.BadRequest, 0)));
        Assert.That((string?)body["error"]!["message"], Does.Contain(expected));
    }

    private static string Load(string name, string path) => JsonSerializer.Serialize(new { lora_name = name, lora_path = path });
}
