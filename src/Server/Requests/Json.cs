using System.Text.Encodings.Web;
using System.Text.Json;

namespace LrIad.Server.Requests;

/// <summary>How answers are written.</summary>
internal static class Json
{
    /// <summary>Fields in snake_case, nulls too.</summary>
    public static JsonSerializerOptions Wire { get; } = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
}
