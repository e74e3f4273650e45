using LrIad.Engine.Compute;

namespace LrIad.Engine.Serving;

/// <summary>What can be said of a request before its turn comes.</summary>
internal static class RequestCheck
{
    private const float LeastTemperature = 1e-3f;
    private const float MostTemperature = 100;

    /// <exception cref="InputException">An engine with these limits could answer nothing.</exception>
    public static void Check(EngineLimits limits)
    {
        Range(limits.Sequences, 1, int.MaxValue, nameof(limits.Sequences));
        Range(limits.PromptLength, 1, int.MaxValue, nameof(limits.PromptLength));
        Range(limits.CompletionLength, 1, int.MaxValue, nameof(limits.CompletionLength));
        Range(limits.Waiting, 1, int.MaxValue, nameof(limits.Waiting));
        Range(limits.MaxPixels, 1, int.MaxValue, nameof(limits.MaxPixels));
    }

    /// <exception cref="InputException">It asks for what is not there.</exception>
    public static void Check(GenerationRequest request, EngineLimits limits)
    {
        Images(request.Prompt, limits);
        Range(request.Completions, 1, Math.Min(limits.CompletionsPerRequest, limits.Sequences), "completions (n)");
        Range(request.MaxTokens ?? 1, 1, limits.CompletionLength, "tokens of a completion (max_tokens)");
        Range(request.TopK, 0, int.MaxValue, "top_k");
        Range(request.TopLogProbs, 0, MostTop(limits), "top_logprobs");
        Require(request.Temperature is 0 or (>= LeastTemperature and <= MostTemperature), $"The temperature is {request.Temperature}; it can be 0, or from {LeastTemperature} to {MostTemperature}.");
        Require(request.TopP is >= 0 and <= 1, $"top_p is {request.TopP}; it can be from 0 to 1.");
        Require(request.Stop.Count <= limits.StopTexts, $"There are {request.Stop.Count} stop texts; the limit is {limits.StopTexts}.");
        Require(request.Stop.All(stop => !string.IsNullOrEmpty(stop)), "A stop text is empty.");
        Require(request.Time is not { } time || time > TimeSpan.Zero, $"The time limit of the request is {request.Time}; it must be longer than nothing.");
    }

    /// <exception cref="InputException">It asks for what is not there.</exception>
    public static void Check(ScoreRequest request, EngineLimits limits, int vocabulary)
    {
        Images(request.Prompt, limits);
        Range(request.Completion.Count, 1, limits.CompletionLength, "tokens of the completion to score");
        Range(request.TopLogProbs, 0, MostTop(limits), "top_logprobs");
        Require(request.Temperature is >= LeastTemperature and <= MostTemperature, $"The temperature is {request.Temperature}; it can be from {LeastTemperature} to {MostTemperature}.");
        foreach (var token in request.Completion)
        {
            Require((uint)token < (uint)vocabulary, $"Token id {token} of the completion is outside the vocabulary of {vocabulary}.");
        }
    }

    private static int MostTop(EngineLimits limits) => Math.Min(limits.TopLogProbs, HeadResult.MostTop);

    private static void Images(Prompt prompt, EngineLimits limits)
    {
        var images = PromptReader.ImagesOf(prompt).Count;
        Require(images <= limits.ImagesPerRequest, $"The prompt has {images} images; the limit is {limits.ImagesPerRequest}.");
    }

    private static void Range(int value, int least, int most, string what) => Require(value >= least && value <= most, most == int.MaxValue
        ? $"{value} is not possible for {what}; the least is {least}."
        : $"{value} is not possible for {what}; the limits are {least} and {most}.");

    private static void Require(bool condition, string problem)
    {
        if (!condition)
        {
            throw new InputException(problem);
        }
    }
}
