using LrIad.Engine.Serving;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Measure;

/// <summary>
/// What <c>/metrics</c> tells: under vLLM's names, with its labels and buckets, where the meaning is the same, so that its dashboards work; under <c>lriad:</c> what vLLM has no
/// name for.
/// </summary>
internal sealed class ServingMetrics
{
    private static readonly double[] TokenTimes = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];

    private readonly Distribution _firstToken = new(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560);
    private readonly Distribution _nextToken = new(TokenTimes);
    private readonly Distribution _perToken = new(TokenTimes);
    private readonly Distribution _total = new(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680);
    private readonly Distribution _promptTokens, _generatedTokens;
    private readonly long[] _completions = new long[Enum.GetValues<FinishReason>().Length];

    public ServingMetrics(EngineLimits limits) => (_promptTokens, _generatedTokens) = (Counts(limits.PromptLength), Counts(limits.CompletionLength * (long)limits.CompletionsPerRequest));

    public static void Map(IEndpointRouteBuilder routes) => routes.MapGet("/metrics", (IInferenceEngine engine, ServingMetrics metrics) =>
        TypedResults.Text(metrics.Write(engine), PrometheusText.ContentType)).WithSummary("Figures for Prometheus.");

    public void Prompt(int tokens) => _promptTokens.Add(tokens);

    public void FirstToken(TimeSpan time) => _firstToken.Add(time.TotalSeconds);

    public void NextToken(TimeSpan time) => _nextToken.Add(time.TotalSeconds);

    public void Completion(FinishReason reason) => Interlocked.Increment(ref _completions[(int)reason]);

    /// <summary>A request has come to its end.</summary>
    /// <param name="time">Since its arrival.</param>
    /// <param name="tokens">Drawn for it.</param>
    /// <param name="perToken">What a token after the first took on average, where that means something.</param>
    public void End(TimeSpan time, int tokens, TimeSpan? perToken)
    {
        _total.Add(time.TotalSeconds);
        _generatedTokens.Add(tokens);
        if (perToken is { } each)
        {
            _perToken.Add(each.TotalSeconds);
        }
    }

    private string Write(IInferenceEngine engine)
    {
        var (text, now) = (new PrometheusText(("model_name", engine.Model.Name), ("engine", "0")), engine.Statistics);
        text.Gauge("vllm:num_requests_running", "Requests being answered.", now.Running);
        text.Gauge("vllm:num_requests_waiting", "Requests that wait.", now.Waiting);
        text.Gauge("vllm:kv_cache_usage_perc", "Share of the key-value cache's blocks in use, 0 to 1.", now.CacheBlocks == 0 ? 0 : 1 - ((double)now.FreeCacheBlocks / now.CacheBlocks));
        text.Counter("vllm:prompt_tokens_total", "Prompt tokens, those found computed already among them.", now.PromptTokens + now.SharedPromptTokens);
        text.Counter("vllm:generation_tokens_total", "Tokens drawn.", now.GeneratedTokens);
        text.Counter("vllm:prefix_cache_queries_total", "Prompt tokens looked for among those computed already.", now.PromptTokens + now.SharedPromptTokens);
        text.Counter("vllm:prefix_cache_hits_total", "Prompt tokens found computed already.", now.SharedPromptTokens);
        text.Counters("vllm:request_success_total", "Completions that came to their end.", "finished_reason", Enum.GetValues<FinishReason>().Select(reason => (Reason(reason), (double)Interlocked.Read(ref _completions[(int)reason]))));
        text.Histogram("vllm:time_to_first_token_seconds", "Time from a request's arrival to its first token.", _firstToken);
        text.Histogram("vllm:inter_token_latency_seconds", "Time between tokens of a request for one completion.", _nextToken);
        text.Histogram("vllm:request_time_per_output_token_seconds", "Time a token after the first took on average, of a request for one completion.", _perToken);
        text.Histogram("vllm:e2e_request_latency_seconds", "Time from a request's arrival to its end.", _total);
        text.Histogram("vllm:request_prompt_tokens", "Tokens of a request's prompt.", _promptTokens);
        text.Histogram("vllm:request_generation_tokens", "Tokens drawn for a request.", _generatedTokens);
        text.Gauge("lriad:kv_cache_blocks", "Blocks of the key-value cache.", now.CacheBlocks);
        text.Gauge("lriad:kv_cache_free_blocks", "Blocks that no request uses.", now.FreeCacheBlocks);
        text.Counter("lriad:images_encoded_total", "Images encoded.", now.ImagesEncoded);
        text.Counter("lriad:images_kept_total", "Images whose features were kept from earlier.", now.ImagesKept);
        text.Gauge("lriad:image_cache_bytes", "Bytes of features of images that are kept.", now.ImageCacheBytes);
        text.Counter("lriad:requests_cancelled_total", "Requests whose callers left.", now.Cancelled);
        text.Counter("lriad:requests_timed_out_total", "Requests whose time was up.", now.TimedOut);
        text.Counter("lriad:requests_refused_total", "Requests refused because too many were waiting.", now.Refused);
        return text.ToString();
    }

    // 1, 2, 5, 10, 20, 50 … up to the limit.
    private static Distribution Counts(long limit) =>
        new([.. Enumerable.Range(0, 10).SelectMany(power => new[] { 1, 2, 5 }.Select(digit => digit * Math.Pow(10, power))).TakeWhile(count => count <= limit)]);

    private static string Reason(FinishReason reason) => reason == FinishReason.Length ? "length" : "stop";
}
