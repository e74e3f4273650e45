namespace LrIad.Server.Requests;

/// <summary>Answers that come in parts, of which the first is there: what goes wrong before it can still be told with a status of its own.</summary>
internal static class Started
{
    /// <summary>Waits for the first part.</summary>
    public static async Task<StartedParts<T>> StartAsync<T>(this IAsyncEnumerable<T> parts, CancellationToken cancellation)
    {
        var enumerator = parts.GetAsyncEnumerator(cancellation);
        try
        {
            return new StartedParts<T>(enumerator, await enumerator.MoveNextAsync());
        }
        catch
        {
            await enumerator.DisposeAsync();
            throw;
        }
    }
}

/// <summary>Parts to be read once. Who may come to read none of them disposes of them: the engine works on them already.</summary>
internal sealed class StartedParts<T>(IAsyncEnumerator<T> enumerator, bool any) : IAsyncEnumerable<T>, IAsyncDisposable
{
    public async IAsyncEnumerator<T> GetAsyncEnumerator(CancellationToken cancellationToken = default)
    {
        await using (enumerator)
        {
            for (var more = any; more; more = await enumerator.MoveNextAsync())
            {
                yield return enumerator.Current;
            }
        }
    }

    public ValueTask DisposeAsync() => enumerator.DisposeAsync();
}
