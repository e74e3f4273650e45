using System.Net;
using System.Text.Json.Nodes;

namespace LrIad.Server.Tests;

/// <summary>What is served, and whether the server is there.</summary>
[TestFixture]
internal sealed class ModelsTests
{
    [Test]
    public async Task Health()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        using var response = await server.Client.GetAsync("/health");
        Assert.That(response.StatusCode, Is.EqualTo(HttpStatusCode.OK));
    }

    [Test]
    public async Task BaseModel()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        var list = JsonNode.Parse(await server.Client.GetStringAsync("/v1/models"))!;
        Assert.Multiple(() =>
        {
            Assert.That((string?)list["object"], Is.EqualTo("list"));
            Assert.That((string?)list["data"]![0]!["id"], Is.EqualTo(FakeEngine.Name));
            Assert.That((int)list["data"]![0]!["max_model_len"]!, Is.EqualTo(3072));
        });
    }

    [Test]
    public async Task UnknownModelAndAddress()
    {
        await using var server = await TestServer.StartAsync(new FakeEngine());
        using var model = await server.Client.GetAsync("/v1/models/other");
        using var address = await server.Client.GetAsync("/nowhere");
        var error = JsonNode.Parse(await model.Content.ReadAsStringAsync())!["error"]!;
        Assert.Multiple(() =>
        {
            Assert.That((model.StatusCode, address.StatusCode), Is.EqualTo((HttpStatusCode.NotFound, HttpStatusCode.NotFound)));
            Assert.That((string?)error["code"], Is.EqualTo("model_not_found"));
        });
    }
}
