using LrIad.Engine.Serving;
using LrIad.Server.OpenAi;
using LrIad.Server.Requests;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LrIad.Server.Inspect;

/// <summary><c>/inspect/jobs</c>: whole folders. A few run at a time, and of those that have ended the last are kept.</summary>
/// <param name="engine">What inspects.</param>
/// <param name="options">What they are asked.</param>
/// <param name="errors">Takes the server's own errors.</param>
internal sealed class InspectJobs(IInferenceEngine engine, ServerOptions options, Errors errors) : IAsyncDisposable
{
    // What bounds the work and the memory: a result has a kilobyte or two.
    private const int MostRunning = 4, MostKept = 32, MostResults = 50_000, ResultsAtATime = 1000;

    private static readonly ImageData NoImage = new(default);

    private readonly Lock _lock = new();
    private readonly List<InspectJob> _jobs = [];

    public static void Map(IEndpointRouteBuilder routes)
    {
        var jobs = routes.MapGroup("/inspect/jobs").WithMetadata(OpenAiError.Form);
        jobs.MapPost("", BeginAsync).WithSummary("Begins to inspect the images of a folder.").Accepts<JobBody>("application/json").Produces<JobStatus>(StatusCodes.Status202Accepted).Produces<OpenAiError>(StatusCodes.Status400BadRequest);
        jobs.MapGet("{id}", (string id, int? from, InspectJobs all) => TypedResults.Json(all.Find(id).Status(Math.Max(0, from ?? 0), ResultsAtATime), Json.Wire)).WithSummary("How far a job is, and its verdicts.");
        jobs.MapDelete("{id}", async (string id, InspectJobs all) =>
        {
            await all.Find(id).CancelAsync();
            return TypedResults.Json(all.Find(id).Status(0, 0), Json.Wire);
        }).WithSummary("Ends a job; the verdicts it has come to stay for a while.");
    }

    public async ValueTask DisposeAsync()
    {
        InspectJob[] jobs;
        lock (_lock)
        {
            jobs = [.. _jobs];
        }

        foreach (var job in jobs)
        {
            await job.DisposeAsync();
        }
    }

    private static async Task<IResult> BeginAsync(HttpContext context, InspectJobs jobs, IInferenceEngine engine, ImageSources sources)
    {
        var fields = await RequestBody.ReadAsync(context);
        var call = InspectCall.Read(fields, engine, sources, NoImage, Clients.Of(context));
        var job = new InspectJob(call, new JobFolder(fields.Text("folder"), sources));
        jobs.Add(job);
        context.Response.Headers.Location = $"/inspect/jobs/{job.Id}";
        return TypedResults.Json(job.Status(0, 0), Json.Wire, statusCode: StatusCodes.Status202Accepted);
    }

    private void Add(InspectJob job)
    {
        lock (_lock)
        {
            if (_jobs.Count(other => other.IsRunning) >= MostRunning)
            {
                throw RequestException.Busy($"{MostRunning} jobs are running, and no more at a time: wait until one of them ends, or end one with DELETE.");
            }

            // The oldest that have ended make room.
            foreach (var old in _jobs.Where(old => !old.IsRunning).ToArray())
            {
                if (_jobs.Count >= MostKept || _jobs.Sum(other => other.Results) >= MostResults)
                {
                    _jobs.Remove(old);
                }
            }

            _jobs.Add(job);
            job.Start(engine, options.Question, errors.Report);
        }
    }

    private InspectJob Find(string id)
    {
        lock (_lock)
        {
            return _jobs.Find(job => job.Id == id) ?? throw new RequestException(StatusCodes.Status404NotFound, $"There is no job {RequestFields.Shown(id)} here, or no longer.", "id");
        }
    }
}
