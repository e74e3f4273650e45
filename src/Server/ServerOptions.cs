using System.Net;
using LrIad.Engine.Text;

namespace LrIad.Server;

/// <summary>Where a server listens, who may ask, and what a request may bring. What a request may ask for is in the engine's limits.</summary>
public sealed record ServerOptions
{
    /// <summary>The address to listen at.</summary>
    public IPAddress Address { get; init; } = IPAddress.Loopback;

    /// <summary>The port; 0: any that is free.</summary>
    public int Port { get; init; } = 8000;

    /// <summary>The key that every request must bring; null: none.</summary>
    public string? ApiKey { get; init; }

    /// <summary>The folder that requests may name image files in; null: none may be named.</summary>
    public string? FilesFolder { get; init; }

    /// <summary>The folder that adapters may be loaded from by request; null: none may be.</summary>
    public string? AdaptersFolder { get; init; }

    /// <summary>The question of inspections; null: the paper's.</summary>
    public PromptTemplate? Question { get; init; }

    /// <summary>Longest body of a request in bytes.</summary>
    public long BodyBytes { get; init; } = 64L << 20;

    /// <summary>Bytes of the bodies of all requests that are being answered.</summary>
    public long AllBodiesBytes { get; init; } = 512L << 20;

    /// <summary>Largest image file in bytes.</summary>
    public int ImageBytes { get; init; } = 16 << 20;

    /// <summary>Longest schema, regular expression or list of choices in characters.</summary>
    public int ConstraintLength { get; init; } = 1 << 16;

    /// <summary>Connections at a time; one more is closed at once.</summary>
    public int Connections { get; init; } = 1024;

    /// <summary>How long a client may take to send its headers.</summary>
    public TimeSpan HeaderTime { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long running requests are waited for when the server stops.</summary>
    public TimeSpan StopTime { get; init; } = TimeSpan.FromSeconds(10);
}
