namespace LrIad.Server.Tests;

/// <summary>Tests that each have a server of their own around an engine that repeats what it is told.</summary>
internal abstract class ServerTests
{
    /// <summary>What answers.</summary>
    protected FakeEngine Engine { get; private set; } = null!;

    /// <summary>The server around it.</summary>
    protected TestServer Server { get; private set; } = null!;

    [SetUp]
    public async Task Start() => Server = await TestServer.StartAsync(Engine = new FakeEngine());

    [TearDown]
    public async Task Stop()
    {
        await Server.DisposeAsync();
        await Engine.DisposeAsync();
    }
}
