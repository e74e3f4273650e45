using LrIad.Engine.Serving;
using Microsoft.Extensions.AI;

namespace EngineSample;

/// <summary>What docs/engine.md shows, and what it prints.</summary>
internal static class Examples
{
    public static async Task Inspect(IInferenceEngine engine, ImageData image, string kind)
    {
        await foreach (var update in engine.InspectAsync(new InspectionRequest { Image = image, Object = kind }))
        {
            Console.Write(update.Text);
            if (update.Verdict is { } verdict)
            {
                Console.WriteLine($"\ndefect: {verdict.Defect?.ToString() ?? "unclear"}, score {verdict.Score:F2}");
            }
        }
    }

    public static async Task Adapter(IInferenceEngine engine, string folder, ImageData image, string kind)
    {
        await engine.LoadAdapterAsync("mine", folder);
        var request = new InspectionRequest { Image = image, Object = kind, Adapter = "mine" };
        var last = await engine.InspectAsync(request).LastAsync();
        Console.WriteLine($"with the adapter: score {last.Verdict!.Score:F2}");
        await engine.UnloadAdapterAsync("mine");
    }

    public static async Task Stream(IInferenceEngine engine, ImageData image)
    {
        var question = new PromptMessage("user", [PromptPart.Of(image), PromptPart.Of("Is there a defect?")]);
        var request = new GenerationRequest { Prompt = new Conversation([question]), Temperature = 0, MaxTokens = 40 };
        await foreach (var update in engine.StreamAsync(request))
        {
            Console.Write(update.Text);
        }

        Console.WriteLine();
    }

    public static async Task Constrain(IInferenceEngine engine, ImageData image)
    {
        var question = new PromptMessage("user", [PromptPart.Of(image), PromptPart.Of("Is there a defect?")]);
        var request = new GenerationRequest { Prompt = new Conversation([question]), Constraint = OutputConstraint.ToChoice(["defect", "normal"]), Seed = 1 };
        var answer = "";
        await foreach (var update in engine.StreamAsync(request))
        {
            answer += update.Text;
        }

        Console.WriteLine($"one of two: {answer}");
    }

    public static async Task Score(IInferenceEngine engine, ImageData image)
    {
        var question = new PromptMessage("user", [PromptPart.Of(image), PromptPart.Of("Is there a defect?")]);
        var scored = await engine.ScoreAsync(new ScoreRequest { Prompt = new Conversation([question]), Completion = engine.Tokenize("No.") });
        Console.WriteLine($"log-prob of \"No.\": {scored.Tokens.Sum(drawn => drawn.Token.LogProb):F2}");
    }

    public static async Task Chat(IInferenceEngine engine, byte[] png)
    {
        using var client = new LriadChatClient(engine);
        var message = new ChatMessage(ChatRole.User, [new DataContent(png, "image/png"), new TextContent("Is there a defect?")]);
        await foreach (var update in client.GetStreamingResponseAsync(message, new ChatOptions { Temperature = 0, MaxOutputTokens = 40 }))
        {
            Console.Write(update.Text);
        }

        Console.WriteLine();
    }

    public static async Task Pipeline(IInferenceEngine engine, byte[] png)
    {
        using var client = new LriadChatClient(engine).AsBuilder().ConfigureOptions(options => options.MaxOutputTokens ??= 40).UseOpenTelemetry().Build();
        var options = new ChatOptions { Seed = 1, AdditionalProperties = new() { [LriadChatClient.Probe] = true, [LriadChatClient.LogProbs] = 0 } };
        var response = await client.GetResponseAsync(new ChatMessage(ChatRole.User, [new DataContent(png, "image/png"), new TextContent("Is there a defect?")]), options);
        var tokens = (IReadOnlyList<DrawnToken>)response.AdditionalProperties![LriadChatClient.LogProbs]!;
        Console.WriteLine($"{response.Usage?.OutputTokenCount} tokens, log-prob {tokens.Sum(drawn => drawn.Token.LogProb):F2}, score {response.AdditionalProperties[LriadChatClient.Probe]:F2}");
    }

    public static async Task Typed(IInferenceEngine engine, byte[] png)
    {
        using var client = new LriadChatClient(engine);
        var message = new ChatMessage(ChatRole.User, [new DataContent(png, "image/png"), new TextContent("Is there a defect?")]);
        var response = await client.GetResponseAsync<Finding>(message, new ChatOptions { Seed = 1 });
        Console.WriteLine(response.TryGetResult(out var finding) ? finding : response.Text);
    }

    internal enum Part
    {
        Whole,
        Edge,
        Centre,
    }

    internal sealed record Finding(bool Defect, Part Where);
}
