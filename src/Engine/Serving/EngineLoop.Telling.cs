using LrIad.Engine.Rollout;
using static LrIad.Engine.Serving.EngineCounters;

namespace LrIad.Engine.Serving;

/// <summary>What callers are told.</summary>
internal sealed partial class EngineLoop
{
    private void TellStarted()
    {
        foreach (var (group, job) in _started)
        {
            if (job is ScoreJob score)
            {
                Score(group, score);
                continue;
            }

            var generation = (GenerationJob)job;
            _running.Add(group, generation);
            // Before its caller can know that it runs.
            _runningCount = _running.Count;
            generation.Texts = [.. Enumerable.Range(0, job.Completions).Select(_ => new CompletionText(_tokenizer, generation.Request.Stop))];
            generation.Tell(new GenerationUpdate { PromptTokens = group.Prompt.Encoded.Length, SharedPromptTokens = job.SharedTokens, PromptIds = job.Ids, Probe = group.Probe });
        }

        _started.Clear();
    }

    private void TellDrawn()
    {
        _counters.Add(Count.GeneratedTokens, _batch.Active.Count);
        foreach (var sequence in _batch.Active)
        {
            Tell(sequence, _running[sequence.Group]);
        }
    }

    private void Tell(Sequence sequence, GenerationJob job)
    {
        var text = job.Texts[sequence.Index];
        var said = sequence.Ended ? "" : text.Append(sequence.LastToken);
        if (text.StopText is not null)
        {
            sequence.Stop();
        }
        else if (!sequence.Finished && job.Constraint is { } constraint && !constraint.Allowed(sequence.State).ContainsAnyExcept(0u))
        {
            // No token leads on; it should not happen, and must not harm the others.
            job.Fail(new InvalidOperationException($"The constraint leaves no token after {sequence.Length} tokens."));
            job.Leave();
            return;
        }

        said += sequence.Finished ? text.End() : "";
        job.Tell(new GenerationUpdate
        {
            Completion = sequence.Index,
            Text = said,
            Tokens = [Drawn(sequence)],
            Finish = !sequence.Finished ? null : sequence.Ended || sequence.Stopped || text.StopText is not null ? FinishReason.Stop : FinishReason.Length,
            StopText = text.StopText,
        });
    }

    private DrawnToken Drawn(Sequence sequence)
    {
        var token = _tokens.Tell(sequence.LastToken, sequence.LastLogProb);
        return sequence.Group.How.TopLogProbs == 0 ? new DrawnToken(token, []) : new DrawnToken(token, [.. _batch.Top(sequence).Select(top => _tokens.Tell(top.Token, top.LogProb))]);
    }

    private void Score(OpenGroup group, ScoreJob job)
    {
        if (!job.Gone)
        {
            var request = job.Request;
            int[] completion = [.. request.Completion];
            var scores = _batch.Score(group.Prompt, completion, request.Temperature, request.TopLogProbs, group.How.Adapter);
            job.Finish(new ScoredCompletion(group.Prompt.Encoded.Length, [.. completion.Select((token, i) => Scored(scores, i, token))]));
            _counters.Add(Count.Finished);
        }

        Close(job);
    }

    private DrawnToken Scored(ScoreBuffers scores, int place, int token)
    {
        var (tokens, logProbs) = (scores.TopTokens(place).ToArray(), scores.TopLogProbs(place).ToArray());
        return new DrawnToken(_tokens.Tell(token, scores.LogProbs[place]), [.. tokens.Zip(logProbs, _tokens.Tell)]);
    }
}
