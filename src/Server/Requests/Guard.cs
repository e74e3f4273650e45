using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;

namespace LrIad.Server.Requests;

/// <summary>
/// Who may ask: the key on every route where there is one, no pages of other sites. A browser sends another site's form without asking, but never as JSON; and a name that an
/// attacker points at this machine shows in the Host header.
/// </summary>
internal sealed class Guard
{
    private readonly byte[]? _key;
    private readonly bool _loopback;

    public Guard(ServerOptions options)
    {
        _key = options.ApiKey is { } key ? SHA256.HashData(Encoding.UTF8.GetBytes(key)) : null;
        _loopback = IPAddress.IsLoopback(options.Address);
    }

    public Task Invoke(HttpContext context, RequestDelegate next)
    {
        var request = context.Request;
        context.Response.Headers.XContentTypeOptions = "nosniff";
        if (_loopback && !IsLocal(request.Host.Host))
        {
            throw new RequestException(StatusCodes.Status403Forbidden, "This server answers to localhost and 127.0.0.1 alone: the Host header names another host.");
        }

        if (_key is not null && !IsKey(request.Headers.Authorization.ToString()))
        {
            throw new RequestException(StatusCodes.Status401Unauthorized, "The API key is missing or wrong: send the header Authorization: Bearer KEY.", code: "invalid_api_key");
        }

        if (HttpMethods.IsPost(request.Method) && context.GetEndpoint() is { } endpoint && !request.HasJsonContentType() && endpoint.Metadata.GetMetadata<OtherBody>()?.Takes(request) != true)
        {
            throw new RequestException(StatusCodes.Status415UnsupportedMediaType, "The body must be JSON: send the header Content-Type: application/json.");
        }

        return next(context);
    }

    private static bool IsLocal(string host) => host.Equals("localhost", StringComparison.OrdinalIgnoreCase) || (IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));

    // Hashes have one length, and are compared in one time.
    private bool IsKey(string header) => Given(header) is { } key && CryptographicOperations.FixedTimeEquals(SHA256.HashData(key), _key);

    // Basic is for browsers, which ask for a name (any will do) and a password (the key).
    private static byte[]? Given(string header)
    {
        if (header.StartsWith("Bearer ", StringComparison.OrdinalIgnoreCase))
        {
            return Encoding.UTF8.GetBytes(header[7..].Trim());
        }

        if (!header.StartsWith("Basic ", StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }

        var bytes = new byte[header.Length];
        return Convert.TryFromBase64String(header[6..].Trim(), bytes, out var length) && bytes.AsSpan(0, length).IndexOf((byte)':') is >= 0 and var colon ? bytes[(colon + 1)..length] : null;
    }
}
