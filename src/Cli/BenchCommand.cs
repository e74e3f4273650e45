using System.CommandLine;
using LrIad.Engine.Bench;
using LrIad.Engine.Compute.Cuda;
using LrIad.Engine.Model;
using static LrIad.Cli.Settings<LrIad.Cli.BenchOptions>;

namespace LrIad.Cli;

/// <summary>What can be given to <c>bench</c>.</summary>
internal sealed record BenchOptions
{
    public IReadOnlyList<string> Rows { get; init; } = [];

    public string Geometry { get; init; } = "qwen2-vl-7b";
}

/// <summary>Measures the engine on the GPU beside the floor that the GPU itself sets.</summary>
internal static class BenchCommand
{
    private static readonly (string Name, Func<Benchmark, BenchRow>[] Rows)[] Parts =
    [
        ("linear", [bench => bench.Linear(8), bench => bench.Linear(64), bench => bench.Linear(256)]),
        ("attention", [bench => bench.Attention(8, 812), bench => bench.Attention(2, 8192)]),
        ("vision", [bench => bench.VisionEncoder()]),
        ("prefill", [bench => bench.Prefill(1), bench => bench.Prefill(8)]),
        ("decode", [bench => bench.Decode(8), bench => bench.Decode(64), bench => bench.Decode(256)]),
    ];

    private static readonly Setting<BenchOptions>[] Settings =
    [
        Positional("PART", $"{string.Join(", ", Parts.Select(part => part.Name))} (all of them)", (o, v) => o with { Rows = v.Texts }),
        One("geometry", "NAME", "qwen2-vl-7b (default) or qwen2-vl-2b; weights are drawn at random", (o, v) => o with { Geometry = v.OneOf("qwen2-vl-7b", "qwen2-vl-2b") }),
    ];

    public static Command Create(Host host) => Verb.Create(host, "bench", "Measures the engine on the GPU, each row beside its floor.", new BenchOptions(), Settings, Run);

    private static int Run(BenchOptions options, Session session)
    {
        var unknown = options.Rows.FirstOrDefault(name => Parts.All(part => part.Name != name));
        if (unknown is not null)
        {
            throw new Engine.InputException($"bench: '{unknown}' is not one of {string.Join(", ", Parts.Select(part => part.Name))}.");
        }

        using var backend = new CudaBackend();
        using var bench = new Benchmark(backend, options.Geometry == "qwen2-vl-2b" ? ModelGeometry.Qwen2Vl2B : ModelGeometry.Qwen2Vl7B);
        var screen = session.Screen;
        screen.Result($"{backend.Context.Name}: reads {bench.Ceilings.ReadBytesPerSecond / 1e12:F2} TB/s, multiplies {bench.Ceilings.FlopsPerSecond / 1e12:F0} TFLOP/s (8192³)");
        screen.Result($"{options.Geometry}, random weights, bfloat16");
        screen.Result($"{"",-52}{"ms",10}{"floor",10}{"of floor",10}");
        foreach (var measure in Parts.Where(part => options.Rows.Count == 0 || options.Rows.Contains(part.Name)).SelectMany(part => part.Rows))
        {
            session.Cancellation.ThrowIfCancellationRequested();
            var row = measure(bench);
            screen.Result($"{row.Name,-52}{row.Milliseconds,10:F3}{row.Floor,10:F3}{row.Floor / row.Milliseconds,10:P0}  ({row.Bound})");
        }

        return 0;
    }
}
