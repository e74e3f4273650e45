using Spectre.Console;

namespace LrIad.Cli;

/// <summary>Results go to standard output; what is told meanwhile goes to standard error, with bars and colours only where that is a terminal.</summary>
internal sealed class Screen(TextWriter output, TextWriter error, bool quiet)
{
    /// <summary>Where results go.</summary>
    public TextWriter Output => output;

    /// <summary>The terminal that can show moving pictures, or null.</summary>
    public IAnsiConsole? Terminal { get; } = quiet || Console.IsErrorRedirected || error != Console.Error
        ? null
        : AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(error) });

    /// <summary>A line of a result.</summary>
    public void Result(string line = "") => output.WriteLine(line);

    /// <summary>Something to know meanwhile.</summary>
    public void Note(string line)
    {
        if (Terminal is not null)
        {
            // Through the console that draws the moving picture, which then stays below.
            Terminal.WriteLine(line);
        }
        else if (!quiet)
        {
            error.WriteLine(line);
        }
    }
}
