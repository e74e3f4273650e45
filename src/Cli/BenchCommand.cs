using System.CommandLine;
using LrIad.Engine.Bench;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Model;
using LrIad.Learn;
using static LrIad.Cli.Settings<LrIad.Cli.BenchOptions>;

namespace LrIad.Cli;

/// <summary>What can be given to <c>bench</c>.</summary>
internal sealed record BenchOptions
{
    public IReadOnlyList<string> Parts { get; init; } = [];

    public string Geometry { get; init; } = "qwen2-vl-7b";

    public string? Json { get; init; }
}

/// <summary>Measures the engine on the GPU beside the floor that the GPU itself sets.</summary>
internal static class BenchCommand
{
    // Takes minutes, and runs only where it is asked for.
    private const string Soak = "soak";

    private static readonly (string Name, Func<Benchmark, IEnumerable<BenchRow>> Measure)[] Parts =
    [
        ("linear", bench => new[] { 8, 64, 256 }.Select(bench.Linear)),
        ("attention", bench => new[] { (8, 812), (2, 8192) }.Select(size => bench.Attention(size.Item1, size.Item2)).Append(bench.AttentionBackward(8, 812))),
        ("ops", bench => bench.Operations()),
        ("vision", bench => [bench.VisionEncoder()]),
        ("prefill", bench => new[] { 1, 8 }.Select(bench.Prefill)),
        ("decode", bench => new[] { 8, 64, 256 }.Select(bench.Decode)),
        ("serving", bench => new[] { 8, 64 }.Select(bench.Served)),
        ("grpo", bench => new[] { 1, 8 }.SelectMany(prompts => bench.Grpo(prompts, LibTorch.Check().Works ? PolicyLearner.Create : null))),
        (Soak, bench => bench.Soak(PolicyLearner.Create)),
    ];

    private static readonly Setting<BenchOptions>[] Settings =
    [
        Positional("PART", $"{string.Join(", ", Parts.Select(part => part.Name))} (all but {Soak})", (o, v) => o with { Parts = v.Texts }),
        One("geometry", "NAME", "qwen2-vl-7b (default) or qwen2-vl-2b; weights are drawn at random", (o, v) => o with { Geometry = v.OneOf("qwen2-vl-7b", "qwen2-vl-2b") }),
        One("json", "FILE", "also writes the rows to a file", (o, v) => o with { Json = Files.Writable(v) }),
    ];

    public static Command Create(Host host) => Verb.Create(host, "bench", "Measures the engine on the GPU, each row beside its floor.", new BenchOptions(), Settings, Run);

    private static int Run(BenchOptions options, Session session)
    {
        var unknown = options.Parts.FirstOrDefault(name => Parts.All(part => part.Name != name));
        if (unknown is not null)
        {
            throw new Engine.InputException($"bench: '{unknown}' is not one of {string.Join(", ", Parts.Select(part => part.Name))}.");
        }

        using var backend = new CudaBackend();
        using var bench = new Benchmark(backend, options.Geometry == "qwen2-vl-2b" ? ModelGeometry.Qwen2Vl2B : ModelGeometry.Qwen2Vl7B);
        var (screen, device, rows) = (session.Screen, backend.Context.Name, new List<BenchRow>());
        screen.Result($"{device}: reads {bench.Ceilings.ReadBytesPerSecond / 1e12:F2} TB/s, multiplies {bench.Ceilings.FlopsPerSecond / 1e12:F0} TFLOP/s (8192³)");
        screen.Result($"{options.Geometry}, random weights, bfloat16");
        screen.Result($"{"",-52}{"ms",10}{"floor",10}{"of floor",10}");
        foreach (var row in Parts.Where(part => options.Parts.Count == 0 ? part.Name != Soak : options.Parts.Contains(part.Name)).SelectMany(part => part.Measure(bench)))
        {
            rows.Add(row);
            screen.Result($"{row.Name,-52}{row.Milliseconds,10:F3}{row.Floor,10:F3}{row.Floor / row.Milliseconds,10:P0}  ({row.Bound})");
            session.Cancellation.ThrowIfCancellationRequested();
        }

        if (options.Json is { } file)
        {
            new BenchReport(device, options.Geometry, bench.Ceilings, rows).Write(file);
        }

        return 0;
    }
}
