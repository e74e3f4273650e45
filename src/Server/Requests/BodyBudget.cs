namespace LrIad.Server.Requests;

/// <summary>How many bytes of requests are held at a time: taken as they are read, given back when the request has been answered.</summary>
/// <param name="limit">Bytes in all.</param>
internal sealed class BodyBudget(long limit)
{
    private long _taken;

    private long Limit => limit;

    /// <summary>A share that grows from nothing.</summary>
    public Share Open() => new(this);

    /// <summary>What one request has taken.</summary>
    public sealed class Share(BodyBudget budget) : IDisposable
    {
        private long _bytes;

        /// <exception cref="RequestException">All is taken.</exception>
        public void Take(long bytes)
        {
            _bytes += bytes;
            if (Interlocked.Add(ref budget._taken, bytes) > budget.Limit)
            {
                throw RequestException.Busy("The requests being answered hold all the memory this server gives to them: try again later.");
            }
        }

        public void Dispose() => Interlocked.Add(ref budget._taken, -Interlocked.Exchange(ref _bytes, 0));
    }
}
