using LrIad.Engine.Model;
using LrIad.Engine.Rollout;
using static LrIad.Engine.Serving.EngineCounters;

namespace LrIad.Engine.Serving;

/// <summary>How requests come into the batch.</summary>
internal sealed partial class EngineLoop
{
    private void Admit()
    {
        _queue.CopyReady(_ready);
        foreach (var job in _ready)
        {
            if (job.Problem is not null || job.Gone)
            {
                _queue.Remove(job);
                if (!job.Gone)
                {
                    job.Fail(job.Problem!);
                }

                Close(job);
            }
            else if (job.Shared is null)
            {
                Share(job);
            }
        }

        _ready.RemoveAll(static job => job.Done || job.Gone);
        var encoded = false;
        foreach (var job in _ready)
        {
            if (!job.HasFeatures)
            {
                // One helping of images a step, so that running requests are not kept waiting for long.
                if (encoded)
                {
                    break;
                }

                EncodeImages(job);
                encoded = true;
            }

            _inHand.Add(job);
            if (!TryStart(job))
            {
                _inHand.Clear();
                break;
            }

            _inHand.Clear();
        }
    }

    private void Share(Job job)
    {
        var key = (job.Key, job.Adapter);
        if (!_prompts.TryGetValue(key, out var shared))
        {
            _prompts[key] = shared = new SharedPrompt();
        }

        shared.Users++;
        job.Shared = shared;
    }

    /// <summary>Encodes the images of a request, and with them those of the next ones as far as they go along.</summary>
    private void EncodeImages(Job first)
    {
        var (images, patches) = (new List<StoredImage>(), 0);
        foreach (var job in _ready.SkipWhile(job => job != first))
        {
            var missing = job.Images.Where(image => image.Features is null && !images.Contains(image)).Distinct().ToArray();
            patches += missing.Sum(image => image.Patches!.Result.Patches);
            if (job != first && patches > VisionEncoder.PatchesAtATime)
            {
                break;
            }

            images.AddRange(missing);
            _inHand.Add(job);
        }

        foreach (var (image, features) in images.Zip(_encoder.Encode([.. images.Select(image => image.Patches!.Result)])))
        {
            _images.Keep(image, features);
        }

        _inHand.Clear();
    }

    private bool TryStart(Job job)
    {
        var shared = job.Shared!;
        var (request, how) = job.Group ??= (new GroupRequest(shared.Open?.Encoded ?? Assemble(job), job.Completions, FirstSample: 0), job.How());
        var group = _batch.TryOpen(request, how, shared.Open) ?? (DropIdlePrompts(shared) ? _batch.TryOpen(request, how, shared.Open) : null);
        if (group is null)
        {
            return false;
        }

        _queue.Remove(job);
        job.SharedTokens = shared.Open is null ? 0 : request.Prompt.Length;
        _counters.Add(shared.Open is null ? Count.PromptTokens : Count.SharedPromptTokens, request.Prompt.Length);
        if (shared.Open is null)
        {
            shared.Open = group.Prompt;
            _batch.Hold(group.Prompt);
        }

        _started.Add((group, job));
        return true;
    }

    private EncodedPrompt Assemble(Job job) => _encoder.Assemble(job.Ids, [.. job.Images.Select(image => image.Features!)]);

    /// <summary>Prompts that are kept for waiting requests alone make room when it is needed; they are computed again in time.</summary>
    private bool DropIdlePrompts(SharedPrompt except)
    {
        var any = false;
        foreach (var shared in _prompts.Values)
        {
            if (shared != except && shared.Open is { Holders: 1 } idle)
            {
                _batch.Release(idle);
                shared.Open = null;
                any = true;
            }
        }

        return any;
    }
}
