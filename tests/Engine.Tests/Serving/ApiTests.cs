using System.Reflection;
using LrIad.Engine.Serving;
using PublicApiGenerator;

namespace LrIad.Engine.Tests.Serving;

/// <summary>What users of the package can call: a change that breaks them is seen before they see it.</summary>
internal sealed class ApiTests
{
    [Test]
    public void The_public_surface_is_the_one_written_down()
    {
        // What the compiler numbers anew with every member is nobody's concern.
        var options = new ApiGeneratorOptions { IncludeAssemblyAttributes = false, ExcludeAttributes = ["System.Runtime.CompilerServices.AsyncIteratorStateMachineAttribute", "System.Runtime.CompilerServices.AsyncStateMachineAttribute"] };
        Assembly[] package = [typeof(IInferenceEngine).Assembly, Assembly.Load("LrIad.Interop")];
        var surface = string.Join("\n", package.Select(assembly => assembly.GeneratePublicApi(options))).ReplaceLineEndings("\n");
        var golden = TestFiles.GoldenFile("api.txt");
        if (surface != (File.Exists(golden) ? File.ReadAllText(golden) : ""))
        {
            var now = Path.Combine(TestFiles.Root, "out", "api.txt");
            Directory.CreateDirectory(Path.GetDirectoryName(now)!);
            File.WriteAllText(now, surface);
            Assert.Fail($"The package's public surface has changed: compare {golden} with {now}. If it was meant, and breaks nobody, copy the second over the first.");
        }
    }
}
