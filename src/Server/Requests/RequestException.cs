using LrIad.Engine;
using LrIad.Engine.Serving;
using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Requests;

/// <summary>A request that cannot be answered, and what its client is told.</summary>
/// <param name="status">HTTP status.</param>
/// <param name="message">What is wrong, and what to do.</param>
/// <param name="parameter">The field that is wrong, if it is one.</param>
/// <param name="code">For a program, where a protocol has one.</param>
internal sealed class RequestException(int status, string message, string? parameter = null, string? code = null) : Exception(message)
{
    public int Status => status;

    public string? Parameter => parameter;

    public string? Code => code;

    /// <summary>How long to wait before the next try; null: trying again is of no use.</summary>
    public TimeSpan? RetryAfter { get; private init; }

    /// <summary>A field of the request that is wrong.</summary>
    public static RequestException Bad(string field, string problem) => new(StatusCodes.Status400BadRequest, $"{field} {problem}.", field);

    /// <summary>What a client is told of an error; null where it is the server's own, which tells nothing.</summary>
    public static RequestException? Of(Exception error) => error switch
    {
        RequestException problem => problem,
        InputException => new(StatusCodes.Status400BadRequest, error.Message),
        EngineBusyException => Busy(error.Message),
        TimeoutException => new(StatusCodes.Status504GatewayTimeout, error.Message, code: "timeout"),
        BadHttpRequestException bad => new(bad.StatusCode, bad.StatusCode == StatusCodes.Status413PayloadTooLarge ? "The request is larger than this server accepts." : "The request could not be read."),
        _ => null,
    };

    /// <summary>Too much at a time: worth another try.</summary>
    public static RequestException Busy(string message) => new(StatusCodes.Status429TooManyRequests, message, code: "rate_limit_exceeded") { RetryAfter = TimeSpan.FromSeconds(1) };

    /// <summary>The server's own error.</summary>
    public static RequestException Internal() => new(StatusCodes.Status500InternalServerError, "The server failed to answer this request; its log says why.");
}

/// <summary>The form that a protocol gives its errors: metadata of its endpoints.</summary>
/// <param name="Body">The body of the answer.</param>
internal sealed record ErrorForm(Func<RequestException, object> Body);
