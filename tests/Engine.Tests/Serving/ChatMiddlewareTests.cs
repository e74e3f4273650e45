using System.Collections.Concurrent;
using System.Text.Json;
using LrIad.Engine.Serving;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Caching.Distributed;
using Microsoft.Extensions.Logging;

namespace LrIad.Engine.Tests.Serving;

/// <summary>Microsoft.Extensions.AI's middleware on top of an engine.</summary>
internal sealed class ChatMiddlewareTests
{
    [Test]
    public async Task A_cache_answers_what_was_asked_before()
    {
        var engine = new FakeEngine();
        using var client = new LriadChatClient(engine).AsBuilder().UseDistributedCache(new MemoryCache()).Build();
        var options = new ChatOptions { Seed = 1, AdditionalProperties = new() { [LriadChatClient.LogProbs] = 1, [LriadChatClient.Probe] = true } };
        var first = await client.GetResponseAsync("Is it faulty?", options);
        var second = await client.GetResponseAsync("Is it faulty?", options);
        Assert.That(engine.Requests, Has.One.Items);
        using (Assert.EnterMultipleScope())
        {
            Assert.That(second.Text, Is.EqualTo(first.Text).And.Not.Empty);
            Assert.That(second.FinishReason, Is.EqualTo(ChatFinishReason.Stop));
            Assert.That(second.Usage?.OutputTokenCount, Is.EqualTo(3));
            Assert.That(((JsonElement)second.AdditionalProperties![LriadChatClient.Probe]!).GetDouble(), Is.EqualTo(-1.5));
            Assert.That(((JsonElement)second.AdditionalProperties![LriadChatClient.LogProbs]!).Deserialize<DrawnToken[]>(AIJsonUtilities.DefaultOptions)!.Select(token => token.Token.Text),
                Is.EqualTo(["<think>", " ok</think>", " <answer>B</answer>"]));
        }
    }

    [Test]
    public async Task A_cache_answers_streams_too()
    {
        var engine = new FakeEngine();
        using var client = new LriadChatClient(engine).AsBuilder().UseDistributedCache(new MemoryCache()).Build();
        var first = await client.GetStreamingResponseAsync("Is it faulty?").ToChatResponseAsync();
        var second = await client.GetStreamingResponseAsync("Is it faulty?").ToChatResponseAsync();
        Assert.That((second.Text, second.Usage?.TotalTokenCount, engine.Requests.Count), Is.EqualTo((first.Text, 15L, 1)));
    }

    [Test]
    public async Task Another_image_or_adapter_or_score_is_another_question()
    {
        var engine = new FakeEngine();
        using var client = new LriadChatClient(engine).AsBuilder().UseDistributedCache(new MemoryCache()).Build();
        await client.GetResponseAsync(Image(1));
        await client.GetResponseAsync(Image(2));
        await client.GetResponseAsync(Image(2), new ChatOptions { ModelId = "screws" });
        await client.GetResponseAsync(Image(2), new ChatOptions { AdditionalProperties = new() { [LriadChatClient.Probe] = true } });
        Assert.That(engine.Requests, Has.Count.EqualTo(4));

        static ChatMessage Image(byte content) => new(ChatRole.User, [new DataContent(new[] { content }, "image/png")]);
    }

    [Test]
    public async Task Options_are_set_for_all_calls()
    {
        var engine = new FakeEngine();
        using var client = new LriadChatClient(engine).AsBuilder().ConfigureOptions(options => options.ModelId ??= "screws").Build();
        await client.GetResponseAsync("Is it faulty?");
        Assert.That(engine.Requests.Single().Adapter, Is.EqualTo("screws"));
    }

    [Test]
    public async Task Calls_are_logged()
    {
        using var log = new ListLog();
        using var client = new LriadChatClient(new FakeEngine()).AsBuilder().UseLogging(log).UseOpenTelemetry(log).Build();
        await client.GetResponseAsync("Is it faulty?", new ChatOptions { AdditionalProperties = new() { [LriadChatClient.LogProbs] = 1 } });
        Assert.That(log.Lines, Has.Some.Contains("Is it faulty?").And.Some.Contains("ok").And.Some.Contains("outputTokenCount").And.Some.Contains("log_probs"));
    }

    [Test]
    public async Task A_pipeline_with_functions_works_where_none_is_asked_for()
    {
        using var client = new LriadChatClient(new FakeEngine()).AsBuilder().UseFunctionInvocation().Build();
        Assert.That((await client.GetResponseAsync("Is it faulty?")).Text, Does.EndWith("<answer>B</answer>"));
    }

    [Test]
    public async Task An_answer_is_read_as_the_type_that_was_asked_for()
    {
        var engine = new FakeEngine { Answer = FakeEngine.Words("""{"defect":true,""", """ "reason":"a scratch"}""") };
        using var client = new LriadChatClient(engine);
        var response = await client.GetResponseAsync<Finding>("Is it faulty?");
        Assert.That(response.Result, Is.EqualTo(new Finding(true, "a scratch")));
        Assert.That(engine.Requests.Single().Constraint!.JsonSchema, Does.Contain("\"defect\""));
    }

    internal sealed record Finding(bool Defect, string Reason);

    private sealed class MemoryCache : IDistributedCache
    {
        private readonly ConcurrentDictionary<string, byte[]> _entries = new();

        public byte[]? Get(string key) => _entries.GetValueOrDefault(key);

        public Task<byte[]?> GetAsync(string key, CancellationToken token = default) => Task.FromResult(Get(key));

        public void Set(string key, byte[] value, DistributedCacheEntryOptions options) => _entries[key] = value;

        public Task SetAsync(string key, byte[] value, DistributedCacheEntryOptions options, CancellationToken token = default)
        {
            Set(key, value, options);
            return Task.CompletedTask;
        }

        public void Refresh(string key)
        {
        }

        public Task RefreshAsync(string key, CancellationToken token = default) => Task.CompletedTask;

        public void Remove(string key) => _entries.TryRemove(key, out _);

        public Task RemoveAsync(string key, CancellationToken token = default)
        {
            Remove(key);
            return Task.CompletedTask;
        }
    }

    private sealed class ListLog : ILoggerFactory, ILogger
    {
        public List<string> Lines { get; } = [];

        public ILogger CreateLogger(string categoryName) => this;

        public void AddProvider(ILoggerProvider provider)
        {
        }

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => Lines.Add(formatter(state, exception));

        public void Dispose()
        {
        }
    }
}
