using System.CommandLine;
using System.Net;
using System.Net.Sockets;
using LrIad.Engine;
using LrIad.Engine.Serving;
using LrIad.Server;
using Microsoft.AspNetCore.Builder;
using static LrIad.Cli.Settings<LrIad.Cli.ServeOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>serve</c>.</summary>
internal sealed record ServeOptions
{
    public EngineOptions Engine { get; init; } = new() { Model = "" };

    public ServerOptions Server { get; init; } = new();
}

/// <summary>A model that answers over HTTP.</summary>
internal static class ServeCommand
{
    private static readonly Setting<ServeOptions>[] Settings =
    [
        One("model", "DIR", "base model folder", Engine((e, v) => e with { Model = v.Text })),
        One("name", "NAME", "what requests call the base model (the folder's name)", Engine((e, v) => e with { Name = v.Text })),
        Many("adapter", "NAME=DIR", "adapter folders by the names that requests call them", Engine((e, v) => e with { Adapters = Adapters(v) })),
        One("host", "ADDRESS", "the address to listen at (127.0.0.1: this machine alone; 0.0.0.0: all networks)", Server((s, v) => s with { Address = Address(v) })),
        One("port", "N", "the port to listen at (8000; 0: any that is free)", Server((s, v) => s with { Port = v.Count <= IPEndPoint.MaxPort ? v.Count : throw v.Bad("must be at most 65535") })),
        One("api-key-file", "FILE", "a file with the key that every request must bring", Server((s, v) => s with { ApiKey = ApiKey(v) })),
        One("allow-files", "DIR", "a folder that requests may name images in", Server((s, v) => s with { FilesFolder = Folder(v) })),
        One("allow-adapters", "DIR", "a folder that requests may load adapters from", Server((s, v) => s with { AdaptersFolder = Folder(v) })),
        One("max-sequences", "N", "completions drawn side by side (64)", Limits((l, v) => l with { Sequences = DataOptions.Positive(v) })),
        One("max-prompt-length", "N", "tokens a prompt may have, images included (2048)", Limits((l, v) => l with { PromptLength = DataOptions.Positive(v) })),
        One("max-completion-length", "N", "tokens a completion may have (1024)", Limits((l, v) => l with { CompletionLength = DataOptions.Positive(v) })),
        One("max-completions", "N", "completions a request may ask for (64)", Limits((l, v) => l with { CompletionsPerRequest = DataOptions.Positive(v) })),
        One("max-waiting", "N", "requests that may wait for their turn (256)", Limits((l, v) => l with { Waiting = DataOptions.Positive(v) })),
        One("max-images", "N", "images a request may have (8)", Limits((l, v) => l with { ImagesPerRequest = v.Count })),
        One("max-image-bytes", "N", "bytes an image file may have (16777216)", Server((s, v) => s with { ImageBytes = DataOptions.Positive(v) })),
        One("max-body-bytes", "N", "bytes a request may have (67108864)", Server((s, v) => s with { BodyBytes = DataOptions.Positive(v) })),
        One("max-pixels", "N", "images are scaled down to this many pixels (an adapter's own, else 401408)", Limits((l, v) => l with { MaxPixels = DataOptions.MaxPixels(v) })),
        One("max-connections", "N", "connections at a time (1024)", Server((s, v) => s with { Connections = DataOptions.Positive(v) })),
        One("max-seconds", "N", "seconds a request may take from its arrival on (600)", Limits((l, v) => l with { RequestTime = TimeSpan.FromSeconds(DataOptions.Positive(v)) })),
        One("stop-seconds", "N", "seconds that running requests are waited for when the server stops (10)", Server((s, v) => s with { StopTime = TimeSpan.FromSeconds(v.Count) })),
        One("prompt-template", "FILE", "another question for inspections; {object} stands for the object", Engine((e, v) => e with { PromptTemplate = v.Text })),
        One("device", "NAME", Devices.Help, Engine((e, v) => e with { Device = Devices.Parse(v) })),
    ];

    public static Command Create(Host host) =>
        Verb.Create(host, "serve", "Answers requests over HTTP, as OpenAI's, vLLM's, Ollama's and TRL's servers do, and inspects images, until it is stopped.", new ServeOptions(), Settings, (options, session) => RunAsync(options, session).GetAwaiter().GetResult(), hasConfigFile: true);

    private static async Task<int> RunAsync(ServeOptions options, Session session)
    {
        DataOptions.Require(options.Engine.Model, "--model DIR");
        await using var engine = InferenceEngine.Load(options.Engine);
        await using var app = LriadServer.Create(engine, options.Server with { Question = engine.Template }, session.Screen.Note);
        await StartAsync(app, options.Server);
        session.Screen.Result($"{string.Join(", ", [engine.Model.Name, .. engine.Adapters])} on {engine.Model.Device}, at {app.Urls.Single()}");
        if (!IPAddress.IsLoopback(options.Server.Address) && options.Server.ApiKey is null)
        {
            session.Screen.Note("Everybody who can reach this address can ask: --api-key-file FILE lets in those alone who have the key.");
        }

        await Task.Delay(Timeout.InfiniteTimeSpan, session.Cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        session.Screen.Note($"No new requests are taken; {engine.Statistics.Running + engine.Statistics.Waiting} are being finished.");
        await app.StopAsync();
        return 0;
    }

    private static async Task StartAsync(WebApplication app, ServerOptions options)
    {
        try
        {
            await app.StartAsync();
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            throw new InputException($"Nobody can listen at {options.Address}, port {options.Port}: {e.Message} --host and --port choose another place.", e);
        }
    }

    private static Func<ServeOptions, Values, ServeOptions> Engine(Func<EngineOptions, Values, EngineOptions> apply) => (o, v) => o with { Engine = apply(o.Engine, v) };

    private static Func<ServeOptions, Values, ServeOptions> Limits(Func<EngineLimits, Values, EngineLimits> apply) => Engine((e, v) => e with { Limits = apply(e.Limits, v) });

    private static Func<ServeOptions, Values, ServeOptions> Server(Func<ServerOptions, Values, ServerOptions> apply) => (o, v) => o with { Server = apply(o.Server, v) };

    private static Dictionary<string, string> Adapters(Values values)
    {
        var adapters = new Dictionary<string, string>();
        foreach (var text in values.Texts)
        {
            var parts = text.Split('=', 2);
            if (parts is not [{ Length: > 0 } name, { Length: > 0 } folder] || !adapters.TryAdd(name, folder))
            {
                throw values.Bad($"takes NAME=DIR, each name once, not '{text}'");
            }
        }

        return adapters;
    }

    private static IPAddress Address(Values values) => values.Text == "localhost" ? IPAddress.Loopback
        : IPAddress.TryParse(values.Text, out var address) ? address
        : throw values.Bad($"must be an address of this machine, 127.0.0.1 or 0.0.0.0 say, not '{values.Text}'");

    private static string Folder(Values values) => Directory.Exists(values.Text) ? values.Text : throw values.Bad($"must be a folder, not '{values.Text}'");

    // A file: what stands on a command line shows in the list of processes.
    private static string ApiKey(Values values)
    {
        try
        {
            var key = File.ReadAllText(values.Text).Trim();
            return key.Length > 0 && key.All(character => character is > ' ' and < '\x7f') ? key : throw values.Bad($"must name a file with a key of visible ASCII characters; {values.Text} has none");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw values.Bad($"cannot be read: {e.Message}");
        }
    }
}
