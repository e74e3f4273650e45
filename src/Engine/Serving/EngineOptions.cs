using LrIad.Engine.Compute;

namespace LrIad.Engine.Serving;

/// <summary>What an engine loads, and where.</summary>
public sealed record EngineOptions
{
    /// <summary>The model's folder.</summary>
    public required string Model { get; init; }

    /// <summary>What requests call the model; null: the folder's name.</summary>
    public string? Name { get; init; }

    /// <summary>Adapter folders by the names that requests call them.</summary>
    public IReadOnlyDictionary<string, string> Adapters { get; init; } = new Dictionary<string, string>();

    /// <summary>auto (a GPU where there is one, else the CPU), cpu or cuda. Not looked at where <see cref="Backend"/> is given.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>Where the model runs, disposed with the engine; null: as <see cref="Device"/> says.</summary>
    internal Backend? Backend { get; init; }

    /// <summary>A file with the question that inspections ask; null: the paper's.</summary>
    public string? PromptTemplate { get; init; }

    /// <summary>What requests may ask for.</summary>
    public EngineLimits Limits { get; init; } = new();
}
