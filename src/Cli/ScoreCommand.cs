using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using LrIad.Engine;
using LrIad.Engine.Model;
using static LrIad.Cli.Settings<LrIad.Cli.ScoreOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>score</c>.</summary>
internal sealed record ScoreOptions
{
    public string Model { get; init; } = "";

    public string? Adapter { get; init; }

    public ScoringRequest Request { get; init; } = new();

    public bool Json { get; init; }

    public string Device { get; init; } = "auto";
}

/// <summary>Log-probs of a given completion.</summary>
internal static class ScoreCommand
{
    private static readonly Setting<ScoreOptions>[] Settings =
    [
        One("model", "DIR", "base model folder", (o, v) => o with { Model = v.Text }),
        One("adapter", "DIR", "adapter folder; left out: the base model", (o, v) => o with { Adapter = v.Text }),
        Many("image", "FILE", "images of the prompt, in order", Request((r, v) => r with { Images = v.Texts })),
        One("object", "NAME", "what they show", Request((r, v) => r with { Object = v.Text })),
        One("completion", "TEXT", "the completion; special tokens in it stand for themselves", Request((r, v) => r with { Completion = v.Text })),
        Many("completion-ids", "1,2,3", "the completion as token ids", Request((r, v) => r with { CompletionIds = [.. v.List.Select(id => new Values(v.Where, [id]).Count)] })),
        Flag("json", "answer in JSON", (o, v) => o with { Json = v.Flag }),
        One("max-pixels", "N", "images are scaled down to this many pixels (the adapter's own, else 401408)", Request((r, v) => r with { MaxPixels = DataOptions.MaxPixels(v) })),
        One("max-prompt-length", "N", "tokens a prompt may have, images included (4096)", Request((r, v) => r with { MaxPromptLength = DataOptions.Positive(v) })),
        One("prompt-template", "FILE", "another question; {object} stands for the object", Request((r, v) => r with { PromptTemplate = v.Text })),
        One("seed", "N", "taken like everywhere; nothing is drawn here", (o, v) => v.Seed is var _ ? o : o),
        One("device", "NAME", Devices.Help, (o, v) => o with { Device = Devices.Parse(v) }),
    ];

    public static Command Create(Host host) => Verb.Create(host, "score", "Says how likely the model finds a given completion, token by token.", new ScoreOptions(), Settings, Run);

    private static Func<ScoreOptions, Values, ScoreOptions> Request(Func<ScoringRequest, Values, ScoringRequest> apply) => (o, v) => o with { Request = apply(o.Request, v) };

    private static int Run(ScoreOptions options, Session session)
    {
        DataOptions.Require(options.Model, "--model DIR");
        DataOptions.Require(options.Request.Object, "--object NAME");
        if (options.Request.Images.Count == 0)
        {
            throw new InputException("--image FILE is needed.");
        }

        if ((options.Request.Completion is null) == (options.Request.CompletionIds is null))
        {
            throw new InputException("Either --completion TEXT or --completion-ids 1,2,3 is needed.");
        }

        using var backend = Devices.Open(options.Device);
        using var policy = Policy.Load(options.Model, options.Adapter, backend);
        var result = Scoring.Run(policy, backend, options.Request);
        session.Screen.Result(options.Json
            ? JsonSerializer.Serialize(new { tokens = result.Tokens, logprobs = result.LogProbs, prompt_tokens = result.PromptTokens })
            : string.Create(CultureInfo.InvariantCulture, $"{result.Tokens.Length} tokens after a prompt of {result.PromptTokens}: log-prob {result.LogProbs.Sum(value => (double)value):F4}"));
        return 0;
    }
}
