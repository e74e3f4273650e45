using LrIad.Server.Requests;
using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Trl;

/// <summary>How much one answer may hold: TRL asks for whole batches at a time, and all of a batch is in memory when it is sent.</summary>
internal static class AnswerSize
{
    // Log-probs. 1024 completions of 1024 tokens are an eighth.
    private const long Most = 1 << 23;

    /// <param name="completions">How many there are.</param>
    /// <param name="length">Tokens of the longest.</param>
    /// <param name="each">Log-probs of a token.</param>
    /// <exception cref="RequestException">That is too much.</exception>
    public static void Check(long completions, int length, int each)
    {
        if (completions * length * each > Most)
        {
            throw new RequestException(StatusCodes.Status400BadRequest, $"{completions} completions of up to {length} tokens with {each} log-probs each are more than one answer may hold here ({Most} log-probs): ask for fewer prompts at a time.");
        }
    }
}
