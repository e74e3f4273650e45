using LrIad.Engine.Serving;

namespace LrIad.Engine.Tests.Serving;

/// <summary>The sample model behind an engine, and all that a request came to.</summary>
internal static class Served
{
    public static string Adapter => Path.Combine(TestFiles.Goldens, "adapter");

    public static InferenceEngine Engine(EngineLimits? limits = null, string? model = null, Compute.Backend? backend = null) => InferenceEngine.Load(new EngineOptions
    {
        Model = model ?? TestFiles.TinyModel,
        Name = "tiny",
        Backend = backend ?? new Compute.Cpu.CpuBackend(),
        Limits = limits ?? Small,
        Adapters = new Dictionary<string, string> { ["golden"] = Adapter },
    });

    public static EngineLimits Small => new() { Sequences = 8, PromptLength = 512, CompletionLength = 64, MaxPixels = 50_176 };

    /// <summary>The picture files of the sample data set.</summary>
    public static ImageData[] Images { get; } =
        [.. Directory.GetFiles(TestFiles.Sample("parts-mvtec"), "*.png", SearchOption.AllDirectories).Order(StringComparer.Ordinal).Select(file => new ImageData(File.ReadAllBytes(file), Path.GetFileName(file)))];

    public static Conversation Ask(string text, params ImageData[] images) => new([new PromptMessage("user", [.. images.Select(PromptPart.Of), PromptPart.Of(text)])]);

    public static async Task<Drawn> Draw(IInferenceEngine engine, GenerationRequest request, CancellationToken cancellation = default)
    {
        var drawn = new Drawn(request.Completions);
        await foreach (var update in engine.StreamAsync(request, cancellation).ConfigureAwait(false))
        {
            drawn.Add(update);
        }

        return drawn;
    }

    /// <summary>What a request came to.</summary>
    public sealed class Drawn(int completions)
    {
        public List<int>[] Tokens { get; } = [.. Enumerable.Range(0, completions).Select(_ => new List<int>())];

        public List<float>[] LogProbs { get; } = [.. Enumerable.Range(0, completions).Select(_ => new List<float>())];

        public List<IReadOnlyList<TokenLogProb>>[] Top { get; } = [.. Enumerable.Range(0, completions).Select(_ => new List<IReadOnlyList<TokenLogProb>>())];

        public string[] Texts { get; } = [.. Enumerable.Repeat("", completions)];

        public FinishReason?[] Finish { get; } = new FinishReason?[completions];

        public string?[] StopTexts { get; } = new string?[completions];

        public int PromptTokens { get; private set; }

        public int SharedPromptTokens { get; private set; }

        public double? Probe { get; private set; }

        public void Add(GenerationUpdate update)
        {
            if (update.PromptTokens is { } prompt)
            {
                (PromptTokens, SharedPromptTokens, Probe) = (prompt, update.SharedPromptTokens!.Value, update.Probe);
            }

            Assert.That(Finish[update.Completion], Is.Null, "an update after the last one");
            Tokens[update.Completion].AddRange(update.Tokens.Select(drawn => drawn.Token.Id));
            LogProbs[update.Completion].AddRange(update.Tokens.Select(drawn => drawn.Token.LogProb));
            Top[update.Completion].AddRange(update.Tokens.Select(drawn => drawn.Top));
            Texts[update.Completion] += update.Text;
            Finish[update.Completion] = update.Finish;
            StopTexts[update.Completion] = update.StopText;
        }

        /// <summary>All of it in one comparable text.</summary>
        public override string ToString() => $"{PromptTokens} {Probe} " + string.Join(" | ", Tokens.Select((tokens, i) =>
            $"{string.Join(',', tokens)} {string.Join(',', LogProbs[i].Select(BitConverter.SingleToInt32Bits))} {Texts[i]} {Finish[i]} {StopTexts[i]}"));
    }
}
