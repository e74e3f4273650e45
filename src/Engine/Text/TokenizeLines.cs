using System.Text.Json;

namespace LrIad.Engine.Text;

/// <summary>JSON lines in, JSON lines out: <c>{"text":"…"}</c> becomes <c>{"ids":[…]}</c>, line by line, special tokens parsed.</summary>
internal static class TokenizeLines
{
    /// <summary>Encodes every line of <paramref name="input"/> until it ends; blank lines are passed over.</summary>
    /// <exception cref="InputException">A line is not a JSON object with a string "text"; the message names the line. What came before it has been written.</exception>
    public static void Run(Tokenizer tokenizer, TextReader input, TextWriter output, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(output);
        for (var number = 1; input.ReadLine() is { } line; number++)
        {
            cancellation.ThrowIfCancellationRequested();
            if (!string.IsNullOrWhiteSpace(line))
            {
                output.Write("{\"ids\":[");
                output.Write(string.Join(',', tokenizer.EncodeWithSpecial(TextOf(line, number))));
                output.Write("]}\n");
            }
        }

        output.Flush();
    }

    private static string TextOf(string line, int number)
    {
        const string Expected = "each line must be a JSON object with a string \"text\"";
        try
        {
            using var json = JsonDocument.Parse(line);
            return json.RootElement.ValueKind == JsonValueKind.Object && json.RootElement.TryGetProperty("text", out var text) && text.ValueKind == JsonValueKind.String
                ? text.GetString()!
                : throw new InputException($"Line {number}: {Expected}.");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new InputException($"Line {number}: {Expected}: {e.Message}", e);
        }
    }
}
