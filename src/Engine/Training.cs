using LrIad.Engine.Compute;
using LrIad.Engine.Config;
using LrIad.Engine.Learn;

namespace LrIad.Engine;

/// <summary>THE MAIN PATH: GRPO as the paper's method section tells it, a batch of prompts at a time.</summary>
internal static class Training
{
    /// <summary>Trains an adapter from labels alone.</summary>
    /// <param name="config">The run.</param>
    /// <param name="backend">Where the model runs.</param>
    /// <param name="learners">What learns.</param>
    /// <param name="profile">A file for the timeline of the second step, or null.</param>
    /// <param name="resume">Go on from the newest whole checkpoint in the output folder.</param>
    /// <param name="progress">Told of every step.</param>
    /// <param name="cancellation">Stops before the next token, leaving a checkpoint to resume from.</param>
    /// <exception cref="InputException">The configuration, the model, the data or the output folder is not as it must be.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; a checkpoint of the last finished step is there.</exception>
    public static TrainingSummary Run(
        TrainConfig config, Backend backend, LearnerFactory learners, bool resume, string? profile, IProgress<TrainingProgress>? progress, CancellationToken cancellation)
    {
        var timeline = profile is null ? null : new Timeline(backend, profile);
        using var run = TrainingRun.Open(config, backend, learners, resume, progress, cancellation);
        try
        {
            for (var step = 1; !run.Finished; step++)
            {
                run.EvaluateIfDue(cancellation);
                if (timeline is not null && step == Timeline.Step)
                {
                    timeline.Record(() => Step(run, cancellation));
                }
                else
                {
                    Step(run, cancellation);
                }

                run.SaveIfDue();
            }

            run.EvaluateIfDue(cancellation);
        }
        catch (OperationCanceledException)
        {
            run.Save();
            throw;
        }

        run.Save();
        return run.Summary();
    }

    private static StepRecord Step(TrainingRun run, CancellationToken cancellation)
    {
        var (config, learner) = (run.Config, run.Learner);
        var step = new StepRecord();

        // Questions: images are encoded once and kept; bad ones are reported and passed over.
        var batch = run.NextBatch(cancellation);
        step.Lap("prompts");

        // Rollout: the prompt is computed once a group and G completions fork it.
        var groups = run.Generator.Run(batch.Requests, config.Sampling, config.Seed, run.Adapter.Layers, run.Rewards.WantsProbe, cancellation);
        step.Lap("rollout");

        // Rewards (Eq. 3 to 6) and advantages (Eq. 7 and 8): pure functions of the completions.
        var rewards = run.Score(batch, groups);
        var advantages = Advantages.Normalize(rewards.Totals, config.Objective.ScaleRewards);
        step.Lap("rewards");

        // Objective (Eq. 9) and its gradient down to every LoRA factor. From here on the step is finished, not abandoned.
        cancellation.ThrowIfCancellationRequested();
        for (var iteration = 0; iteration < config.NumIterations; iteration++)
        {
            run.Gradients.Clear();
            foreach (var micro in run.MicroBatches(groups, advantages))
            {
                var reference = run.WantsReference ? run.Pass.Forward(micro.Groups, config.Sampling.Temperature, adapter: null, default) : null;
                step.Lap("reference");
                var logProb = run.Pass.Forward(micro.Groups, config.Sampling.Temperature, run.Adapter, run.Dropout(iteration));
                step.Lap("forward");
                var objective = learner.Objective(micro.ToObjective(logProb, reference));
                step.Add(objective);
                step.Lap("objective");
                run.Pass.Backward(objective.Gradient, run.Gradients);
                step.Lap("backward");
            }

            step.GradNorm = learner.Step(run.Gradients.Download(), run.LearningRate);
            run.Adapter.Upload(learner.Publish());
            step.Lap("optimizer");
        }

        run.Finish(batch, groups, rewards, advantages, step);
        return step;
    }
}
