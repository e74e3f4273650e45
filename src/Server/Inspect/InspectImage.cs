using System.Runtime.CompilerServices;
using LrIad.Engine.Serving;
using LrIad.Engine.Text;
using LrIad.Server.OpenAi;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Inspect;

/// <summary><c>/inspect</c>: an image and the name of what it shows → verdict, score and reasoning, whole or as they come.</summary>
internal static class InspectImage
{
    public static void Map(IEndpointRouteBuilder routes) => routes.MapPost("/inspect", AnswerAsync)
        .WithMetadata(OpenAiError.Form, OtherBody.Form).WithSummary("Inspects an image.").Accepts<InspectBody>("application/json", "multipart/form-data").Produces<InspectAnswer>().Produces<OpenAiError>(StatusCodes.Status400BadRequest);

    private static async Task AnswerAsync(HttpContext context, IInferenceEngine engine, ImageSources sources, ServerOptions options, Errors errors)
    {
        var (call, isStream) = await ReadAsync(context, engine, sources, options);
        var lines = LinesAsync(engine, call, options.Question, context.RequestAborted);
        if (isStream)
        {
            await JsonLines.WriteAsync(context, lines, errors);
        }
        else
        {
            await context.Response.WriteAsJsonAsync((InspectAnswer)await lines.LastAsync(context.RequestAborted), Json.Wire, context.RequestAborted);
        }
    }

    /// <summary>The verdict on an image, when it is there.</summary>
    public static async Task<InspectAnswer> JudgeAsync(IInferenceEngine engine, InspectCall call, PromptTemplate? question, CancellationToken cancellation) =>
        (InspectAnswer)await LinesAsync(engine, call, question, cancellation).LastAsync(cancellation);

    private static async Task<(InspectCall Call, bool IsStream)> ReadAsync(HttpContext context, IInferenceEngine engine, ImageSources sources, ServerOptions options)
    {
        var client = Clients.Of(context);
        if (InspectUpload.Is(context.Request))
        {
            var upload = await InspectUpload.ReadAsync(context, options, engine.Limits);
            return (InspectCall.Read(upload.Fields, engine, upload.Image, upload.References, client), upload.Fields.Flag("stream"));
        }

        var fields = await RequestBody.ReadAsync(context);
        return (InspectCall.Read(fields, engine, sources, sources.FromUrl(fields.Value("image"), "image"), client), fields.Flag("stream"));
    }

    private static async IAsyncEnumerable<object> LinesAsync(IInferenceEngine engine, InspectCall call, PromptTemplate? question, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await foreach (var update in engine.InspectAsync(call.Request, question, cancellation))
        {
            if (update.Score is { } score)
            {
                yield return new InspectScore(score);
            }

            if (update.Text.Length > 0)
            {
                yield return new InspectText(update.Text);
            }

            if (update.Verdict is { } verdict)
            {
                yield return InspectAnswer.Of(call.Request, call.Threshold, verdict);
            }
        }
    }
}
