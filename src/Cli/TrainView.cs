using System.Globalization;
using System.Text.Json.Nodes;
using LrIad.Engine.Learn;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace LrIad.Cli;

/// <summary>A training run as it goes: the last steps, and how long it will take.</summary>
internal sealed class TrainView(TimeProvider time) : View<TrainingProgress>
{
    private const int RowsShown = 12;

    private static readonly (string Title, string Name)[] Columns =
    [
        ("reward", "reward"), ("format", "rewards/format/mean"), ("focal", "rewards/focal/mean"), ("accuracy", "rewards/accuracy/mean"), ("no spread", "frac_reward_zero_std"),
        ("length", "completions/mean_length"), ("kl", "kl"), ("grad", "grad_norm"), ("seconds", "step_time"),
    ];

    private readonly Pace _pace = new(time);
    private readonly Queue<(int Step, JsonObject Metrics)> _rows = new();
    private int _step, _steps;
    private string _words = "";

    public override string? Take(TrainingProgress report)
    {
        (_step, _steps) = (report.Step, report.Steps);
        if (report.Metrics is not null)
        {
            var (rate, left) = _pace.Report(report.Step, report.Steps);
            _words = Pace.Words(rate, left, "step");
            _rows.Enqueue((report.Step, report.Metrics));
            while (_rows.Count > RowsShown)
            {
                _rows.Dequeue();
            }
        }

        return report.Note;
    }

    public override IRenderable Picture()
    {
        var shown = Shown();
        var table = new Table().Border(TableBorder.Simple).AddColumn(new TableColumn("step").RightAligned());
        table.AddColumns([.. shown.Select(column => new TableColumn(column.Title).RightAligned())]);
        foreach (var (step, metrics) in _rows)
        {
            table.AddRow([step.ToString(CultureInfo.InvariantCulture), .. shown.Select(column => Figure(metrics, column.Name))]);
        }

        return new Rows(table, Bar.Of(_step, _steps, "steps", _words));
    }

    public override string? Line()
    {
        if (_rows.Count == 0)
        {
            return null;
        }

        var (step, metrics) = _rows.Last();
        return $"step {step}/{_steps}  {string.Join("  ", Shown().Select(column => $"{column.Title} {Figure(metrics, column.Name)}"))}  {_words}";
    }

    // Rewards that the run does not use have no column.
    private (string Title, string Name)[] Shown() => _rows.Count == 0 ? [] : [.. Columns.Where(column => _rows.Last().Metrics[column.Name] is not null)];

    private static string Figure(JsonObject metrics, string name) => ((double?)metrics[name])?.ToString("0.###", CultureInfo.InvariantCulture) ?? "–";
}
