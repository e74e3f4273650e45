using System.Globalization;
using LrIad.Server.OpenAi;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Primitives;

namespace LrIad.Server.Requests;

/// <summary>Turns whatever went wrong into an answer in the form of the endpoint's protocol (OpenAI's where there is no endpoint).</summary>
/// <param name="log">Takes the server's own errors.</param>
internal sealed class Errors(Action<string> log)
{
    public async Task Invoke(HttpContext context, RequestDelegate next)
    {
        try
        {
            await next(context);
            if (context.Response is { HasStarted: false, StatusCode: StatusCodes.Status404NotFound or StatusCodes.Status405MethodNotAllowed })
            {
                var status = context.Response.StatusCode;
                await Answer(context, new RequestException(status, status == StatusCodes.Status404NotFound ? "There is nothing at this address." : "This address does not take this method."));
            }
        }
        catch (Exception e) when (context.RequestAborted.IsCancellationRequested && e is OperationCanceledException or IOException or ConnectionResetException)
        {
            // Nobody is there to be told.
        }
        catch (Exception e)
        {
            var problem = Told(context, e);
            if (context.Response.HasStarted)
            {
                // Half an answer must not look whole.
                context.Abort();
                return;
            }

            await Answer(context, problem);
        }
    }

    /// <summary>What a client is told of an error; the server's own errors go to the log.</summary>
    public RequestException Told(HttpContext context, Exception error)
    {
        if (RequestException.Of(error) is { } problem)
        {
            return problem;
        }

        // The route's pattern and an escaped error: what a client sent cannot make lines of its own.
        log(OneLine($"{(context.GetEndpoint() as Microsoft.AspNetCore.Routing.RouteEndpoint)?.RoutePattern.RawText}: {error}"));
        return RequestException.Internal();
    }

    /// <summary>Logs an error of work that no request waits for.</summary>
    public void Report(Exception error) => log(OneLine(error.ToString()));

    private static Task Answer(HttpContext context, RequestException problem)
    {
        var form = context.GetEndpoint()?.Metadata.GetMetadata<ErrorForm>() ?? OpenAiError.Form;
        context.Response.Clear();
        context.Response.StatusCode = problem.Status;
        if (problem.RetryAfter is { } wait)
        {
            context.Response.Headers.RetryAfter = ((int)Math.Ceiling(wait.TotalSeconds)).ToString(CultureInfo.InvariantCulture);
        }

        if (problem.Status == StatusCodes.Status401Unauthorized)
        {
            // In headers of their own: in one, Chromium sees neither.
            context.Response.Headers.WWWAuthenticate = new StringValues(["Bearer", "Basic realm=\"lriad-fast\""]);
        }

        return context.Response.WriteAsJsonAsync(form.Body(problem), Json.Wire, context.RequestAborted);
    }

    private static string OneLine(string text) => string.Concat(text.ReplaceLineEndings(" | ").Select(character => char.IsControl(character) ? ' ' : character));
}
