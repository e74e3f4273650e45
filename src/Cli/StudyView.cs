using LrIad.Engine.Study;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace LrIad.Cli;

/// <summary>A study as it goes: the run under way as its own verb shows it, and how many are done.</summary>
internal sealed class StudyView(TimeProvider time) : View<StudyProgress>
{
    private readonly Pace _pace = new(time);
    private TrainView _training = new(time);
    private EvalView _evaluating = new(time);
    private bool _tests;
    private int _done, _runs;
    private string _words = "";

    public override string? Take(StudyProgress report)
    {
        if (_runs == 0 || report.Done != _done)
        {
            (_training, _evaluating) = (new TrainView(time), new EvalView(time));
            var (rate, left) = _pace.Report(report.Done, report.Runs);
            _words = Pace.Words(rate, left, "run");
        }

        (_done, _runs, _tests) = (report.Done, report.Runs, report.Evaluating is not null);
        return report.Note ?? (report.Training is { } training ? _training.Take(training) : report.Evaluating is { } evaluating ? _evaluating.Take(evaluating) : null);
    }

    public override IRenderable Picture() => new Rows(_tests ? _evaluating.Picture() : _training.Picture(), Bar.Of(_done, _runs, "runs", _words));

    public override string? Line() => _tests ? _evaluating.Line() : _training.Line();
}
