using LrIad.Server.Requests;
using Microsoft.AspNetCore.Http;

namespace LrIad.Server.OpenAi;

/// <summary>An error as OpenAI's clients expect it.</summary>
/// <param name="Error">What went wrong.</param>
internal sealed record OpenAiError(OpenAiErrorBody Error)
{
    /// <summary>For the metadata of endpoints.</summary>
    public static ErrorForm Form { get; } = new(problem => Of(problem));

    public static OpenAiError Of(RequestException problem) => new(new OpenAiErrorBody(problem.Message, TypeOf(problem.Status), problem.Parameter, problem.Code));

    private static string TypeOf(int status) => status switch
    {
        StatusCodes.Status401Unauthorized => "authentication_error",
        StatusCodes.Status403Forbidden => "permission_error",
        StatusCodes.Status404NotFound => "not_found_error",
        StatusCodes.Status429TooManyRequests => "rate_limit_error",
        StatusCodes.Status504GatewayTimeout => "timeout_error",
        >= 500 => "server_error",
        _ => "invalid_request_error",
    };
}

/// <summary>What went wrong.</summary>
/// <param name="Message">For a person.</param>
/// <param name="Type">Kind of error.</param>
/// <param name="Param">The field of the request that is wrong, if it is one.</param>
/// <param name="Code">For a program.</param>
internal sealed record OpenAiErrorBody(string Message, string Type, string? Param, string? Code);
