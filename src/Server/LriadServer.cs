using LrIad.Engine.Serving;
using LrIad.Server.Inspect;
using LrIad.Server.Measure;
using LrIad.Server.Ollama;
using LrIad.Server.OpenAi;
using LrIad.Server.Page;
using LrIad.Server.Requests;
using LrIad.Server.Trl;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace LrIad.Server;

/// <summary>An engine behind HTTP: OpenAI's protocol with what vLLM adds to it, Ollama's, TRL's for rollouts, inspections of images and folders, and a page for people.</summary>
public static class LriadServer
{
    /// <summary>Makes a server. It reads no configuration but its options, and leaves the engine to its owner.</summary>
    /// <param name="engine">What answers.</param>
    /// <param name="options">Where it listens, and what it accepts.</param>
    /// <param name="log">Takes a line for each thing that went wrong in the server itself; null: nobody is told.</param>
    public static WebApplication Create(IInferenceEngine engine, ServerOptions options, Action<string>? log = null)
    {
        var (errors, metrics) = (new Errors(log ?? (_ => { })), new ServingMetrics(engine.Limits));
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => Listen(kestrel, options));
        builder.Services.AddSingleton<IHostLifetime, OwnersLifetime>();
        builder.Services.AddRoutingCore();
        builder.Services.AddOpenApi();
        builder.Services.ConfigureHttpJsonOptions(json =>
        {
            // For the document, which tells of fields as they go over the wire.
            json.SerializerOptions.PropertyNamingPolicy = Json.Wire.PropertyNamingPolicy;
            json.SerializerOptions.NumberHandling = Json.Wire.NumberHandling;
        });
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = options.StopTime);
        builder.Services.AddSingleton(options);
        builder.Services.AddSingleton(metrics);
        builder.Services.AddSingleton<IInferenceEngine>(new MeasuredEngine(engine, metrics));
        builder.Services.AddSingleton(errors);
        builder.Services.AddSingleton(new BodyBudget(options.AllBodiesBytes));
        builder.Services.AddSingleton(new ImageSources(options));
        builder.Services.AddSingleton<InspectJobs>();

        var app = builder.Build();
        app.UseRouting();
        app.Use(errors.Invoke);
        app.Use(new Guard(options).Invoke);

        // Each protocol is a class with a Map of its own; errors take the form that the protocol's endpoints name.
        app.MapOpenApi("/openapi.json");
        Health.Map(app);
        ServingMetrics.Map(app);
        Models.Map(app);
        ChatCompletions.Map(app);
        LoraAdapters.Map(app);
        OllamaModels.Map(app);
        OllamaChat.Map(app);
        TrlRollouts.Map(app);
        TrlScoring.Map(app);
        TrlWeights.Map(app);
        InspectImage.Map(app);
        InspectJobs.Map(app);
        InspectPage.Map(app);
        return app;
    }

    private static void Listen(KestrelServerOptions kestrel, ServerOptions options)
    {
        kestrel.AddServerHeader = false;
        kestrel.Limits.MaxRequestBodySize = options.BodyBytes;
        kestrel.Limits.MaxConcurrentConnections = options.Connections;
        kestrel.Limits.RequestHeadersTimeout = options.HeaderTime;
        kestrel.Listen(options.Address, options.Port, listen => listen.Protocols = HttpProtocols.Http1);
    }

    // The owner starts and stops it; signals are none of its business.
    private sealed class OwnersLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
