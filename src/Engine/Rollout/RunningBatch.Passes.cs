using LrIad.Engine.Compute;
using LrIad.Engine.Model;

namespace LrIad.Engine.Rollout;

/// <summary>The passes of a step.</summary>
internal sealed partial class RunningBatch
{
    private void ComputePrompts(int first, int next, AdapterLayer[]? adapter)
    {
        _batch.Clear();
        _features.Clear();
        for (var g = first; g < next; g++)
        {
            var prompt = _opened[g].Prompt;
            if (!prompt.Computed && prompt.Segment.Length == 0)
            {
                prompt.Row = _batch.Want(_batch.AddPrompt(prompt.Encoded, prompt.Segment, _features.Add(prompt.Encoded.Features), adapter is not null, group: g - first));
            }
        }

        if (_batch.Count == 0)
        {
            return;
        }

        var x = _decoder.Forward(_batch, _cache, _features.Features, adapter);
        for (var g = first; g < next; g++)
        {
            var prompt = _opened[g].Prompt;
            if (!prompt.Computed)
            {
                _backend.Copy(x.Slice(prompt.Row, 1), _last.Slice(prompt.Place, 1));
                prompt.Computed = true;
            }
        }
    }

    private void Fork(OpenGroup group)
    {
        for (var i = 0; i < group.Request.Completions; i++)
        {
            var sequence = new Sequence(group, i, group.Prompt.Segment.Fork());
            _active.Insert(PlaceOf(sequence), sequence);
            Draw(sequence, group.Prompt.Place);
        }
    }

    private int PlaceOf(Sequence sequence)
    {
        var group = sequence.Group;
        for (var i = _active.Count; i > 0; i--)
        {
            if (_active[i - 1].Group.Prompt == group.Prompt)
            {
                return i;
            }
        }

        for (var i = _active.Count; i > 0; i--)
        {
            if (ReferenceEquals(_active[i - 1].Group.How.Adapter, group.How.Adapter))
            {
                return i;
            }
        }

        return group.How.Adapter is null ? 0 : _active.Count;
    }

    private void AdvancePass(int first, int next, AdapterLayer[]? adapter)
    {
        _batch.Clear();
        for (var i = first; i < next; i++)
        {
            var sequence = _active[i];
            var position = sequence.Group.Prompt.Encoded.NextPosition + sequence.Length - 1;
            var row = _batch.AddRow(sequence.Segment, sequence.LastToken, (position, position, position), sequence.Group.How.Adapter is not null);
            Draw(sequence, row);
        }

        // Completions of a prompt stand next to each other, so that what they share is one work item.
        for (int i = first, run, group = 0; i < next; i += run, group++)
        {
            var prompt = _active[i].Group.Prompt;
            for (run = 1; i + run < next && _active[i + run].Group.Prompt == prompt; run++)
            {
            }

            _batch.See(i - first, run, prompt.Segment, group);
            for (var j = i; j < i + run; j++)
            {
                _batch.SeeCausal(j - first, 1, _active[j].Segment, group);
            }
        }

        _head.Sample(_decoder.Forward(_batch, _cache, default, adapter), _decoder.Head, _drawn.Count);
    }

    private void Draw(Sequence sequence, int row)
    {
        var how = sequence.Group.How;
        var mask = how.Constraint is { } constraint ? _head.AddMask(constraint.Allowed(sequence.State)) : -1;
        _head.Samples[_drawn.Count] = new SampleRow(
            row, how.Sampling.Temperature, how.Sampling.TopK, how.Sampling.TopP, (uint)how.Seed, (uint)(how.Seed >> 32), sequence.Sample, (uint)sequence.Length, mask, how.TopLogProbs);
        _drawn.Add(sequence);
    }

    /// <summary>Log-odds of the two options after the forced, empty reasoning, on prompts that are in the cache already.</summary>
    private void Probe(int first, int next, AdapterLayer[]? adapter)
    {
        var suffix = _options.ProbeSuffix;
        var forks = new List<KvSegment>();
        _batch.Clear();
        for (var g = first; g < next; g++)
        {
            if (!_opened[g].How.Probe)
            {
                continue;
            }

            var (prompt, fork) = (_opened[g].Prompt, _opened[g].Prompt.Segment.Fork());
            forks.Add(fork);
            var firstRow = _batch.AddCompletions(prompt.Encoded, prompt.Segment, [(suffix, fork, 0)], adapter is not null, group: g - first);
            _head.Targets[_probed.Count] = new LogProbRow(_batch.Want(firstRow + suffix.Length - 1), _options.DefectToken, 1f);
            _probed.Add(_opened[g]);
        }

        if (_batch.Count > 0)
        {
            _head.LogProb(_decoder.Forward(_batch, _cache, default, adapter), _decoder.Head, _probed.Count);
        }

        forks.ForEach(fork => fork.Dispose());
    }

    /// <summary>Log-probs of given tokens after a prompt that is in the cache, and the likeliest tokens there. Waits for the device.</summary>
    public ScoreBuffers Score(OpenPrompt prompt, ReadOnlyMemory<int> completion, float temperature, int top, AdapterLayer[]? adapter)
    {
        var scores = _scores ?? throw new InvalidOperationException("This batch has no room for scores.");
        using var fork = prompt.Segment.Fork();
        scores.Begin(completion.Span, temperature, top);
        scores.LogProb(_last, _decoder.Head, prompt.Place, 1);
        if (completion.Length > 1)
        {
            _batch.Clear();
            var firstRow = _batch.AddCompletions(prompt.Encoded, prompt.Segment, [(completion[..^1], fork, 0)], adapter is not null, group: 0);
            scores.LogProb(_decoder.Forward(_batch, _cache, default, adapter), _decoder.Head, firstRow, completion.Length - 1);
        }

        scores.Download();
        return scores;
    }
}
