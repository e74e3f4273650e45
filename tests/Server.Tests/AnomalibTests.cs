using System.Net;
using LrIad.Engine.Serving;

namespace LrIad.Server.Tests;

/// <summary>What anomalib's VlmAd sends, recorded: two reference images in one message, the image in the next.</summary>
[TestFixture]
internal sealed class AnomalibTests
{
    private const string FewShot = "These are a few examples of normal picture without any anomalies. You have to use these to determine if the image I provide in the next chat is normal or anomalous.";
    private const string Predict = "Examine the following image carefully. Determine if there are any anomalies present.";

    [Test]
    public async Task ItsOpenAiBackendWithTheDotInTheMediaType()
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        var (status, body) = await server.AskAsync("/v1/chat/completions", $$$"""
            {"messages":[{"role":"user","content":[{"type":"text","text":"{{{FewShot}}}"},{"type":"image_url","image_url":{"url":"data:image/.png;base64,AQID"}},{"type":"image_url","image_url":{"url":"data:image/.jpg;base64,BAUG"}}]},
            {"role":"user","content":[{"type":"text","text":"{{{Predict}}}"},{"type":"image_url","image_url":{"url":"data:image/.png;base64,BwgJCg=="}}]}],"model":"{{{FakeEngine.Name}}}"}
            """);
        Assert.That((status, (string?)body["choices"]![0]!["message"]!["content"]), Is.EqualTo((HttpStatusCode.OK, $"You said {Predict}[image of 4 bytes]")));
        Assert.That(Images(engine), Is.EqualTo(new byte[][] { [1, 2, 3], [4, 5, 6], [7, 8, 9, 10] }));
    }

    [Test]
    public async Task ItsOllamaBackend()
    {
        await using var engine = new FakeEngine();
        await using var server = await TestServer.StartAsync(engine);
        var (status, body) = await server.AskAsync("/api/chat", $$"""
            {"model":"{{FakeEngine.Name}}","messages":[{"role":"user","content":"{{FewShot}}","images":["AQID","BAUG"]},{"role":"user","content":"{{Predict}}","images":["BwgJCg=="]}],"tools":[],"stream":false}
            """);
        Assert.That((status, (string?)body["message"]!["content"]), Is.EqualTo((HttpStatusCode.OK, $"You said [image of 4 bytes]{Predict}")));
        Assert.That(Images(engine), Is.EqualTo(new byte[][] { [1, 2, 3], [4, 5, 6], [7, 8, 9, 10] }));
    }

    private static byte[][] Images(FakeEngine engine) =>
        [.. ((Conversation)engine.Requests.Single().Prompt).Messages.SelectMany(message => message.Parts).Select(part => part.Image?.Bytes.ToArray()).OfType<byte[]>()];
}
