using System.Net;
using System.Text.Json;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>Where images may come from: the request, or the allowed folder and nothing outside of it.</summary>
[TestFixture]
internal sealed class ImageTests
{
    private const string Chat = "/v1/chat/completions";

    private string _root = "";
    private string _folder = "";

    [SetUp]
    public void MakeFolders()
    {
        _root = Directory.CreateTempSubdirectory("lriad-server-tests").FullName;
        _folder = Directory.CreateDirectory(Path.Combine(_root, "allowed")).FullName;
        Directory.CreateDirectory(Path.Combine(_folder, "parts"));
        Directory.CreateDirectory(Path.Combine(_root, "allowed-not"));
        File.WriteAllBytes(Path.Combine(_folder, "parts", "a b.png"), [1, 2, 3]);
        File.WriteAllBytes(Path.Combine(_folder, "large.png"), new byte[101]);
        File.WriteAllBytes(Path.Combine(_root, "secret.png"), [9]);
        File.WriteAllBytes(Path.Combine(_root, "allowed-not", "secret.png"), [9]);
        File.CreateSymbolicLink(Path.Combine(_folder, "out.png"), Path.Combine(_root, "secret.png"));
        File.CreateSymbolicLink(Path.Combine(_folder, "out-relative.png"), "../secret.png");
        File.CreateSymbolicLink(Path.Combine(_folder, "twice.png"), "out-relative.png");
        Directory.CreateSymbolicLink(Path.Combine(_folder, "up"), "..");
        Directory.CreateSymbolicLink(Path.Combine(_folder, "inside"), "parts");
        File.CreateSymbolicLink(Path.Combine(_folder, "circle"), "circle");
    }

    [TearDown]
    public void RemoveFolders() => Directory.Delete(_root, recursive: true);

    [TestCase("data:image/png;base64,AQID")]
    [TestCase("data:image/.png;base64,AQID")]
    [TestCase("data:;base64,AQID")]
    [TestCase("DATA:image/jpeg;charset=x;BASE64,AQID")]
    [TestCase("data:image/png;base64,AQ ID\n")]
    public async Task DataUris(string url) => Assert.That((await AskAsync(url)).Image, Is.EqualTo(new byte[] { 1, 2, 3 }));

    [Test]
    public async Task EscapedSlashesAreRead() => Assert.That((await AskAsync("data:image/png;base64,////", json => json.Replace("/", "\\/", StringComparison.Ordinal))).Image, Is.EqualTo(new byte[] { 255, 255, 255 }));

    [TestCase("data:image/png;base64,")]
    [TestCase("data:image/png;base64,A")]
    [TestCase("data:image/png;base64,AQI*")]
    [TestCase("data:image/png;base64,AQIDé")]
    [TestCase("data:image/png,AQID")]
    [TestCase("data:")]
    [TestCase("")]
    [TestCase("ftp://example.org/a.png")]
    public async Task WhatIsNoImage(string url) => Assert.That((await AskAsync(url)).Status, Is.EqualTo(HttpStatusCode.BadRequest));

    [TestCase("http://127.0.0.1:1/a.png")]
    [TestCase("https://example.org/a.png")]
    [TestCase("HTTP://example.org/a.png")]
    public async Task NothingIsFetched(string url)
    {
        var (status, message, _) = await AskAsync(url);
        Assert.That(status, Is.EqualTo(HttpStatusCode.BadRequest));
        Assert.That(message, Does.Contain("never fetches"));
    }

    [Test]
    public async Task FilesOfTheAllowedFolder([Values("parts/a b.png", "{0}/parts/a b.png", "file://{0}/parts/a%20b.png", "inside/a b.png", "parts/../parts/a b.png")] string url) =>
        Assert.That((await AskAsync(url.Replace("{0}", _folder, StringComparison.Ordinal), folder: _folder)).Image, Is.EqualTo(new byte[] { 1, 2, 3 }));

    [Test]
    public async Task NothingOutsideTheAllowedFolder([Values(
        "../secret.png", "{0}/../secret.png", "file://{0}/../secret.png", "file://{0}/%2e%2e/secret.png", "out.png", "out-relative.png", "twice.png", "up/secret.png", "inside/../../secret.png",
        "{0}-not/secret.png", "/etc/passwd", "file:///etc/passwd", "../nothing.png", "circle", "file://example.org/etc/passwd", "parts/a\0b")] string url)
    {
        var (status, message, _) = await AskAsync(url.Replace("{0}", _folder, StringComparison.Ordinal), folder: _folder);
        Assert.That(status, Is.EqualTo(HttpStatusCode.BadRequest));
        Assert.That(message, Does.Contain("outside the folder"));
    }

    [TestCase("nothing.png", "cannot be read")]
    [TestCase("parts", "cannot be read")]
    [TestCase("large.png", "larger than the 100 bytes")]
    public async Task FilesThatCannotBeRead(string url, string expected)
    {
        var (status, message, _) = await AskAsync(url, folder: _folder);
        Assert.That(status, Is.EqualTo(HttpStatusCode.BadRequest));
        Assert.That(message, Does.Contain(expected).And.Not.Contain(_root));
    }

    [Test]
    public async Task WithoutAnAllowedFolderNoFileIsRead() => Assert.That((await AskAsync(Path.Combine(_folder, "parts", "a b.png"))).Message, Does.Contain("--allow-files"));

    [Test]
    public async Task LargeImagesAndManyOfThem()
    {
        var large = await AskAsync("data:image/png;base64," + Convert.ToBase64String(new byte[101]));
        var fitting = await AskAsync("data:image/png;base64," + Convert.ToBase64String(new byte[100]));
        var many = await AskAsync("data:image/png;base64,AQID", count: 9);
        Assert.Multiple(() =>
        {
            Assert.That((large.Status, fitting.Status, many.Status), Is.EqualTo((HttpStatusCode.BadRequest, HttpStatusCode.OK, HttpStatusCode.BadRequest)));
            Assert.That(large.Message, Does.Contain("larger than the 100 bytes"));
            Assert.That(many.Message, Does.Contain("more than the 8 images"));
        });
    }

    private static async Task<(HttpStatusCode Status, string? Message, byte[]? Image)> AskAsync(string url, Func<string, string>? change = null, string? folder = null, int count = 1)
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine, new ServerOptions { FilesFolder = folder, ImageBytes = 100 });
        var part = JsonSerializer.Serialize(new { type = "image_url", image_url = new { url } });
        var json = $$"""{"messages":[{"role":"user","content":[{{string.Join(',', Enumerable.Repeat(part, count))}}]}]}""";
        var (status, body) = await server.AskAsync(Chat, change is null ? json : change(json));
        var image = engine.Requests.Count == 0 ? null : ((Conversation)engine.Requests[0].Prompt).Messages[0].Parts[0].Image;
        return (status, (string?)body["error"]?["message"], image?.Bytes.ToArray());
    }
}
