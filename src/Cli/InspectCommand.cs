using System.CommandLine;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using LrIad.Engine;
using LrIad.Engine.Data;
using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using LrIad.Engine.Text;
using static LrIad.Cli.Settings<LrIad.Cli.InspectOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>inspect</c>.</summary>
internal sealed record InspectOptions
{
    public IReadOnlyList<string> Images { get; init; } = [];

    public string Model { get; init; } = "";

    public string? Adapter { get; init; }

    public string Object { get; init; } = "";

    public IReadOnlyList<string> References { get; init; } = [];

    public InspectionOptions Inspection { get; init; } = new() { Sequences = 8 };

    public double? Threshold { get; init; }

    public bool Json { get; init; }

    public string Device { get; init; } = "auto";
}

/// <summary>Images to verdicts with reasons.</summary>
internal static class InspectCommand
{
    private static readonly JsonSerializerOptions Line = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private static readonly Setting<InspectOptions>[] Settings =
    [
        Positional("IMAGE", "images to look at", (o, v) => o with { Images = v.Texts }),
        One("model", "DIR", "base model folder", (o, v) => o with { Model = v.Text }),
        One("adapter", "DIR", "adapter folder; left out: the base model", (o, v) => o with { Adapter = v.Text }),
        One("object", "NAME", "what the images show: metal_nut, say", (o, v) => o with { Object = v.Text }),
        Many("reference", "IMAGE", "images of faultless parts to compare with, shown to the model first", (o, v) => o with { References = v.Texts }),
        One("threshold", "VALUE", "the verdict is that of the score, defect where it reaches this: the threshold that eval --threshold chose", (o, v) => o with { Threshold = v.Number }),
        Flag("json", "a JSON object a line", (o, v) => o with { Json = v.Flag }),
        One("votes", "K", "the score is the share of K sampled answers (0: the probe)", Inspection((i, v) => i with { Votes = v.Count })),
        One("max-pixels", "N", "images are scaled down to this many pixels (the adapter's own, else 401408)", Inspection((i, v) => i with { MaxPixels = DataOptions.MaxPixels(v) })),
        One("max-prompt-length", "N", "tokens a prompt may have, images included (4096)", Inspection((i, v) => i with { MaxPromptLength = DataOptions.Positive(v) })),
        One("max-completion-length", "N", "tokens a completion may have (256)", Inspection((i, v) => i with { MaxCompletionLength = DataOptions.Positive(v) })),
        One("prompt-template", "FILE", "another question; {object} stands for the object", Inspection((i, v) => i with { PromptTemplate = v.Text })),
        One("seed", "N", "of the votes (0)", Inspection((i, v) => i with { Seed = v.Seed })),
        One("device", "NAME", Devices.Help, (o, v) => o with { Device = Devices.Parse(v) }),
    ];

    public static Command Create(Host host) => Verb.Create(host, "inspect", "Looks at images: verdict, score and reasoning.", new InspectOptions(), Settings, Run);

    private static Func<InspectOptions, Values, InspectOptions> Inspection(Func<InspectionOptions, Values, InspectionOptions> apply) => (o, v) => o with { Inspection = apply(o.Inspection, v) };

    private static int Run(InspectOptions options, Session session)
    {
        if (options.Images.Count == 0)
        {
            throw new InputException("An image is needed: lriad-fast inspect IMAGE… --object NAME --model DIR.");
        }

        DataOptions.Require(options.Model, "--model DIR");
        DataOptions.Require(options.Object, "--object NAME");
        using var backend = Devices.Open(options.Device);
        using var policy = Policy.Load(options.Model, options.Adapter, backend);
        using var inspector = new Inspector(policy.Model, backend, policy.Adapter, options.Inspection with { MaxPixels = options.Inspection.MaxPixels ?? policy.MaxPixels });
        var references = options.References.Count == 0 ? [] : inspector.Prompts.Encode([.. options.References.Select(inspector.Images.Process)]);
        var problems = 0;
        foreach (var (batch, number) in inspector.Read(options.Images, session.Cancellation).Chunk(options.Inspection.Sequences).Select((batch, number) => (batch, number)))
        {
            session.Cancellation.ThrowIfCancellationRequested();
            var readable = Encode(inspector, batch, session.Screen);
            problems += batch.Length - readable.Count;
            var questions = readable.Select(image => new Question(options.Object, [.. references, image.Features])).ToArray();
            var verdicts = inspector.Inspect(questions, (uint)(number * options.Inspection.Sequences), session.Cancellation);
            foreach (var ((file, _), verdict) in readable.Zip(verdicts))
            {
                session.Screen.Result(options.Json ? ToJson(file, options, verdict) : ToText(file, options.Threshold, verdict));
            }
        }

        return problems == 0 ? 0 : throw new InputException($"{problems} of {options.Images.Count} images could not be read.");
    }

    // One bad image does not keep the others from being looked at.
    private static List<(string File, ImageFeatures Features)> Encode(Inspector inspector, ReadImage[] images, Screen screen)
    {
        var readable = new List<(string, ImageFeatures)>();
        foreach (var (file, image, problem) in images)
        {
            if (image is not null)
            {
                readable.Add((file, inspector.Prompts.Encode([image])[0]));
            }
            else
            {
                screen.Note(problem!.Message);
            }
        }

        return readable;
    }

    private static string ToJson(string file, InspectOptions options, Verdict verdict)
    {
        var answer = verdict.Answer.Kind switch { AnswerKind.Defect => 1, AnswerKind.Normal => 0, _ => (int?)null };
        var line = new JsonObject
        {
            ["image_path"] = file,
            ["object"] = options.Object,
            ["pred_label"] = options.Threshold is { } value ? IsDefect(verdict, value) ? 1 : 0 : answer,
            ["pred_score"] = verdict.Score,
            ["explanation"] = verdict.Answer.Reasoning,
            ["completion"] = verdict.Completion,
            ["valid"] = verdict.Answer.IsValid,
        };
        if (options.Threshold is not null)
        {
            line["threshold"] = options.Threshold;
            line["answer_label"] = answer;
        }

        return line.ToJsonString(Line);
    }

    private static string ToText(string file, double? threshold, Verdict verdict)
    {
        var answer = verdict.Answer.IsValid ? verdict.Answer.Kind.ToString().ToLowerInvariant() : $"no valid answer ({verdict.Answer.Reason})";
        var said = threshold is not { } value ? string.Create(CultureInfo.InvariantCulture, $"{answer}, score {verdict.Score:F3}")
            : string.Create(CultureInfo.InvariantCulture, $"{(IsDefect(verdict, value) ? "defect" : "normal")} by its score, {verdict.Score:F3} (threshold {value:G6}); the model's own answer: {answer}");
        return $"{file}: {said}\n  {verdict.Answer.Reasoning.ReplaceLineEndings("\n  ")}";
    }

    private static bool IsDefect(Verdict verdict, double threshold) => verdict.Score >= threshold;
}
