using Spectre.Console;
using Spectre.Console.Rendering;

namespace LrIad.Cli;

/// <summary>What is shown of long work: a picture that is redrawn on a terminal, lines elsewhere.</summary>
/// <typeparam name="T">What the work reports.</typeparam>
internal abstract class View<T>
{
    /// <summary>Takes in a report; returns what it has to say beside figures, or null.</summary>
    public abstract string? Take(T report);

    /// <summary>The picture now.</summary>
    public abstract IRenderable Picture();

    /// <summary>The last report as a line, or null where it is not worth one.</summary>
    public abstract string? Line();
}

/// <summary>Runs work under a view.</summary>
internal static class Watch
{
    public static TResult Run<T, TResult>(Screen screen, View<T> view, Func<IProgress<T>, TResult> work) => screen.Terminal is { } terminal
        ? terminal.Live(view.Picture()).Start(live => work(new Reporter<T>(report =>
        {
            if (view.Take(report) is { } note)
            {
                screen.Note(note);
            }

            live.UpdateTarget(view.Picture());
        })))
        : work(new Reporter<T>(report =>
        {
            if ((view.Take(report) ?? view.Line()) is { } line)
            {
                screen.Note(line);
            }
        }));

    // At once and in order, on the thread that reports; System.Progress would hand reports to other threads.
    private sealed class Reporter<T>(Action<T> report) : IProgress<T>
    {
        public void Report(T value) => report(value);
    }
}
