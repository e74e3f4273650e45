using System.Runtime.InteropServices;
using LrIad.Engine.Serving;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Trl;

/// <summary><c>/get_sequence_logprobs/</c>: how likely given sequences are, as TRL's distillation asks it of a teacher.</summary>
internal static class TrlScoring
{
    // TRL's own, where a request names none.
    private const int TopLogProbs = 100;

    public static void Map(IEndpointRouteBuilder routes) => routes.MapPost("/get_sequence_logprobs/", AnswerAsync)
        .WithMetadata(TrlError.Form).WithSummary("The log-probs of given sequences.").Produces<TrlScores>().Produces<TrlError>(StatusCodes.Status400BadRequest);

    private static async Task<IResult> AnswerAsync(HttpContext context, IInferenceEngine engine)
    {
        var fields = await RequestBody.ReadAsync(context);
        var sequences = Read(fields, engine.Model.Vocabulary);
        var top = fields.Integer("top_logprobs", 1, int.MaxValue) ?? TopLogProbs;
        if (top > engine.Limits.TopLogProbs)
        {
            throw fields.Bad("top_logprobs", $"is {top}, and this server tells the {engine.Limits.TopLogProbs} likeliest tokens at most: ask for fewer");
        }

        AnswerSize.Check(sequences.Length, sequences.Select(sequence => sequence.Ids.Length).DefaultIfEmpty().Max(), top + 1);
        var request = new ScoreRequest
        {
            Prompt = new TokenPrompt([], []),
            Completion = [],
            Adapter = ModelNames.Adapter(engine, fields.TextOrNull("adapter")),
            Temperature = (float)(fields.Number("temperature", float.Epsilon, 100) ?? 1),
            TopLogProbs = top,
            Client = Clients.Of(context),
        };
        var isBinary = (fields.TextOrNull("response_format") ?? "json") switch
        {
            "json" => false,
            "binary" => true,
            var other => throw fields.Bad("response_format", $"must be json or binary, not {RequestFields.Shown(other)}"),
        };
        var scores = await Many.RunAsync(engine, sequences.Length, (i, cancellation) => ScoreAsync(engine, request, sequences[i], cancellation), context.RequestAborted);
        return TypedResults.Json(isBinary ? Binary(scores, top) : Lists(scores), Json.Wire);
    }

    private static Sequence[] Read(RequestFields fields, int vocabulary)
    {
        var ids = fields.Items("sequences").Select((list, i) => Tokens.Read(list, fields.Path($"sequences[{i}]"), vocabulary)).ToArray();
        var lengths = Tokens.Read(fields.Value("prompt_lengths"), fields.Path("prompt_lengths"), int.MaxValue);
        return ids.Length != lengths.Length ? throw fields.Bad("prompt_lengths", $"must be as many as there are sequences, {ids.Length}")
            : [.. ids.Zip(lengths, (sequence, length) => length <= sequence.Length ? new Sequence(sequence, length) : throw fields.Bad("prompt_lengths", "must be no longer than their sequences"))];
    }

    // Nothing comes before the first token of a sequence, so that it has no log-prob: null here.
    private static async Task<DrawnToken?[]> ScoreAsync(IInferenceEngine engine, ScoreRequest request, Sequence sequence, CancellationToken cancellation)
    {
        var known = Math.Max(1, sequence.PromptLength);
        DrawnToken?[] first = sequence is { PromptLength: 0, Ids.Length: > 0 } ? [null] : [];
        if (known >= sequence.Ids.Length)
        {
            return first;
        }

        var scored = await engine.ScoreAsync(request with { Prompt = new TokenPrompt(sequence.Ids[..known], []), Completion = sequence.Ids[known..] }, cancellation);
        return [.. first, .. scored.Tokens];
    }

    private static TrlScores Lists(DrawnToken?[][] scores) => new()
    {
        Logprobs = [.. scores.Select(tokens => tokens.Select(Ranked).Select(ranked => ranked.Select(token => token.LogProb).ToArray()).ToArray())],
        LogprobTokenIds = [.. scores.Select(tokens => tokens.Select(Ranked).Select(ranked => ranked.Select(token => token.Id).ToArray()).ToArray())],
    };

    private static TokenLogProb[] Ranked(DrawnToken? drawn) => drawn is null ? [] : [.. TrlRollouts.Ranked(drawn)];

    private static TrlScores Binary(DrawnToken?[][] scores, int top)
    {
        var longest = scores.Select(tokens => tokens.Length).DefaultIfEmpty().Max();
        var (likeliest, own) = (new Table(scores.Length * longest * top), new Table(scores.Length * longest));
        for (var sequence = 0; sequence < scores.Length; sequence++)
        {
            for (var place = 0; place < scores[sequence].Length; place++)
            {
                if (scores[sequence][place] is { } drawn)
                {
                    var row = (sequence * longest) + place;
                    own.Set(row, drawn.Token);
                    for (var rank = 0; rank < drawn.Top.Count; rank++)
                    {
                        likeliest.Set((row * top) + rank, drawn.Top[rank]);
                    }
                }
            }
        }

        return new TrlScores
        {
            LogprobsBase64 = likeliest.LogProbs,
            TokenIdsBase64 = likeliest.Ids,
            ActualLogprobsBase64 = own.LogProbs,
            ActualTokenIdsBase64 = own.Ids,
            Shape = [scores.Length, longest, top],
            CompletionLengths = [.. scores.Select(tokens => tokens.Length)],
        };
    }

    private sealed record Sequence(int[] Ids, int PromptLength);

    /// <summary>Log-probs and the tokens they are of, as NumPy's little-endian arrays in base64; −∞ and 0 where there is nothing.</summary>
    private sealed class Table
    {
        private readonly float[] _logProbs;
        private readonly int[] _ids;

        public Table(int size)
        {
            (_logProbs, _ids) = (new float[size], new int[size]);
            _logProbs.AsSpan().Fill(float.NegativeInfinity);
        }

        public string LogProbs => Convert.ToBase64String(MemoryMarshal.AsBytes(_logProbs.AsSpan()));

        public string Ids => Convert.ToBase64String(MemoryMarshal.AsBytes(_ids.AsSpan()));

        public void Set(int place, TokenLogProb token) => (_logProbs[place], _ids[place]) = (token.LogProb, token.Id);
    }
}
