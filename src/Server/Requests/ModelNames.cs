using LrIad.Engine.Serving;
using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Requests;

/// <summary>What requests call the model: the base model's name, or an adapter's.</summary>
internal static class ModelNames
{
    /// <summary>The adapter that a name stands for; null: the base model, which is also meant where no name is given.</summary>
    public static string? Adapter(IInferenceEngine engine, string? name) =>
        name is null || name == engine.Model.Name ? null : engine.Adapters.Contains(name) ? name : throw Unknown(name);

    public static RequestException Unknown(string name) => new(StatusCodes.Status404NotFound, $"There is no model {RequestFields.Shown(name)} here; /v1/models lists them.", "model", "model_not_found");
}
