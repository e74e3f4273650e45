using System.CommandLine;
using System.Text.Json;
using LrIad.Engine;
using LrIad.Engine.Text;
using static LrIad.Cli.Settings<LrIad.Cli.TokenizeOptions>;

namespace LrIad.Cli;

/// <summary>Options of <c>tokenize</c>.</summary>
internal sealed record TokenizeOptions
{
    /// <summary>tokenizer.json.</summary>
    public string? Tokenizer { get; init; }
}

/// <summary>Texts to token ids: JSON lines in, JSON lines out.</summary>
internal static class TokenizeCommand
{
    private static readonly Setting<TokenizeOptions>[] Settings =
    [
        One("model", "DIR", "model folder whose tokenizer.json is used", (o, v) => o with { Tokenizer = Path.Combine(v.Text, "tokenizer.json") }),
        One("tokenizer", "FILE", "a tokenizer.json", (o, v) => o with { Tokenizer = v.Text }),
    ];

    public static Command Create(Host host) => Verb.Create(
        host, "tokenize", "Reads lines {\"text\":…} and writes {\"ids\":[…]} for each. Special tokens in the text stand for themselves.", new TokenizeOptions(), Settings, Run);

    private static int Run(TokenizeOptions options, Session session)
    {
        var tokenizer = Tokenizer.Load(options.Tokenizer ?? throw new InputException("A tokenizer is needed: --model DIR or --tokenizer FILE."));
        for (var number = 1; session.Input.ReadLine() is { } line; number++)
        {
            session.Cancellation.ThrowIfCancellationRequested();
            if (!string.IsNullOrWhiteSpace(line))
            {
                session.Screen.Result($"{{\"ids\":[{string.Join(',', tokenizer.EncodeWithSpecial(TextOf(line, number)))}]}}");
            }
        }

        return 0;
    }

    private static string TextOf(string line, int number)
    {
        try
        {
            using var json = JsonDocument.Parse(line);
            if (json.RootElement.ValueKind == JsonValueKind.Object && json.RootElement.TryGetProperty("text", out var text) && text.ValueKind == JsonValueKind.String)
            {
                return text.GetString()!;
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new InputException($"Input line {number} is not readable JSON: {e.Message}", e);
        }

        throw new InputException($"Input line {number} is not of the form {{\"text\":\"…\"}}.");
    }
}
