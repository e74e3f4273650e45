using LrIad.Engine.Evaluate;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace LrIad.Cli;

/// <summary>An evaluation as it goes.</summary>
internal sealed class EvalView(TimeProvider time) : View<EvalProgress>
{
    private Pace _pace = new(time);
    private int _done, _total, _shownTenth = -1;
    private string _words = "";

    public override string? Take(EvalProgress report)
    {
        if (report.Note is not null)
        {
            return report.Note;
        }

        if (report.Done < _done)
        {
            // The images of the test, after those the threshold is chosen on.
            _pace = new Pace(time);
        }

        (_done, _total) = (report.Done, report.Total);
        var (rate, left) = _pace.Report(_done, _total);
        _words = Pace.Words(rate, left, "image");
        return null;
    }

    public override IRenderable Picture() => Bar.Of(_done, _total, "images", _words);

    // Ten lines are enough for a log.
    public override string? Line()
    {
        var tenth = _total == 0 ? 0 : _done * 10 / _total;
        if (tenth == _shownTenth)
        {
            return null;
        }

        _shownTenth = tenth;
        return $"{_done}/{_total} images  {_words}";
    }
}

/// <summary>A bar with counts.</summary>
internal static class Bar
{
    private const int Width = 40;

    public static IRenderable Of(int done, int total, string unit, string words)
    {
        var filled = total == 0 ? 0 : (int)((long)Width * done / total);
        return new Markup($"[green]{new string('━', filled)}[/][grey]{new string('━', Width - filled)}[/] {done}/{total} {Markup.Escape(unit)}  {Markup.Escape(words)}");
    }
}
