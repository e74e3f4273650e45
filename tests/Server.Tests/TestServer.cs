using System.Net;
using System.Text;
using System.Text.Json.Nodes;
using LrIad.Engine.Serving;
using Microsoft.AspNetCore.Builder;

namespace LrIad.Server.Tests;

/// <summary>A server on a free port of this machine, and a client of it.</summary>
internal sealed class TestServer : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly List<string> _log = [];

    private TestServer(IInferenceEngine engine, ServerOptions options)
    {
        _app = LriadServer.Create(engine, options with { Port = 0 }, line =>
        {
            lock (_log)
            {
                _log.Add(line);
            }
        });
    }

    /// <summary>Where it listens.</summary>
    public Uri Address { get; private set; } = null!;

    /// <summary>A client that sends no more than it is told.</summary>
    public HttpClient Client { get; private set; } = null!;

    /// <summary>What the server logged.</summary>
    public IReadOnlyList<string> Log
    {
        get
        {
            lock (_log)
            {
                return [.. _log];
            }
        }
    }

    public static async Task<TestServer> StartAsync(IInferenceEngine engine, ServerOptions? options = null)
    {
        var server = new TestServer(engine, options ?? new ServerOptions());
        await server._app.StartAsync();
        server.Address = new Uri(server._app.Urls.Single());

        // One that leaves amid an answer does so at once, instead of reading on for some seconds.
        server.Client = new HttpClient(new SocketsHttpHandler { ResponseDrainTimeout = TimeSpan.Zero }) { BaseAddress = server.Address };
        return server;
    }

    public Task StopAsync() => _app.StopAsync();

    /// <summary>Posts a JSON text.</summary>
    public Task<HttpResponseMessage> PostAsync(string path, string json, CancellationToken cancellation = default) =>
        Client.PostAsync(path, new StringContent(json, Encoding.UTF8, "application/json"), cancellation);

    /// <summary>Posts a JSON text; returns the answer's status and JSON.</summary>
    public async Task<(HttpStatusCode Status, JsonNode Body)> AskAsync(string path, string json)
    {
        using var response = await PostAsync(path, json);
        return (response.StatusCode, JsonNode.Parse(await response.Content.ReadAsStringAsync())!);
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await _app.DisposeAsync();
    }
}
