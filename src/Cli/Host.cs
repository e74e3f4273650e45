using System.CommandLine;

namespace LrIad.Cli;

/// <summary>What all verbs share: streams, Ctrl-C, and the options that each of them takes.</summary>
internal sealed class Host(TextReader input, TextWriter output, TextWriter error, CancellationToken cancellation)
{
    /// <summary>No progress.</summary>
    public Option<bool> Quiet { get; } = new("--quiet") { Description = "no progress, results alone", Recursive = true };

    /// <summary>Stack traces.</summary>
    public Option<bool> Verbose { get; } = new("--verbose") { Description = "where an unexpected error came from", Recursive = true };

    /// <summary>What a verb runs with.</summary>
    public Session Session(ParseResult parsed) => new(new Screen(output, error, parsed.GetValue(Quiet)), input, cancellation);
}

/// <summary>What a verb runs with besides its options.</summary>
/// <param name="Screen">Where it writes.</param>
/// <param name="Input">What it reads.</param>
/// <param name="Cancellation">Ctrl-C.</param>
internal sealed record Session(Screen Screen, TextReader Input, CancellationToken Cancellation);
