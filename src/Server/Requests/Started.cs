namespace LrIad.Server.Requests;

/// <summary>Answers that come in parts, of which the first is there: what goes wrong before it can still be told with a status of its own.</summary>
internal static class Started
{
    /// <summary>Waits for the first part.</summary>
    public static async Task<IAsyncEnumerable<T>> StartAsync<T>(this IAsyncEnumerable<T> parts, CancellationToken cancellation)
    {
        var enumerator = parts.GetAsyncEnumerator(cancellation);
        try
        {
            return Go(enumerator, await enumerator.MoveNextAsync());
        }
        catch
        {
            await enumerator.DisposeAsync();
            throw;
        }
    }

    private static async IAsyncEnumerable<T> Go<T>(IAsyncEnumerator<T> enumerator, bool any)
    {
        await using (enumerator)
        {
            for (; any; any = await enumerator.MoveNextAsync())
            {
                yield return enumerator.Current;
            }
        }
    }
}
