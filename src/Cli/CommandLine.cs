using System.CommandLine;
using System.CommandLine.Invocation;
using LrIad.Engine;

namespace LrIad.Cli;

/// <summary>lriad-fast: the verbs, and what becomes of their errors.</summary>
internal static class CommandLine
{
    private const int Failed = 1, BadInput = 2, Interrupted = 130;

    /// <summary>Runs a command line; returns the exit code: 0 done, 1 failed, 2 bad usage or input, 130 interrupted.</summary>
    public static int Run(string[] arguments, TextReader input, TextWriter output, TextWriter error)
    {
        using var interrupt = new Interrupt(error);
        var host = new Host(input, output, error, interrupt.Token);
        var parsed = Root(host).Parse(arguments, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.Action is ParseErrorAction)
        {
            foreach (var problem in parsed.Errors)
            {
                error.WriteLine($"lriad-fast: {problem.Message}");
            }

            error.WriteLine($"lriad-fast {string.Concat(Verbs(parsed.CommandResult.Command, host))}--help tells what there is.");
            return BadInput;
        }

        try
        {
            return parsed.Invoke(new InvocationConfiguration { Output = output, Error = error, EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null });
        }
        catch (InputException problem)
        {
            error.WriteLine($"lriad-fast: {problem.Message}");
            return BadInput;
        }
        catch (OperationCanceledException)
        {
            error.WriteLine("lriad-fast: interrupted.");
            return Interrupted;
        }
        catch (OutOfMemoryException problem)
        {
            // Says what wanted how much, and what to lower; where in the program it was does not matter.
            error.WriteLine($"lriad-fast: {problem.Message}");
            return Failed;
        }
        catch (Exception problem)
        {
            var verbose = parsed.GetValue(host.Verbose);
            var where = problem.TargetSite is { } method ? $" in {method.DeclaringType?.Name}.{method.Name}" : "";
            error.WriteLine($"lriad-fast: {problem.GetType().Name}{where}: {problem.Message}{(verbose ? "" : " (--verbose shows where it came from)")}");
            if (verbose)
            {
                error.WriteLine(problem);
            }

            return Failed;
        }
    }

    private static RootCommand Root(Host host)
    {
        var root = new RootCommand("Finds defects in images of industrial parts, says why, and learns to from labels alone.")
        {
            TrainCommand.Create(host),
            EvalCommand.Create(host),
            InspectCommand.Create(host),
            StudyCommand.Create(host),
            CompareCommand.Create(host),
            ServeCommand.Create(host),
            BenchCommand.Create(host),
            ScoreCommand.Create(host),
            TokenizeCommand.Create(host),
            new Command("data", "Looks at data folders, and makes them.") { DataStatsCommand.Create(host), DataSynthCommand.Create(host) },
            DoctorCommand.Create(host),
        };
        root.Add(host.Quiet);
        root.Add(host.Verbose);
        return root;
    }

    private static IEnumerable<string> Verbs(Command command, Host host) =>
        command.Parents.OfType<Command>().Take(1).SelectMany(parent => Verbs(parent, host)).Concat(command is RootCommand ? [] : [command.Name + " "]);
}
